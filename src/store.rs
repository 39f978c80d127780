//! The contract of a store, and what every store must promise.
//!
//! A store keeps each event once, counts every event it is sent, and reads them back in log order. It **promises**:
//!
//! - [`Appender::append`] stores the rows of a [`Batch`], writes its ledger row and changes the counters in one
//!   transaction: all of it or nothing, durable when it answers. Its answer names each row's [`Outcome`].
//! - A flush that is sent again with the same [`GroupCommit::id`] is answered as the first attempt was, and writes nothing,
//!   if that attempt committed.
//! - Of several rows with one identity, whoever sends them, exactly one is stored: within a flush the first.
//! - [`Store::list`] shows all that is committed. [`Store::walk`] shows every event exactly once in log order, and only
//!   what is settled.
//! - [`Store::stats`] is one snapshot and exact.
//! - [`Store::prune`] changes no counter but that of what was pruned, and never removes what is not published.
//!
//! It does **not** retry, wait for a better time, or know a request: that is `ingest`'s. It decides nothing about validity
//! beyond refusing what it cannot keep ([`ErrorClass::Data`]). `ingest` alone appends; `http` and the commands read.

pub mod backoff;
mod batch;
#[cfg(all(test, feature = "postgres"))]
mod conformance;
mod error;
mod outbox;
#[cfg(feature = "postgres")]
pub mod postgres;
pub mod sqlite;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde::Serialize;
use uuid::Uuid;

pub use self::batch::{Batch, Row};
pub use self::error::{ErrorClass, StoreError};
pub use self::outbox::{Backlog, CommitLedgerPruned, DeadLetter, EventsPage, Outbox, Refused};
use crate::config::DatabaseUrl;
use crate::event::{Cursor, EventId, Source, StoredEvent, Timestamp, Topic};

/// One attempt to commit a batch. A retry carries the same `id` and the same batch.
#[derive(Debug)]
pub struct GroupCommit<'a> {
    /// Names the flush in the ledger; every attempt of it bears the same.
    pub id: Uuid,
    /// What it stores.
    pub batch: &'a Batch,
    /// Who will publish it, and until when others leave it alone; `None`: nothing is owed to a fan-out.
    pub lease: Option<Lease>,
}

/// A claim on a batch of the outbox.
#[derive(Debug, Clone, Copy)]
pub struct Lease {
    /// The token of the process that publishes the batch.
    pub owner: Uuid,
    /// For how long, from the commit.
    pub length: Duration,
}

/// What an append did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Appended {
    /// The number of the batch in the log.
    pub batch: i64,
    /// When the store took it, by its clock.
    pub received_at: Timestamp,
    /// One for each row of the batch, in the rows' order.
    pub outcomes: Vec<Outcome>,
}

/// Where an event stands in the log, and since when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogPosition {
    /// Its place.
    pub cursor: Cursor,
    /// When the store took it.
    pub received_at: Timestamp,
}

/// What became of one row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It is the first copy of its identity.
    Stored(LogPosition),
    /// Its identity was there. The place is the first copy's; `None` when that was pruned a moment ago.
    Duplicate(Option<LogPosition>),
    /// Its identity was there with a payload that is another JSON value.
    Conflict(Option<LogPosition>),
}

/// Which events to read. Members that are `None` do not filter.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Of this topic.
    pub topic: Option<Topic>,
    /// From this source.
    pub source: Option<Source>,
    /// With this id.
    pub event_id: Option<EventId>,
    /// With a `timestamp` at this time or later.
    pub since: Option<Timestamp>,
    /// With a `timestamp` before this time.
    pub until: Option<Timestamp>,
}

/// The order of a list.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Order {
    /// Log order.
    #[default]
    Ascending,
    /// The newest first.
    Descending,
}

/// What a list asks for.
#[derive(Debug, Clone, Default)]
pub struct List {
    /// Which events.
    pub filter: Filter,
    /// In which order.
    pub order: Order,
    /// How many to pass over first.
    pub offset: u64,
    /// How many at most; at least 1.
    pub limit: u32,
    /// Only what comes behind this place, in the list's order: how a long list is read page by page.
    pub behind: Option<Cursor>,
    /// Only batches below this number: [`Stability::horizon`] of the time when a long list began.
    pub below: Option<i64>,
}

/// What a walk asks for.
#[derive(Debug, Clone)]
pub struct Scan {
    /// Which events.
    pub filter: Filter,
    /// Only what comes after this place.
    pub after: Cursor,
    /// How many at most; at least 1.
    pub limit: u32,
    /// The page ends before its events have more bytes of payload than this, but not before the first.
    pub bytes_max: usize,
}

