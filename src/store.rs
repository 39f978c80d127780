//! The contract of a store, and what every store must promise.
//!
//! A store keeps each event once, counts every event it is sent, and reads them back in log order. It **promises**:
//!
//! - [`Appender::append`] stores the rows of a [`Batch`], writes its ledger row and changes the counters in one
//!   transaction: all of it or nothing, durable when it answers. Its answer names each row's [`Outcome`].
//! - A flush that is sent again with the same [`Flush::id`] is answered as the first attempt was, and writes nothing,
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
#[cfg(test)]
mod conformance;
pub mod postgres;
pub mod sqlite;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde::Serialize;
use uuid::Uuid;

use crate::config::DatabaseUrl;
use crate::event::{Cursor, Event, EventId, Source, StoredEvent, Timestamp, Topic};

/// What one flush commits: the distinct rows of some events, sorted by `(topic, event_id, position)`.
///
/// Sorted, two flushes that meet the same identities lock them in the same order and cannot deadlock. Made by
/// [`Batch::new`] alone, so that nobody can hope that somebody sorted it.
#[derive(Debug)]
pub struct Batch {
    events: Vec<Event>,
    rows: Vec<Row>,
}

/// One row of a [`Batch`]: an event, and how many byte-for-byte copies of its payload it stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// The index in [`Batch::events`] of the first copy: the row's position in the log's batch.
    pub position: u32,
    /// How many events of the batch it stands for: itself and its copies.
    pub copies: u32,
}

impl Batch {
    /// Sorts `events` (in the order of their arrival) into rows. Also answers, for each event, with the index of its row.
    ///
    /// Copies whose payload is byte for byte that of the identity's first event in the batch become one row with it.
    #[must_use]
    pub fn new(events: Vec<Event>) -> (Batch, Vec<u32>) {
        let mut order: Vec<u32> = (0u32..).take(events.len()).collect();
        let at = |index: u32| &events[index as usize];
        order.sort_unstable_by(|&a, &b| (&at(a).topic, &at(a).event_id, a).cmp(&(&at(b).topic, &at(b).event_id, b)));
        let mut rows: Vec<Row> = Vec::with_capacity(order.len());
        let mut row_of = vec![0; events.len()];
        let mut first = 0; // the row of the current identity's first event
        for index in order {
            let event = at(index);
            let known = rows
                .get(first)
                .map(|row| at(row.position))
                .filter(|known| (&known.topic, &known.event_id) == (&event.topic, &event.event_id));
            if known.is_some_and(|known| known.payload == event.payload) {
                rows[first].copies += 1;
                row_of[index as usize] = row_number(first);
            } else {
                if known.is_none() {
                    first = rows.len();
                }
                row_of[index as usize] = row_number(rows.len());
                rows.push(Row {
                    position: index,
                    copies: 1,
                });
            }
        }
        (Batch { events, rows }, row_of)
    }

    /// The rows, sorted by `(topic, event_id, position)`.
    #[must_use]
    pub fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// The event that a row stores.
    #[must_use]
    pub fn event(&self, row: Row) -> &Event {
        &self.events[row.position as usize]
    }

    /// The number of events, copies included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.events.len()
    }

    /// Whether there is nothing to store.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    /// The events again, in the order of their arrival.
    #[must_use]
    pub fn into_events(self) -> Vec<Event> {
        self.events
    }
}

fn row_number(index: usize) -> u32 {
    u32::try_from(index).expect("a batch has at most as many rows as a request limit allows, far below 2^32")
}

/// One attempt to commit a batch. A retry carries the same `id` and the same batch.
#[derive(Debug)]
pub struct Flush<'a> {
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
pub struct Place {
    /// Its place.
    pub cursor: Cursor,
    /// When the store took it.
    pub received_at: Timestamp,
}

/// What became of one row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It is the first copy of its identity.
    Stored(Place),
    /// Its identity was there. The place is the first copy's; `None` when that was pruned a moment ago.
    Duplicate(Option<Place>),
    /// Its identity was there with a payload that is another JSON value.
    Conflict(Option<Place>),
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
    /// Only batches below this number: [`Settled::horizon`] of the time when a long list began.
    pub below: Option<i64>,
}

/// What a walk asks for.
#[derive(Debug, Clone)]
pub struct Walk {
    /// Which events.
    pub filter: Filter,
    /// Only what comes after this place.
    pub after: Cursor,
    /// How many at most; at least 1.
    pub limit: u32,
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
pub struct Settled {
    /// The settled edge: the last place that a walk may show.
    pub edge: Cursor,
    /// Every batch that was committed when this was asked is below this number.
    pub horizon: i64,
    /// The age in seconds of the oldest committed batch that is not settled; 0 when there is none.
    pub unsettled_seconds: f64,
}

/// Exact counts of the store, or of one topic.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
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
    /// How far the log is settled.
    pub settled: Settled,
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
pub trait Store: Send + Sync + 'static {
    /// The name that `/stats` shows: `postgres` or `sqlite`.
    fn name(&self) -> &'static str;

