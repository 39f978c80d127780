//! The outbox: what is stored and owed to a fan-out. The ledger row of a flush is also its row here, so an event and the debt
//! to publish it are committed together.
//!
//! A batch is unpublished until somebody marks it. Whoever publishes it holds a lease on it, which bears the token of its
//! owner and ends by the store's clock: while it lasts others leave the batch alone, and after it anybody may claim it.
//! Nothing here keeps a transaction open between two calls.

use std::time::Duration;

use async_trait::async_trait;
use uuid::Uuid;

use super::{Lease, StoreError};
use crate::event::{Cursor, StoredEvent, Timestamp};

/// The part of a store that knows what was published. The relay and the command `outbox` call it.
#[async_trait]
pub trait Outbox: Send + Sync + 'static {
    /// Claims batches that are unpublished and under no lease that lasts, the oldest first, at most `limit`, and answers with
    /// their numbers in that order. Two callers at once never claim the same batch, and neither waits for the other.
    ///
    /// # Errors
    /// As [`StoreError::class`] says.
    async fn claim_unpublished(&self, lease: Lease, limit: u32) -> Result<Vec<i64>, StoreError>;

    /// Reads the events of some batches in log order, settled or not: those behind the place `after` (`None`: from the first),
    /// as many as `bytes_max` allows, and at least one.
    ///
    /// # Errors
    /// As [`StoreError::class`] says.
    async fn events_of(
        &self,
        batches: &[i64],
        after: Option<Cursor>,
        bytes_max: usize,
    ) -> Result<EventsPage, StoreError>;

    /// Marks batches as published, where the lease is still the owner's; answers with how many that were. A batch that
    /// somebody else has claimed meanwhile is theirs to mark. It need not survive a crash: the batch is then published again.
    ///
    /// # Errors
    /// As [`StoreError::class`] says.
    async fn mark_published(&self, owner: Uuid, batches: &[i64]) -> Result<u64, StoreError>;

    /// Gives back the owner's leases on these batches (`None`: on all that it holds) that are not published: anybody may claim
    /// them at once. Answers with how many that were.
    ///
    /// # Errors
    /// As [`StoreError::class`] says.
    async fn release(&self, owner: Uuid, batches: Option<&[i64]>) -> Result<u64, StoreError>;

    /// Parks events that the fan-out refuses for themselves: they are kept and listed, and their batch can be marked. One that
    /// is parked already gets the new reason; one that was pruned meanwhile is left out.
    ///
    /// # Errors
    /// As [`StoreError::class`] says.
    async fn dead_letter(&self, refused: &[Refused]) -> Result<(), StoreError>;

    /// Lists parked events in log order, those behind `after`, at most `limit`.
    ///
    /// # Errors
    /// As [`StoreError::class`] says.
    async fn dead_letters(&self, after: Cursor, limit: u32) -> Result<Vec<DeadLetter>, StoreError>;

    /// Parks these events no longer: the fan-out has taken them. Answers with how many were parked.
    ///
    /// # Errors
    /// As [`StoreError::class`] says.
    async fn remove_dead_letters(&self, events: &[Cursor]) -> Result<u64, StoreError>;

    /// How much is owed to the fan-out, by all who share the store. It costs no more than what is owed.
    ///
    /// # Errors
    /// As [`StoreError::class`] says.
    async fn backlog(&self) -> Result<Backlog, StoreError>;

    /// Removes ledger rows that were published longer ago than `age`: looks at the `limit` rows behind the batch `after`, and
    /// ends at the first that was received more recently than that. Events are not touched, and unpublished rows stay.
    ///
    /// # Errors
    /// As [`StoreError::class`] says.
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
    /// Batches that are not published, parked events aside.
    pub batches: i64,
    /// The age of the oldest of them in seconds.
    pub oldest_seconds: f64,
    /// Events that are parked.
    pub parked: i64,
}

/// Some events of some batches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventsPage {
    /// In log order.
    pub events: Vec<StoredEvent>,
    /// Whether these are all that there are behind the place asked for.
    pub is_last: bool,
}

/// An event that the fan-out refuses for itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// Its place.
    pub cursor: Cursor,
    /// What the fan-out said, for a person.
    pub reason: String,
}

/// A parked event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// The event.
    pub event: StoredEvent,
    /// Since when, by the store's clock.
    pub parked_at: Timestamp,
    /// What the fan-out said.
    pub reason: String,
}

/// What a step of pruning the ledger did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CommitLedgerPruned {
    /// Rows removed.
    pub removed: u64,
    /// Where the next step begins; `None` when this one has reached what is too young, or the end.
    pub next: Option<i64>,
}
