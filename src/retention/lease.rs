//! One process at a time works on what expires.

use std::pin::pin;
use std::time::Duration;

use uuid::Uuid;

use crate::store::{Retention, StoreError};

/// The name of the lease.
const NAME: &str = "retention";
/// How long it lasts if it is not renewed: so long after a process was killed another one takes over, and a process that was frozen
/// for longer has lost it.
const LENGTH: Duration = Duration::from_secs(15);
/// How often it is renewed.
const RENEWAL: Duration = Duration::from_secs(4);

/// Runs `work` under the lease, and gives it up afterwards. `None`: another process has it, or it was lost.
pub(super) async fn under_lease<T>(
    store: &dyn Retention,
    work: impl Future<Output = T>,
) -> Result<Option<T>, StoreError> {
    let owner = Uuid::new_v4();
    if !store.lease(NAME, owner, LENGTH).await? {
        return Ok(None);
    }
    let mut work = pin!(work);
    let mut renewal = pin!(tokio::time::sleep(RENEWAL));
    let done = loop {
        tokio::select! {
            // The lease first: whoever was frozen must not go on before it is renewed.
            biased;
            () = &mut renewal => {
                if !store.lease(NAME, owner, LENGTH).await? {
                    return Ok(None);
                }
                renewal.as_mut().reset(tokio::time::Instant::now() + RENEWAL);
            }
            done = &mut work => break done,
        }
    };
    store.lease(NAME, owner, Duration::ZERO).await?;
    Ok(Some(done))
}
