//! Work that keeps a processor busy for long: parsing a body of megabytes, or digesting thousands of events.
//!
//! A thread that is busy with it serves no other client meanwhile. So as many bodies are parsed at once as leave a processor to the
//! others, and the runtime is told, so that another thread takes over what this one would have done.

use std::sync::LazyLock;

use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::Semaphore;

static TURNS: LazyLock<Semaphore> = LazyLock::new(|| {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    Semaphore::new(processors.saturating_sub(1).max(1))
});

/// Runs work of a client when it is its turn.
pub(crate) async fn in_turn<T>(work: impl FnOnce() -> T) -> T {
    let _turn = TURNS.acquire().await.expect("it is never closed");
    in_place(work)
}

/// Runs work at once.
pub(super) fn in_place<T>(work: impl FnOnce() -> T) -> T {
    match Handle::current().runtime_flavor() {
        RuntimeFlavor::MultiThread => tokio::task::block_in_place(work),
        _ => work(),
    }
}
