//! Waiting for a condition. No other code of the tests sleeps.

use std::panic::Location;
use std::thread;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};

/// Long enough for anything that a healthy service does on a busy machine with two cores.
pub const SOON: Duration = Duration::from_secs(60);

/// The interval between two checks of a condition, short enough to see a state that lasts for a tenth of a second.
const INTERVAL: Duration = Duration::from_millis(20);

/// Checks `condition` until it is `Ok`, and returns its value.
///
/// # Panics
/// At the `deadline`, with the last error, at the caller's line.
#[track_caller]
pub fn eventually<T>(deadline: Duration, condition: impl AsyncFnMut() -> anyhow::Result<T>) -> impl Future<Output = T> {
    ask_until(Location::caller(), deadline, condition)
}

async fn ask_until<T>(
    caller: &'static Location<'static>,
    deadline: Duration,
    condition: impl AsyncFnMut() -> anyhow::Result<T>,
) -> T {
    within(deadline, condition)
        .await
        .unwrap_or_else(|last| panic!("{caller}: not met within {deadline:?}: {last:#}"))
}

/// The same for a condition that may never hold.
///
/// # Errors
/// The last error, at the `deadline`.
pub async fn within<T>(deadline: Duration, mut condition: impl AsyncFnMut() -> anyhow::Result<T>) -> anyhow::Result<T> {
    let end = Instant::now() + deadline;
    let mut last = anyhow::anyhow!("its first attempt never ended");
    loop {
        match timeout_at(end, condition()).await {
            Ok(Ok(found)) => return Ok(found),
            Ok(Err(error)) => last = error,
            Err(_) => return Err(last),
        }
        if Instant::now() >= end {
            return Err(last);
        }
        sleep(INTERVAL).await;
    }
}

/// Waits without a limit until `condition` holds: for a `Drop`, which cannot await.
#[expect(clippy::disallowed_methods, reason = "a Drop cannot await")]
pub(crate) fn block_until(mut condition: impl FnMut() -> bool) {
    while !condition() {
        thread::sleep(INTERVAL / 20);
    }
}