    /// How many writers are of use: a store that commits one flush at a time needs no more than one.
    fn writers_max(&self) -> u32;

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

    /// Opens a connection of its own for one writer. `lane` tells the writers of a process apart (from 0).
    ///
    /// # Errors
    /// As [`StoreError::class`] says.
    async fn appender(&self, lane: u32) -> Result<Box<dyn Appender>, StoreError>;

    /// Lists what is committed.
    ///
    /// # Errors
    /// [`ErrorClass::Contention`] when it takes longer than the query time limit, else as [`StoreError::class`] says.
    async fn list(&self, list: &List) -> Result<Page, StoreError>;

    /// Walks over what is settled. A page may be short, even empty, before the end when a filter matches rarely.
    ///
    /// # Errors
    /// As [`StoreError::class`] says.
    async fn walk(&self, walk: &Walk) -> Result<Page, StoreError>;

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
    async fn settled(&self) -> Result<Settled, StoreError>;

    /// Whether the store can be reached *and written to*, and how far the log is settled. It has a connection of its own.
    ///
    /// # Errors
    /// [`ErrorClass::ReadOnly`] when it takes no writes, else as [`StoreError::class`] says.
    async fn probe(&self) -> Result<Settled, StoreError>;

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
    async fn append(&mut self, flush: &Flush<'_>, timeout: Duration) -> Result<Appended, StoreError>;

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
    async fn rehearse(&mut self, flush: &Flush<'_>, timeout: Duration) -> Result<(), StoreError>;
}

/// What kind of failure it was: the only judge of what may be done next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorClass {
    /// A row cannot be kept: never retry the whole, find the culprit.
    Data,
    /// A race for a key was lost: send the flush again.
    LostRace,
    /// Locks, deadlocks, a cancelled statement: nothing was written; retry with jitter.
    Contention,
    /// The store is full or short of something: nothing was written; back off, not ready.
    Resources,
    /// It takes no writes: close every connection, not ready.
    ReadOnly,
    /// It may have committed or not: reconnect and send the same flush again.
    Ambiguous,
    /// It never reached the store: back off and retry.
    NotSent,
    /// A prepared statement is no longer good: close the connection, send again.
    StalePlan,
    /// Wrong password, missing database or privilege, a schema that is not ours: retrying is no use at start.
    Configuration,
    /// Anything else: treated as ambiguous, a bounded number of times.
    Unexpected,
}

impl ErrorClass {
    /// Whether the flush may have been committed all the same.
    #[must_use]
    pub fn is_ambiguous(self) -> bool {
        matches!(self, ErrorClass::Ambiguous | ErrorClass::Unexpected)
    }

    /// Whether the connection that met it must be closed: its state is unknown, or it is of no more use. A new one is cheap
    /// beside a flush, so only the classes that leave a session surely intact keep theirs.
    #[must_use]
    pub fn breaks_connection(self) -> bool {
        !matches!(self, ErrorClass::Data | ErrorClass::LostRace | ErrorClass::Contention)
    }

    /// The name that logs and metrics bear.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            ErrorClass::Data => "data",
            ErrorClass::LostRace => "lost_race",
            ErrorClass::Contention => "contention",
            ErrorClass::Resources => "resources",
            ErrorClass::ReadOnly => "read_only",
            ErrorClass::Ambiguous => "ambiguous",
            ErrorClass::NotSent => "not_sent",
            ErrorClass::StalePlan => "stale_plan",
            ErrorClass::Configuration => "configuration",
            ErrorClass::Unexpected => "unexpected",
        }
    }
}

/// A failure of the store. Its text is for logs, never for answers: it may name a host or hold SQL.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{context}")]
pub struct StoreError {
    /// What may be done next.
    pub class: ErrorClass,
    context: String,
    #[source]
    source: Option<Arc<dyn std::error::Error + Send + Sync>>,
}

impl StoreError {
    /// An error of this class, with what was being done or is wrong.
    pub fn new(class: ErrorClass, context: impl Into<String>) -> Self {
        Self {
            class,
            context: context.into(),
            source: None,
        }
    }

    /// The same, caused by `source`.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.source = Some(source.into().into());
        self
    }

    /// The same, met before a flush was sent: whatever it was, nothing of the flush can have been stored.
    #[must_use]
    pub fn before_sending(mut self) -> Self {
        if self.class.is_ambiguous() {
            self.class = ErrorClass::NotSent;
        }
        self
    }

    /// What was being done and what went wrong, in one line for the log.
    #[must_use]
    pub fn line(&self) -> String {
        match &self.source {
            Some(source) => format!("{}: {source}", self.context),
            None => self.context.clone(),
        }
    }
}

