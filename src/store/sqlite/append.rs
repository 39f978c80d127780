//! The group commit: one transaction of plain statements. It holds the only write lock, so it sees every first copy.

use std::time::Duration;

use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};

use super::clock::{in_micros, now, timestamp};
use super::connect::Link;
use super::counters::Counters;
use super::error::{committing, failed_to};
use super::readers::Readers;
use crate::event::{Cursor, Event, Headers, Timestamp};
use crate::store::{
    Appended, Appender, CONFLICT_PAYLOAD_BYTES_MAX, CONFLICTS_PER_MINUTE, ErrorClass, GroupCommit, LogPosition,
    Outcome, Row, StoreError,
};

/// The attempt of this group commit that was committed, if any.
const EARLIER: &str = "select batch, received_at from batches where flush_id = ?1";

const NEXT_BATCH: &str = "update log set last_batch = last_batch + 1 returning last_batch";

const INSERT_BATCH: &str = "insert into batches (batch, flush_id, received_at, owner, lease_until, published_at)
    values (?1, ?2, ?3, ?4, ?5, ?6)";

const INSERT_IDENTITY: &str = "
    insert into identities (key, batch, position, received_at, digest) values (?1, ?2, ?3, ?4, ?5) on conflict (key) do nothing";

const INSERT_EVENT: &str = "
    insert into events (batch, position, topic, event_id, occurred_at, source, payload, headers, received_at)
    values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)";

const FIRST_COPY: &str = "select batch, position, received_at, digest from identities where key = ?1";

const INSERT_CONFLICT: &str = include_str!("sql/insert_conflict.sql");

/// Notes how large the rows of a batch are.
const ADD_BYTES: &str = "update partitions set bytes = bytes + ?1 where ended_at is null";

/// A batch that stored nothing has nothing to publish.
const NOTHING_TO_PUBLISH: &str =
    "update batches set published_at = received_at where batch = ?1 and published_at is null";

/// The size of the write-ahead log at which the writer holds reads back for a moment, so that the log can begin anew.
const WAL_BYTES_MAX: u64 = 64 << 20;
/// How long the writer waits for running reads. If one takes longer (a recount of another process), the writer tries again when
/// the log has grown by the same size once more.
const CHECKPOINT_TIMEOUT: Duration = Duration::from_secs(2);

/// The connection of the writer.
pub(super) struct SqliteAppender {
    link: Link,
    readers: Readers,
    /// The size of the write-ahead log at which it is emptied next.
    wal_bytes_max: u64,
}

impl SqliteAppender {
    pub(super) fn new(link: Link, readers: Readers) -> Self {
        Self {
            link,
            readers,
            wal_bytes_max: WAL_BYTES_MAX,
        }
    }

    /// Runs a group commit in a transaction and leaves it open. The wait for the lock of another process takes at most `limit`, and its own;
    /// after that only the disk can be slow, and waiting for the disk is never given up: there is no other disk to try.
    fn begin(
        &mut self,
        commit: &GroupCommit<'_>,
        limit: Duration,
    ) -> Result<(rusqlite::Transaction<'_>, Appended), StoreError> {
        self.link.file.check()?;
        let connection = &mut self.link.connection;
        let transaction = connection
            .busy_timeout(limit.min(commit.lock_limit))
            .and_then(|()| connection.transaction_with_behavior(TransactionBehavior::Immediate))
            .map_err(failed_to("begin a group commit"))?;
        let appended = write(&transaction, commit).map_err(failed_to("commit a batch"))?;
        Ok((transaction, appended))
    }

    fn commit(&mut self, commit: &GroupCommit<'_>, limit: Duration) -> Result<Appended, StoreError> {
        let (transaction, appended) = self.begin(commit, limit).map_err(StoreError::before_sending)?;
        transaction.commit().map_err(committing)?;
        // The file may have been removed or replaced while this waited for the lock.
        self.link
            .file
            .check()
            .map_err(|error| error.as_class(ErrorClass::Ambiguous))?;
        Ok(appended)
    }

