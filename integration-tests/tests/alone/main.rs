//! Tests that need the machine for themselves: they measure, or put a heavy load on it. `cargo test` runs one binary after the
//! other, and here each test holds a lock while it runs.

mod bench;
mod dashboard_load;
mod many_subscribers;

use tokio::sync::{Mutex, MutexGuard};

/// Waits until no other test of this binary runs. The test keeps the guard until it ends.
async fn alone() -> MutexGuard<'static, ()> {
    static RUNNING: Mutex<()> = Mutex::const_new(());
    RUNNING.lock().await
}
