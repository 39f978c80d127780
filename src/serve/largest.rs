//! Which topics are the largest: found out now and then, where the store cannot tell at once.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::store::Maintenance;

/// How often the store is told to look; it decides itself whether that is needed.
const INTERVAL: Duration = Duration::from_secs(5);

/// Lets the store look at intervals until `stop`.
pub(super) async fn find_largest_topics(store: Arc<dyn Maintenance>, stop: CancellationToken) {
    let looking = async {
        loop {
            tokio::time::sleep(INTERVAL).await;
            if let Err(error) = store.find_largest_topics().await {
                tracing::debug!(
                    error.class = error.class.as_str(),
                    "failed to find out which topics are the largest, retrying: {}",
                    error.line()
                );
            }
        }
    };
    stop.run_until_cancelled(looking).await;
}