    /// Empties the write-ahead log when it is large. SQLite does so by itself at a commit while no reader is active; with many
    /// readers there may never be such a commit.
    ///
    /// Everything else about checkpoints is left to SQLite: the commit that finds 1000 pages in the log copies them into the
    /// file. Checkpoints on a separate connection beside the writer were tried: requests with 1000 events took 130 ms instead of
    /// 185 (p50), but publishing fell behind, so that up to the last published event the throughput was 0.91 to 1.27 times as
    /// high (ten pairs of runs, median 1.02), with 90 MB of memory instead of 75. A checkpoint is also the moment at which other
    /// connections get the lock that the writer otherwise takes again at once: the relay, and a `prune` of another process. With
    /// turns for the relay the throughput was 1.03 to 1.10 times as high (four pairs), with 160 MB.
    fn keep_wal_small(&mut self) {
        let bytes = self.link.file.wal_bytes();
        if bytes < self.wal_bytes_max {
            return;
        }
        let held_back = tokio::runtime::Handle::current().block_on(self.readers.hold_back(CHECKPOINT_TIMEOUT));
        let connection = &self.link.connection;
        let checkpointed = connection
            .busy_timeout(CHECKPOINT_TIMEOUT)
            .and_then(|()| connection.query_row("pragma wal_checkpoint(truncate)", [], |row| row.get::<_, bool>(0)));
        drop(held_back);
        let is_empty = matches!(checkpointed, Ok(false));
        if !is_empty {
            tracing::warn!(
                bytes,
                "cannot truncate the write-ahead log because of a long read, retrying later"
            );
        }
        self.wal_bytes_max = WAL_BYTES_MAX + if is_empty { 0 } else { bytes };
    }
}

/// Every call blocks the thread of the caller, which hands its other tasks to other threads: this way the batch need not be
/// copied to another thread.
#[async_trait]
impl Appender for SqliteAppender {
    async fn append(&mut self, commit: &GroupCommit<'_>, timeout: Duration) -> Result<Appended, StoreError> {
        tokio::task::block_in_place(|| {
            let appended = self.commit(commit, timeout)?;
            self.keep_wal_small();
            Ok(appended)
        })
    }

    async fn ping(&mut self, _timeout: Duration) -> Result<(), StoreError> {
        self.link.file.check()
    }

    async fn dry_run(&mut self, commit: &GroupCommit<'_>, timeout: Duration) -> Result<(), StoreError> {
        tokio::task::block_in_place(|| {
            self.begin(commit, timeout)
                .and_then(|(transaction, _)| transaction.rollback().map_err(failed_to("roll back a dry run")))
                .map_err(StoreError::before_sending)
        })
    }
}

