//! The append side of a store: what one group commit carries, and what it answers.

use std::time::Duration;

use async_trait::async_trait;
use uuid::Uuid;

use super::batch::Batch;
use super::error::StoreError;
use super::name::Named;
use super::outbox::Lease;
use crate::event::{Cursor, Timestamp};

/// One attempt to commit a batch. A retry carries the same `id` and the same batch.
#[derive(Debug)]
pub struct GroupCommit<'a> {
    /// Identifies the group commit in the commit ledger; every attempt carries the same id.
    pub id: Uuid,
    /// The rows to store.
    pub batch: &'a Batch,
    /// The first lease on the batch in the outbox; `None`: the batch needs no publishing.
    pub lease: Option<Lease>,
    /// How long an attempt may wait for the lock of the whole store, which another process may hold, before it fails and nothing has been
    /// tried. Only an embedded store has one lock.
    pub lock_limit: Duration,
}

/// The answer to a group commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Appended {
    /// The number of the batch in the log.
    pub batch: i64,
    /// When the store received the batch, by the store's clock.
    pub received_at: Timestamp,
    /// One outcome for each row of the batch, in the order of the rows.
    pub outcomes: Vec<Outcome>,
}

/// The place of an event in the log, and when the store received the event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogPosition {
    /// The place in log order.
    pub cursor: Cursor,
    /// When the store received the event, by the store's clock.
    pub received_at: Timestamp,
}

/// The outcome of one row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The row is the first copy of its identity.
    Stored(LogPosition),
    /// The identity was stored before, at this position; the event itself may have expired.
    Duplicate(LogPosition),
    /// The identity was stored before with a payload that is a different JSON value.
    Conflict(LogPosition),
}

/// The part of a store that writers use.
#[async_trait]
pub trait EventWriter: Named {
    /// The highest number of useful writers: a store that runs one commit at a time needs only one.
    fn writers_max(&self) -> u32;

    /// The number of events at which a group commit is full and gathers no more requests. A single request may have more.
    fn batch_events(&self) -> usize;

    /// Opens a connection of its own for one writer. `writer_id` numbers the writers of a process from 0.
    async fn appender(&self, writer_id: u32) -> Result<Box<dyn Appender>, StoreError>;
}

/// The connection of one writer. After an error whose class [`breaks_connection`](super::ErrorClass::breaks_connection) the
/// appender must be dropped.
#[async_trait]
pub trait Appender: Send {
    /// Commits a batch. `timeout` bounds the attempt; once it has passed, the outcome is ambiguous. (In an embedded store it
    /// bounds only the wait for other processes, never the wait for the disk.)
    async fn append(&mut self, commit: &GroupCommit<'_>, timeout: Duration) -> Result<Appended, StoreError>;

    /// Checks within `timeout` that the connection still works. A connection that died while idle is found here, before a
    /// group commit is sent on it and ends with an unknown outcome.
    async fn ping(&mut self, timeout: Duration) -> Result<(), StoreError>;

    /// Does what [`Appender::append`] does and rolls it back: this is how the events that the store rejects are found.
    async fn dry_run(&mut self, commit: &GroupCommit<'_>, timeout: Duration) -> Result<(), StoreError>;
}
