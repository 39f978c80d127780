//! The backlog gauges: how many batches the outbox holds, read at intervals, so that a scrape need not query the store.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;
use crate::store::Outbox;

/// How often the backlog is read. The query costs as much as the outbox holds, so not too often.
const INTERVAL: Duration = Duration::from_secs(5);

/// Sets the gauges of the outbox at intervals until `stop`. While the store fails, they keep their last values.
pub async fn watch_backlog(store: Arc<dyn Outbox>, metrics: Arc<Metrics>, stop: CancellationToken) {
    while !stop.is_cancelled() {
        match store.backlog().await {
            Ok(backlog) => {
                metrics.outbox_batches.set(backlog.batches);
                metrics.outbox_age.set(backlog.oldest_seconds);
                metrics.outbox_dead_letters.set(backlog.dead_letters);
            }
            Err(error) => tracing::debug!(
                error.class = error.class.as_str(),
                "failed to read the backlog of the outbox, its metrics keep their last values: {}",
                error.line()
            ),
        }
        stop.run_until_cancelled(tokio::time::sleep(INTERVAL)).await;
    }
}
