//! The outbox: what is stored and not yet published. The row of a group commit in the commit ledger is also its row in the
//! outbox, so events and the duty to publish them are committed together.
//!
//! A batch is unpublished until it is marked. Its publisher holds a lease on it, which carries the owner's token and expires
//! by the store's clock: until then no other process claims the batch, afterwards any process may. No call leaves a
//! transaction open.

use std::time::Duration;

use async_trait::async_trait;
use uuid::Uuid;

use super::error::StoreError;
use crate::event::{Cursor, StoredEvent, Timestamp};

/// A claim on a batch of the outbox.
#[derive(Debug, Clone, Copy)]
pub struct Lease {
    /// The token of the process that publishes the batch.
    pub owner: Uuid,
    /// How long the lease lasts, from the commit.
    pub length: Duration,
}

/// The part of a store that records what is published. The relay and the command `outbox` call it.
#[async_trait]
pub trait Outbox: Send + Sync + 'static {
    /// Claims at most `limit` batches that are unpublished and not leased, the oldest first, and returns their numbers in that
    /// order. Two concurrent callers never claim the same batch, and neither waits for the other.
    async fn claim_unpublished(&self, lease: Lease, limit: u32) -> Result<Vec<i64>, StoreError>;

    /// Reads the events of some batches in log order, stable or not: those behind the place `after` (`None`: from the first),
    /// as many as `bytes_max` allows, and at least one.
    async fn events_of(
        &self,
        batches: &[i64],
        after: Option<Cursor>,
        bytes_max: usize,
    ) -> Result<EventsPage, StoreError>;

    /// Marks as published those of the batches that `owner` still leases, and returns their number. A batch that another
    /// process has claimed meanwhile is left to that process. The mark may be lost in a crash: the batch is then published
    /// again.
    async fn mark_published(&self, owner: Uuid, batches: &[i64]) -> Result<u64, StoreError>;

    /// Gives up the owner's leases on those of these batches (`None`: on all batches) that are not published, so that any
    /// process may claim them at once. Returns their number.
    async fn release(&self, owner: Uuid, batches: Option<&[i64]>) -> Result<u64, StoreError>;

    /// Dead-letters events that the sink rejects: they are kept and listed, and their batch can be marked as published. An
    /// event that is a dead letter already gets the new reason; an event that was pruned meanwhile is skipped.
    async fn dead_letter(&self, events: &[NewDeadLetter]) -> Result<(), StoreError>;

    /// Lists dead letters in log order, those behind `after`, at most `limit`.
    async fn dead_letters(&self, after: Cursor, limit: u32) -> Result<Vec<DeadLetter>, StoreError>;

    /// Removes dead letters whose events the sink has taken after all. Returns how many there were.
    async fn remove_dead_letters(&self, events: &[Cursor]) -> Result<u64, StoreError>;

    /// How much all processes that share the store have left to publish. The cost grows only with the backlog.
    async fn backlog(&self) -> Result<Backlog, StoreError>;

    /// Removes rows of the commit ledger that were published longer ago than `age`: examines the `limit` rows behind the batch
    /// `after`, and ends at the first row that was received more recently than that. Events are not touched, and unpublished
    /// rows stay.
    async fn prune_commit_ledger(
        &self,
        after: i64,
        age: Duration,
        limit: u32,
    ) -> Result<CommitLedgerPruned, StoreError>;
}

/// What is stored and not published.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Backlog {
    /// Batches that are not published, dead letters aside.
    pub batches: i64,
    /// The age of the oldest of them in seconds.
    pub oldest_seconds: f64,
    /// Events that the sink rejected.
    pub dead_letters: i64,
}

/// Some events of some batches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventsPage {
    /// In log order.
    pub events: Vec<StoredEvent>,
    /// Whether no event of the batches is left behind these.
    pub is_last: bool,
}

/// An event that the sink rejects, to be dead-lettered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewDeadLetter {
    /// The place of the event in the log.
    pub cursor: Cursor,
    /// The sink's error, for people to read.
    pub reason: String,
}

/// A dead letter: an event that the sink has rejected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// The event.
    pub event: StoredEvent,
    /// When it was dead-lettered first, by the store's clock.
    pub dead_lettered_at: Timestamp,
    /// The sink's latest error.
    pub reason: String,
}

/// What one step of pruning the commit ledger did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CommitLedgerPruned {
    /// Rows removed.
    pub removed: u64,
    /// Where the next step begins; `None` when this step reached a row that is too young, or the end.
    pub next: Option<i64>,
}