/// Opens the store that `url` names. Nothing is connected yet: connections are made by the calls that need them.
///
/// # Errors
/// [`ErrorClass::Configuration`] when the URL is not understood.
pub fn open(url: &DatabaseUrl) -> Result<Arc<dyn Store>, StoreError> {
    Ok(match url.sqlite_path() {
        Some(path) => Arc::new(sqlite::Sqlite::open(path)?),
        None => Arc::new(postgres::Postgres::open(url)?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Payload;

    /// Three letters an event: topic, id and payload.
    fn batch(letters: &str) -> (Batch, Vec<u32>) {
        let event = |letters: &str| Event {
            topic: Topic::parse(letters[0..1].to_owned()).unwrap(),
            event_id: EventId::parse(letters[1..2].to_owned()).unwrap(),
            occurred_at: Timestamp::from_micros(0).unwrap(),
            source: Source::parse("s").unwrap(),
            payload: Payload::parse(format!(r#"{{"v":"{}"}}"#, &letters[2..3])).unwrap(),
        };
        Batch::new(letters.split_whitespace().map(event).collect())
    }

    /// The rows as pairs of position and copies.
    fn rows(letters: &str) -> Vec<(u32, u32)> {
        batch(letters)
            .0
            .rows()
            .iter()
            .map(|row| (row.position, row.copies))
            .collect()
    }

    #[test]
    fn rows_are_sorted_by_topic_then_id_byte_by_byte() {
        assert_eq!(
            rows("tbA taA uaA taB sbA TaA tAA"),
            [(5, 1), (4, 1), (6, 1), (1, 1), (3, 1), (0, 1), (2, 1)]
        );
        let (batch, row_of) = batch("tbA taA");
        let ids: Vec<&str> = batch
            .rows()
            .iter()
            .map(|row| batch.event(*row).event_id.as_str())
            .collect();
        assert_eq!((ids, row_of), (vec!["a", "b"], vec![1, 0]));
    }

    #[test]
    fn a_batch_of_nothing_has_no_rows() {
        let (batch, row_of) = batch("");
        assert!(batch.is_empty() && batch.rows().is_empty() && row_of.is_empty());
    }

    #[test]
    fn copies_of_the_first_payload_fold_into_its_row() {
        assert_eq!(rows("taA taA taA"), [(0, 3)]);
        assert_eq!(rows("taA tbA taA tbA taA"), [(0, 3), (1, 2)]);
        assert_eq!(batch("taA tbA taA tbA taA").1, [0, 1, 0, 1, 0]);
    }

    #[test]
    fn another_payload_is_a_row_of_its_own_and_does_not_end_the_folding() {
        assert_eq!(rows("taA taB taA"), [(0, 2), (1, 1)]);
        assert_eq!(batch("taA taB taA").1, [0, 1, 0]);
        assert_eq!(rows("taA taB taB taA taC taA"), [(0, 3), (1, 1), (2, 1), (4, 1)]);
        assert_eq!(batch("taA taB taB taA taC taA").1, [0, 1, 2, 0, 3, 0]);
    }

    #[test]
    fn equal_payloads_of_other_identities_stay_apart() {
        assert_eq!(rows("taA tbA uaA"), [(0, 1), (1, 1), (2, 1)]);
        assert_eq!(rows("tbB taA tbA taB tbB"), [(1, 1), (3, 1), (0, 2), (2, 1)]);
    }

    #[test]
    fn the_events_come_back_in_the_order_of_arrival() {
        let (batch, _) = batch("tbA taA uaA taA");
        assert_eq!(batch.len(), 4);
        let ids: Vec<String> = batch
            .into_events()
            .iter()
            .map(|event| format!("{}{}", event.topic, event.event_id))
            .collect();
        assert_eq!(ids, ["tb", "ta", "ua", "ta"]);
    }

    #[test]
    fn every_event_has_the_row_of_its_identity_and_every_copy_is_counted() {
        let letters: Vec<String> = (0..200u32)
            .map(|n| format!("{}{}{}", n % 3, n * 7 % 5, n * n % 4))
            .collect();
        let (batch, row_of) = batch(&letters.join(" "));
        assert_eq!(batch.rows().iter().map(|row| row.copies).sum::<u32>(), 200);
        assert_eq!(row_of.len(), 200);
        for (index, row) in row_of.iter().enumerate() {
            let (event, first) = (
                batch.event(Row {
                    position: u32::try_from(index).unwrap(),
                    copies: 1,
                }),
                batch.event(batch.rows()[*row as usize]),
            );
            assert_eq!(
                (&event.topic, &event.event_id, &event.payload),
                (&first.topic, &first.event_id, &first.payload)
            );
        }
        assert!(batch.rows().is_sorted_by_key(|row| (
            &batch.event(*row).topic,
            &batch.event(*row).event_id,
            row.position
        )));
    }

    #[test]
    fn an_error_says_in_one_line_what_was_done_and_why_it_failed() {
        let error = StoreError::new(ErrorClass::Contention, "flushing");
        assert_eq!(error.line(), "flushing");
        assert_eq!(
            error.with_source("deadlock detected").line(),
            "flushing: deadlock detected"
        );
    }
}
