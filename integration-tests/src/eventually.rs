//! Waiting for a condition: the only place of the tests where time passes on purpose.

use std::panic::Location;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};

/// Long enough for anything that a healthy service does on a busy machine of two cores.
pub const SOON: Duration = Duration::from_secs(20);

/// How often a condition is asked again: often enough to catch a state that lasts for a tenth of a second.
const INTERVAL: Duration = Duration::from_millis(20);

/// Asks `condition` until it answers `Ok`, and gives back what it found.
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
    mut condition: impl AsyncFnMut() -> anyhow::Result<T>,
) -> T {
    let end = Instant::now() + deadline;
    let mut last = String::from("its first attempt never ended");
    loop {
        match timeout_at(end, condition()).await {
            Ok(Ok(found)) => return found,
            Ok(Err(error)) => last = format!("{error:#}"),
            Err(_) => panic!("{caller}: not so within {deadline:?}: {last}"),
        }
        assert!(Instant::now() < end, "{caller}: not so within {deadline:?}: {last}");
        sleep(INTERVAL).await;
    }
}
