//! One query of the store's counters for all requests that ask at the same time.

use std::sync::{Arc, Mutex};

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};

use crate::store::{EventReader, StoreError, StoreStats};

type Reading = Shared<BoxFuture<'static, Result<Arc<StoreStats>, StoreError>>>;

/// Reads the counters once for all callers of the moment. A caller that comes while a query runs waits for the next query, which
/// had not begun at the time of the call, and shares it with all other callers that wait.
#[derive(Clone)]
pub(super) struct SharedStats {
    store: Arc<dyn EventReader>,
    running: Arc<tokio::sync::Mutex<()>>,
    next: Arc<Mutex<Option<Reading>>>,
}

impl SharedStats {
    /// Nothing is read yet.
    pub(super) fn new(store: Arc<dyn EventReader>) -> Self {
        Self {
            store,
            running: Arc::default(),
            next: Arc::default(),
        }
    }

    /// The counters, from a snapshot that was taken after this call.
    pub(super) async fn read(&self) -> Result<Arc<StoreStats>, StoreError> {
        let reading = {
            let mut next = self
                .next
                .lock()
                .expect("nothing panics while it holds the next reading");
            next.get_or_insert_with(|| self.clone().begin().boxed().shared())
                .clone()
        };
        reading.await
    }

    async fn begin(self) -> Result<Arc<StoreStats>, StoreError> {
        let _turn = self.running.lock().await;
        // The query begins now: later callers need another one.
        self.next
            .lock()
            .expect("nothing panics while it holds the next reading")
            .take();
        self.store.stats().await.map(Arc::new)
    }
}