/// Stores the batch, or finds the answer of an earlier attempt.
fn write(connection: &Connection, commit: &GroupCommit<'_>) -> rusqlite::Result<Appended> {
    let earlier: Option<(i64, i64)> = connection
        .prepare_cached(EARLIER)?
        .query_row([commit.id.as_bytes()], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    match earlier {
        Some((batch, received_at)) => earlier_answer(connection, commit, batch, timestamp(received_at)?),
        None => store(connection, commit),
    }
}

/// The answer of the earlier attempt that was committed. Nothing is written.
fn earlier_answer(
    connection: &Connection,
    commit: &GroupCommit<'_>,
    batch: i64,
    received_at: Timestamp,
) -> rusqlite::Result<Appended> {
    let mut outcomes = Vec::with_capacity(commit.batch.rows().len());
    for row in commit.batch.rows() {
        // What the attempt stored has its identity, also if it has expired meanwhile.
        let stored = position_of(batch, row.position, received_at);
        outcomes.push(match first_copy(connection, *row)? {
            Outcome::Duplicate(first) | Outcome::Conflict(first) if first.cursor == stored.cursor => {
                Outcome::Stored(stored)
            }
            outcome => outcome,
        });
    }
    Ok(Appended {
        batch,
        received_at,
        outcomes,
    })
}

fn store(connection: &Connection, commit: &GroupCommit<'_>) -> rusqlite::Result<Appended> {
    let received_at = now();
    let micros = received_at.micros();
    let batch: i64 = connection.prepare_cached(NEXT_BATCH)?.query_row([], |row| row.get(0))?;
    let owner = commit.lease.map(|lease| *lease.owner.as_bytes());
    let lease_until = commit.lease.map(|lease| micros.saturating_add(in_micros(lease.length)));
    let published_at = if commit.lease.is_none() { Some(micros) } else { None };
    connection.prepare_cached(INSERT_BATCH)?.execute(params![
        batch,
        commit.id.as_bytes(),
        micros,
        owner,
        lease_until,
        published_at
    ])?;

    let mut outcomes = Vec::with_capacity(commit.batch.rows().len());
    let (mut counters, mut bytes) = (Counters::default(), 0);
    let mut insert_identity = connection.prepare_cached(INSERT_IDENTITY)?;
    let mut insert_event = connection.prepare_cached(INSERT_EVENT)?;
    for row in commit.batch.rows() {
        let event = commit.batch.event(*row);
        let place = position_of(batch, row.position, received_at);
        let is_new = insert_identity.execute(params![row.key.0, batch, row.position, micros, row.digest])? == 1;
        let outcome = if is_new {
            insert_event.execute(params![
                batch,
                row.position,
                event.topic.as_str(),
                event.event_id.as_str(),
                event.occurred_at.micros(),
                event.source.as_str(),
                event.payload.as_str(),
                event.headers.as_ref().map(Headers::as_str),
                micros
            ])?;
            bytes += row_bytes(event);
            Outcome::Stored(place)
        } else {
            first_copy(connection, *row)?
        };
        if let Outcome::Conflict(first) = outcome {
            keep_conflict(connection, event, place, first)?;
        }
        counters.add(event, i64::from(row.copies), &outcome);
        outcomes.push(outcome);
    }
    connection.prepare_cached(ADD_BYTES)?.execute([bytes])?;
    counters.write(connection, micros)?;
    if !outcomes.iter().any(|outcome| matches!(outcome, Outcome::Stored(_))) {
        connection.prepare_cached(NOTHING_TO_PUBLISH)?.execute([batch])?;
    }
    Ok(Appended {
        batch,
        received_at,
        outcomes,
    })
}

/// The outcome of a row whose identity was stored before.
fn first_copy(connection: &Connection, row: Row) -> rusqlite::Result<Outcome> {
    let (first, digest) = connection.prepare_cached(FIRST_COPY)?.query_row([row.key.0], |found| {
        let first = LogPosition {
            cursor: Cursor::new(found.get(0)?, found.get(1)?),
            received_at: timestamp(found.get(2)?)?,
        };
        Ok((first, found.get::<_, i64>(3)?))
    })?;
    Ok(if digest == row.digest {
        Outcome::Duplicate(first)
    } else {
        Outcome::Conflict(first)
    })
}

/// Keeps what was sent under an identity that has another value, unless too many were kept in the last minute.
fn keep_conflict(
    connection: &Connection,
    event: &Event,
    place: LogPosition,
    first: LogPosition,
) -> rusqlite::Result<()> {
    let payload = event.payload.as_str();
    let now = place.received_at.micros();
    connection.prepare_cached(INSERT_CONFLICT)?.execute(params![
        place.cursor.batch(),
        place.cursor.position(),
        event.topic.as_str(),
        event.event_id.as_str(),
        first.cursor.batch(),
        first.cursor.position(),
        event.occurred_at.micros(),
        now,
        event.source.as_str(),
        (payload.len() <= CONFLICT_PAYLOAD_BYTES_MAX).then_some(payload),
        CONFLICTS_PER_MINUTE,
        now.saturating_sub(60_000_000)
    ])?;
    Ok(())
}

/// The size of an event's row, by its texts: the topic is in the index as well, and the numbers take some 64 bytes. As in
/// `expiry_page.sql`.
fn row_bytes(event: &Event) -> i64 {
    let texts = event.payload.as_str().len()
        + event.headers.as_ref().map_or(0, |headers| headers.as_str().len())
        + 2 * event.topic.as_str().len()
        + event.event_id.as_str().len()
        + event.source.as_str().len();
    i64::try_from(texts + 64).unwrap_or(i64::MAX)
}

fn position_of(batch: i64, position: u32, received_at: Timestamp) -> LogPosition {
    let position =
        i32::try_from(position).expect("a batch has at most as many rows as a request limit allows, far below 2^31");
    LogPosition {
        cursor: Cursor::new(batch, position),
        received_at,
    }
}