/// Some events, and where to go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// The events, in the order asked for.
    pub events: Vec<StoredEvent>,
    /// Where a walk goes on: never beyond what is settled.
    pub next: Cursor,
    /// Whether the page reaches the end of what there was to read.
    pub is_last: bool,
}

/// How far the log is settled.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Stability {
    /// The settled edge: the last place that a walk may show.
    pub edge: Cursor,
    /// Every batch that was committed when this was asked is below this number.
    pub horizon: i64,
    /// The age in seconds of the oldest committed batch that is not settled; 0 when there is none.
    pub unsettled_seconds: f64,
}

/// Exact counts of the store, or of one topic.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct Counts {
    /// Events received.
    pub received: i64,
    /// Of these, stored.
    pub unique_processed: i64,
    /// Of these, dropped as duplicates: `received - unique_processed`.
    pub duplicate_dropped: i64,
    /// Of the duplicates, those with another payload.
    pub conflicts: i64,
    /// Of the stored, those that `prune` has removed.
    #[serde(skip)]
    pub pruned: i64,
}

/// The counters, the topics and the outbox, from one snapshot.
#[derive(Debug, Clone, PartialEq)]
pub struct StoreStats {
    /// Of all topics.
    pub counts: Counts,
    /// The number of topics.
    pub topic_count: i64,
    /// Unique events of the largest topics, at most [`TOPICS_MAX`], the largest first.
    pub topics: Vec<(String, i64)>,
    /// Batches that the fan-out does not have yet.
    pub outbox_batches: i64,
    /// The age of the oldest of them in seconds.
    pub outbox_oldest_seconds: f64,
    /// Events that the fan-out refuses, kept in the outbox until they are sent again.
    pub parked: i64,
    /// How far the log is settled.
    pub settled: Stability,
}

/// The most topics that [`StoreStats::topics`] names.
pub const TOPICS_MAX: i64 = 1000;

/// What a recount of the store found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verification {
    /// Rows in the store.
    pub rows: i64,
    /// The sum of the counters.
    pub counts: Counts,
    /// Batches that the fan-out does not have yet.
    pub outbox_batches: i64,
    /// One sentence for each thing that is off; empty when all is well.
    pub drifts: Vec<String>,
}

/// One step of removing old events.
#[derive(Debug, Clone)]
pub struct Prune {
    /// Events that were received before this time go.
    pub before: Timestamp,
    /// Where in the log the step begins: behind this place.
    pub after: Cursor,
    /// How many events it looks at; at least 1.
    pub limit: u32,
    /// Only count.
    pub dry_run: bool,
}

/// What one step of pruning did, or with [`Prune::dry_run`] would have done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pruned {
    /// Events removed.
    pub removed: u64,
    /// Events that are old enough and were kept, for the fan-out does not have them yet.
    pub unpublished: u64,
    /// Where the next step begins; `None` when this one has reached events that are not old enough, or the end of the log.
    pub next: Option<Cursor>,
}

/// A store of events.
#[async_trait]
pub trait Store: Outbox {
    /// The name that `/stats` shows: `postgres` or `sqlite`.
    fn name(&self) -> &'static str;

    /// How many writers are of use: a store that commits one flush at a time needs no more than one.
    fn writers_max(&self) -> u32;

    /// With how many events a flush is full: it gathers no more requests. One request may have more.
    fn batch_events(&self) -> usize;

    /// Claims the store for one service, until it is closed or the process ends. One that several services may share
    /// (PostgreSQL) has nothing to claim. Commands that run beside a service need no claim.
    ///
    /// # Errors
    /// [`ErrorClass::Configuration`] when another process holds it.
    async fn claim(&self) -> Result<(), StoreError>;

    /// Applies the migrations that are missing; several replicas may do so at once. Answers with the version that this
    /// program has. A schema that a newer program has made stays as it is: migrations only add.
    ///
    /// # Errors
    /// As [`StoreError::class`] says; [`ErrorClass::Configuration`] when what is there is not ours.
    async fn migrate(&self) -> Result<i64, StoreError>;

    /// Refuses, as [`ErrorClass::Configuration`], a schema that is older than this program's.
    ///
    /// # Errors
    /// As [`StoreError::class`] says.
    async fn check_schema(&self) -> Result<(), StoreError>;

    /// Opens a connection of its own for one writer. `writer_id` tells the writers of a process apart (from 0).
    ///
    /// # Errors
    /// As [`StoreError::class`] says.
    async fn appender(&self, writer_id: u32) -> Result<Box<dyn Appender>, StoreError>;

