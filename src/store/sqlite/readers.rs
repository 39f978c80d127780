//! The connections that reads share.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rusqlite::Connection;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::connect::{Link, Role, StoreFile, blocking, closed};
use super::error::failed_to;
use crate::store::{ErrorClass, StoreError};

/// How many reads run at once; more wait for a connection.
const READERS_MAX: usize = 8;

/// How many of them are for clients: two are left for figures, for probes, and for the reader of the live stream.
const CLIENT_READERS_MAX: usize = 6;

/// A pool of connections for reads. A connection is either idle here or on loan to one read. A read whose caller was cancelled
/// continues until its time limit, and keeps its permit until then.
///
/// Not `deadpool`, as for PostgreSQL: the writer must be able to hold back all reads at once ([`Readers::hold_back`]).
#[derive(Clone)]
pub(super) struct Readers {
    file: Arc<StoreFile>,
    permits: Arc<Semaphore>,
    clients: Arc<Semaphore>,
    idle: Arc<std::sync::Mutex<Vec<Link>>>,
}

impl Readers {
    pub(super) fn new(file: Arc<StoreFile>) -> Self {
        Self {
            file,
            permits: Arc::new(Semaphore::new(READERS_MAX)),
            clients: Arc::new(Semaphore::new(CLIENT_READERS_MAX)),
            idle: Arc::default(),
        }
    }

    /// Runs one read for a client, as [`Readers::run`], when it has a turn.
    pub(super) async fn run_for_client<T: Send + 'static>(
        &self,
        limit: Duration,
        read: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let begun = Instant::now();
        let Ok(turn) = tokio::time::timeout(limit, self.clients.clone().acquire_owned()).await else {
            let message = format!("no turn for the read became free within {limit:?}");
            return Err(StoreError::new(ErrorClass::Contention, message));
        };
        let read = move |connection: &Connection| {
            let _turn = turn;
            read(connection)
        };
        self.run(limit.saturating_sub(begun.elapsed()), read).await
    }

    /// Runs one read within `limit`, the wait for a connection included, in a transaction: the read sees one snapshot.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        limit: Duration,
        read: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let begun = Instant::now();
        let permit = match tokio::time::timeout(limit, self.permits.clone().acquire_owned()).await {
            Ok(permit) => permit.map_err(|_| closed())?,
            Err(_) => {
                let message = format!("no connection for the read became free within {limit:?}");
                return Err(StoreError::new(ErrorClass::Contention, message));
            }
        };
        let readers = self.clone();
        blocking(move || {
            let _permit = permit;
            let link = readers.link()?;
            link.limit(limit.saturating_sub(begun.elapsed()))?;
            let snapshot = link
                .connection
                .unchecked_transaction()
                .map_err(failed_to("begin to read"))?;
            let result = read(&snapshot)?;
            snapshot.finish().map_err(failed_to("end a read"))?;
            readers.keep(link);
            Ok(result)
        })
        .await
    }

    /// Waits for running reads to end, and holds back new ones until the permit is dropped. `None` when the running reads take
    /// longer than `limit`.
    pub(super) async fn hold_back(&self, limit: Duration) -> Option<OwnedSemaphorePermit> {
        let all = u32::try_from(READERS_MAX).unwrap_or(u32::MAX);
        let permits = tokio::time::timeout(limit, self.permits.clone().acquire_many_owned(all)).await;
        permits.ok()?.ok()
    }

    pub(super) fn is_closed(&self) -> bool {
        self.permits.is_closed()
    }

    pub(super) fn close(&self) {
        self.permits.close();
        self.lock().clear();
    }

    fn link(&self) -> Result<Link, StoreError> {
        let idle = self.lock().pop();
        match idle {
            Some(link) => link.file.check().map(|()| link),
            None => Link::open(&self.file, Role::Reader),
        }
    }

    fn keep(&self, link: Link) {
        let mut idle = self.lock();
        // A read that was running while the store was closed must not leave its connection behind.
        if !self.is_closed() {
            idle.push(link);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Link>> {
        self.idle
            .lock()
            .expect("nothing panics while it holds the idle connections")
    }
}
