//! Marks batches as published, in groups, and releases leases.

use std::time::Duration;

use tokio::time::Instant;

use super::Relay;
use crate::store::StoreError;

/// How long a published batch may wait for its mark, so that many are marked together.
const MARK_INTERVAL: Duration = Duration::from_millis(100);
/// With this number of batches they are marked without a wait.
const MARKS_MAX: usize = 256;
/// While the store takes no marks, at most this number is kept; the batches of older ones are published once more.
const MARKS_KEPT: usize = 100_000;

impl Relay {
    /// Remembers a published batch, to be marked.
    pub(super) fn note_published(&mut self, batch: i64) {
        if self.unmarked.is_empty() {
            self.unmarked_since = Instant::now();
        }
        if self.unmarked.len() >= MARKS_KEPT {
            self.unmarked.pop_front();
        }
        self.unmarked.push_back(batch);
    }

    /// When the batches that wait for their marks are to be marked; `None` if there are none.
    pub(super) fn mark_due_at(&self) -> Option<Instant> {
        (!self.unmarked.is_empty()).then(|| self.unmarked_since + MARK_INTERVAL)
    }

    /// Marks the published batches if they are many, or if the first has waited long enough.
    pub(super) async fn mark_if_due(&mut self) {
        let is_due = self.mark_due_at().is_some_and(|due| due <= Instant::now());
        if is_due || self.unmarked.len() >= MARKS_MAX {
            self.try_mark().await;
        }
    }

    /// Marks the published batches; if the store fails, they are marked with the next ones.
    pub(super) async fn try_mark(&mut self) {
        if let Err(error) = self.mark().await {
            self.metrics.count_store_error(error.class.as_str());
            tracing::warn!(
                error.class = error.class.as_str(),
                "failed to mark batches as published, retrying with the next ones: {}",
                error.line()
            );
            self.unmarked_since = Instant::now();
        }
    }

    pub(super) async fn mark(&mut self) -> Result<(), StoreError> {
        if self.unmarked.is_empty() {
            return Ok(());
        }
        self.store
            .mark_published(self.lease.owner, self.unmarked.make_contiguous())
            .await?;
        self.unmarked.clear();
        Ok(())
    }

    /// Marks the published batches, and releases the leases of those that are left to the outbox.
    pub(super) async fn update_outbox(&mut self) -> Result<(), StoreError> {
        self.mark().await?;
        if !self.to_release.is_empty() {
            self.store.release(self.lease.owner, Some(&self.to_release)).await?;
            self.to_release.clear();
        }
        Ok(())
    }
}
