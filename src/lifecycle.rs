//! Signals, stop tokens and tracked tasks. A task that ends unexpectedly ends the process.

use std::future::Future;
use std::io;
use std::panic::AssertUnwindSafe;

use futures_util::FutureExt;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The tasks that a service needs. Each is spawned under a name.
#[derive(Debug)]
pub struct Tasks {
    tracker: TaskTracker,
    stop: CancellationToken,
    died: mpsc::Sender<&'static str>,
    deaths: mpsc::Receiver<&'static str>,
}

impl Default for Tasks {
    fn default() -> Self {
        let (died, deaths) = mpsc::channel(1);
        Self {
            tracker: TaskTracker::new(),
            stop: CancellationToken::new(),
            died,
            deaths,
        }
    }
}

impl Tasks {
    /// Cancelled when the tasks are to end.
    pub fn stop(&self) -> &CancellationToken {
        &self.stop
    }

    /// Spawns a task. If it panics, or returns before [`Tasks::stop`], it has died.
    pub fn spawn(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let (stop, died) = (self.stop.clone(), self.died.clone());
        self.tracker.spawn(async move {
            let panicked = AssertUnwindSafe(task).catch_unwind().await.is_err();
            if panicked || !stop.is_cancelled() {
                // The first death ends the process; the channel has no room for a second.
                died.try_send(name).ok();
            }
        });
    }

    /// Waits for the first task that died, and returns its name.
    pub async fn death(&mut self) -> &'static str {
        match self.deaths.recv().await {
            Some(name) => name,
            None => std::future::pending().await,
        }
    }

    /// Waits until all tasks have ended.
    pub async fn ended(&self) {
        self.tracker.close();
        self.tracker.wait().await;
    }
}

/// SIGTERM and SIGINT.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Installs the handlers: from here on a signal no longer ends the process by itself.
    pub fn listen() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// Waits for the next signal, and returns its name.
    pub async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_task_that_returns_early_or_panics_has_died() {
        let mut tasks = Tasks::default();
        tasks.spawn("early", async {});
        assert_eq!(tasks.death().await, "early");
        tasks.spawn("panicking", async { panic!("on purpose") });
        assert_eq!(tasks.death().await, "panicking");
    }

    #[tokio::test]
    async fn a_task_that_ends_at_the_stop_has_not_died() {
        let mut tasks = Tasks::default();
        let stop = tasks.stop().clone();
        tasks.spawn("obedient", async move { stop.cancelled().await });
        tasks.stop().cancel();
        tasks.ended().await;
        assert!(tasks.death().now_or_never().is_none());
    }
}