    /// Lists what is committed.
    ///
    /// # Errors
    /// [`ErrorClass::Contention`] when it takes longer than the query time limit, else as [`StoreError::class`] says.
    async fn list(&self, list: &List) -> Result<Page, StoreError>;

    /// Walks over what is settled. A page may be short, even empty, before the end when a filter matches rarely.
    ///
    /// # Errors
    /// As [`StoreError::class`] says.
    async fn scan(&self, walk: &Scan) -> Result<Page, StoreError>;

    /// The counters and more, in one snapshot.
    ///
    /// # Errors
    /// As [`StoreError::class`] says.
    async fn stats(&self) -> Result<StoreStats, StoreError>;

    /// The counters of one topic; zeros for one never seen.
    ///
    /// # Errors
    /// As [`StoreError::class`] says.
    async fn topic_counts(&self, topic: &Topic) -> Result<Counts, StoreError>;

    /// How far the log is settled.
    ///
    /// # Errors
    /// As [`StoreError::class`] says.
    async fn stability(&self) -> Result<Stability, StoreError>;

    /// Whether the store can be reached *and written to*, and how far the log is settled. It has a connection of its own.
    ///
    /// # Errors
    /// [`ErrorClass::ReadOnly`] when it takes no writes, else as [`StoreError::class`] says.
    async fn probe(&self) -> Result<Stability, StoreError>;

    /// The store's clock, which makes `received_at`.
    ///
    /// # Errors
    /// As [`StoreError::class`] says.
    async fn clock(&self) -> Result<Timestamp, StoreError>;

    /// Takes one step of pruning, in one transaction: of the next events in log order those go that are old enough and
    /// published, and the counters say so. Cursors stay good, and numbers of batches never come again.
    ///
    /// The log is nearly in the order of `received_at`, so a step that meets no event that is old enough is the last.
    ///
    /// # Errors
    /// As [`StoreError::class`] says.
    async fn prune(&self, step: &Prune) -> Result<Pruned, StoreError>;

    /// Recounts rows against counters and outbox in one snapshot.
    ///
    /// # Errors
    /// As [`StoreError::class`] says; what is off is no error but in the answer.
    async fn verify(&self) -> Result<Verification, StoreError>;

    /// The version of the server, or of the library where there is none.
    ///
    /// # Errors
    /// As [`StoreError::class`] says.
    async fn version(&self) -> Result<String, StoreError>;

    /// Warnings about the server's settings that endanger what is promised, one sentence each.
    ///
    /// # Errors
    /// As [`StoreError::class`] says.
    async fn warnings(&self) -> Result<Vec<String>, StoreError>;

    /// Closes the connections that are idle and takes no more calls.
    async fn close(&self);
}

/// One writer's connection. After an error whose class [`ErrorClass::breaks_connection`] it must be dropped.
#[async_trait]
pub trait Appender: Send {
    /// Commits a flush. `timeout` bounds the attempt; when it passes, the outcome is ambiguous. (In an embedded store it bounds
    /// the wait for other processes: the disk is waited for.)
    ///
    /// # Errors
    /// As [`StoreError::class`] says.
    async fn append(&mut self, flush: &GroupCommit<'_>, timeout: Duration) -> Result<Appended, StoreError>;

    /// Whether the connection still works, asked within `timeout`: one that died while it was idle is then found out before
    /// a flush is sent on it, and not by a flush whose outcome nobody knows.
    ///
    /// # Errors
    /// As [`StoreError::class`] says.
    async fn ping(&mut self, timeout: Duration) -> Result<(), StoreError>;

    /// Tries what [`Appender::append`] would do, and undoes it: how the events are found that the store refuses.
    ///
    /// # Errors
    /// As `append` would.
    async fn dry_run(&mut self, flush: &GroupCommit<'_>, timeout: Duration) -> Result<(), StoreError>;
}

/// Opens the store that `url` names. Nothing is connected yet: connections are made by the calls that need them.
///
/// # Errors
/// [`ErrorClass::Configuration`] when the URL is not understood.
pub fn open(url: &DatabaseUrl) -> Result<Arc<dyn Store>, StoreError> {
    Ok(match url.sqlite_path() {
        Some(path) => Arc::new(sqlite::Sqlite::open(path)?),
        #[cfg(feature = "postgres")]
        None => Arc::new(postgres::Postgres::open(url)?),
        #[cfg(not(feature = "postgres"))]
        None => {
            return Err(StoreError::new(
                ErrorClass::Configuration,
                "this eventsieve was built without PostgreSQL: build it with the feature `postgres`, or use sqlite://PATH",
            ));
        }
    })
}
