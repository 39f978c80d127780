//! Keeps the commit ledger small: deletes rows of published batches whose group commits can no longer be sent again.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::store::Outbox;

/// How long a published row is kept: far longer than a group commit may be sent again, which must find its row.
const KEPT: Duration = Duration::from_secs(3600);

/// How often the ledger is pruned.
const INTERVAL: Duration = Duration::from_secs(60);

/// How many rows one statement examines: few enough not to delay a group commit.
const STEP_ROWS: u32 = 1000;

/// Prunes the commit ledger at intervals until `stop`.
pub async fn prune_commit_ledger(store: Arc<dyn Outbox>, stop: CancellationToken) {
    while stop.run_until_cancelled(tokio::time::sleep(INTERVAL)).await.is_some() {
        let mut next = Some(0);
        while let Some(after) = next
            && !stop.is_cancelled()
        {
            next = match store.prune_commit_ledger(after, KEPT, STEP_ROWS).await {
                Ok(pruned) => pruned.next,
                Err(error) => {
                    tracing::warn!(
                        error.class = error.class.as_str(),
                        "failed to prune the commit ledger, retrying in a minute: {}",
                        error.line()
                    );
                    None
                }
            };
        }
    }
}
