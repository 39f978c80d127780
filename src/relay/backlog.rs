//! How full the outbox is, looked at from time to time, so that who asks for figures need not ask the store.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;
use crate::store::Outbox;

/// How often the outbox is looked at. A look costs as much as there is in it, so not too often.
const INTERVAL: Duration = Duration::from_secs(5);

/// Looks at the outbox from time to time until `stop`. While the store does not tell, the last figures stay.
pub async fn watch_backlog(store: Arc<dyn Outbox>, metrics: Arc<Metrics>, stop: CancellationToken) {
    while !stop.is_cancelled() {
        match store.backlog().await {
            Ok(owed) => {
                metrics.outbox_batches.set(owed.batches);
                metrics.outbox_age.set(owed.oldest_seconds);
                metrics.outbox_dead_letters.set(owed.dead_letters);
            }
            Err(error) => tracing::debug!(
                error.class = error.class.as_str(),
                "the outbox is counted later: {}",
                error.line()
            ),
        }
        stop.run_until_cancelled(tokio::time::sleep(INTERVAL)).await;
    }
}
