//! The writer's connection to the store.

use std::time::Duration;

use tokio::time::Instant;

use super::Writer;
use crate::store::{Appended, Appender, GroupCommit, StoreError};

/// How long one attempt to commit may take before its outcome counts as unknown and it is sent again on another connection.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(5);

/// A connection that was idle for longer, or was open when another one broke, is pinged before it is used: one round trip, which
/// a service under load never makes.
const IDLE_TRUSTED: Duration = Duration::from_secs(1);
/// How long the ping may take.
const PING_TIMEOUT: Duration = Duration::from_secs(1);

impl Writer {
    /// Makes sure of a connection that works, however long that takes; gives up only when the ingest is closed and every
    /// request has ended.
    pub(super) async fn connect(&mut self) {
        if let Some(mut appender) = self.appender.take() {
            if self.is_trusted() || appender.ping(PING_TIMEOUT).await.is_ok() {
                self.keep(appender);
                return;
            }
            tracing::debug!("a connection died while it was idle, opening another");
        }
        // Another writer may have a connection: the requests that woke this one need not wait.
        self.shared.queue.wake_another();
        loop {
            match self.store.appender(self.writer_id).await {
                Ok(appender) => {
                    self.keep(appender);
                    return;
                }
                Err(error) => self.shared.report(&error),
            }
            tokio::select! {
                () = tokio::time::sleep(self.backoff.next_wait()) => {}
                () = self.shared.queue.drained() => return,
            }
        }
    }

    /// One attempt to commit, on the writer's connection; opens one if there is none.
    pub(super) async fn attempt(&mut self, commit: &GroupCommit<'_>) -> Result<Appended, StoreError> {
        let mut appender = self.appender().await?;
        let result = appender.append(commit, ATTEMPT_TIMEOUT).await;
        self.keep_unless_broken(appender, &result);
        result
    }

    /// Tries whether the store would take a commit, and rolls it back.
    pub(super) async fn dry_run(&mut self, commit: &GroupCommit<'_>) -> Result<(), StoreError> {
        let mut appender = self.appender().await?;
        let result = appender.dry_run(commit, ATTEMPT_TIMEOUT).await;
        self.keep_unless_broken(appender, &result);
        result
    }

    async fn appender(&mut self) -> Result<Box<dyn Appender>, StoreError> {
        match self.appender.take() {
            Some(appender) => Ok(appender),
            None => self.store.appender(self.writer_id).await,
        }
    }

    /// Whether the connection may be used without a ping: it worked a moment ago, and none has broken since.
    fn is_trusted(&self) -> bool {
        self.used_at.elapsed() < IDLE_TRUSTED && self.broken_connections == self.shared.broken_connections()
    }

    /// Keeps the connection unless the error shows that it is no longer usable.
    fn keep_unless_broken<T>(&mut self, appender: Box<dyn Appender>, result: &Result<T, StoreError>) {
        if !matches!(result, Err(error) if error.class.breaks_connection()) {
            self.keep(appender);
        }
    }

    fn keep(&mut self, appender: Box<dyn Appender>) {
        self.appender = Some(appender);
        self.used_at = Instant::now();
        self.broken_connections = self.shared.broken_connections();
    }
}
