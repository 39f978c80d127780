//! Keeps the ledger small: rows of flushes that nobody will send again, and that were published, go.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::store::Outbox;

/// How long a published row is kept: far longer than a flush may be sent again, which must find it.
const KEPT: Duration = Duration::from_secs(3600);

/// How often the ledger is looked at.
const INTERVAL: Duration = Duration::from_secs(60);

/// How many rows a step looks at: few enough that nobody waits for it.
const STEP_ROWS: u32 = 1000;

/// Prunes the ledger from time to time until `stop`.
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
                        "the ledger is pruned later: {}",
                        error.line()
                    );
                    None
                }
            };
        }
    }
}
