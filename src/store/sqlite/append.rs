//! The group commit: one transaction of plain statements. It holds the only write lock, so it sees every first copy.

use std::collections::HashSet;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};

use super::connect::Link;
use super::error::{committing, failed_to};
use super::readers::Readers;
use crate::event::{Cursor, Event, Headers, Payload, Timestamp};
use crate::store::{Appended, Appender, Counts, ErrorClass, GroupCommit, LogPosition, Outcome, StoreError};

/// The attempt of this group commit that was committed, if any.
const EARLIER: &str = "select batch, received_at from batches where flush_id = ?1";

/// What that attempt stored.
const STORED_BY: &str = "select position from events where batch = ?1";

const NEXT_BATCH: &str = "update log set last_batch = last_batch + 1 returning last_batch";

const RAISE_NUMBERS: &str = include_str!("sql/raise_numbers.sql");

const INSERT_GAP: &str = "insert into gaps (after_batch, before_batch) values (?1, ?2)";

const INSERT_BATCH: &str = "insert into batches (batch, flush_id, received_at, owner, lease_until, published_at)
    values (?1, ?2, ?3, ?4, ?5, ?6)";

const INSERT_EVENT: &str = "
    insert into events (topic, event_id, occurred_at, source, payload, headers, received_at, batch, position)
    values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9) on conflict (topic, event_id) do nothing";

const FIRST_COPY: &str = "select batch, position, received_at, payload from events where topic = ?1 and event_id = ?2";

const COUNT_EVENTS: &str = include_str!("sql/count_events.sql");

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

    /// Runs a group commit in a transaction and leaves it open. The wait for the lock of another process takes at most `limit`;
    /// after that only the disk can be slow, and waiting for the disk is never given up: there is no other disk to try.
    fn begin(
        &mut self,
        commit: &GroupCommit<'_>,
        limit: Duration,
    ) -> Result<(rusqlite::Transaction<'_>, Appended), StoreError> {
        self.link.file.check()?;
        let connection = &mut self.link.connection;
        let transaction = connection
            .busy_timeout(limit)
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

/// Begins the numbering of batches anew, above every number that may ever have been given out: the file may be an older copy of
/// itself, whose newest batches are lost.
pub(super) fn raise_numbers(connection: &mut Connection) -> Result<(), StoreError> {
    let mut raise = || {
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let newest: i64 = transaction.query_row("select last_batch from log", [], |row| row.get(0))?;
        let base: i64 = transaction.query_row(RAISE_NUMBERS, [now().micros()], |row| row.get(0))?;
        transaction.execute(INSERT_GAP, [newest, base])?;
        transaction.commit()
    };
    raise().map_err(failed_to("begin the numbering of batches anew"))
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
    let stored: HashSet<i64> = connection
        .prepare_cached(STORED_BY)?
        .query_map([batch], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    let mut outcomes = Vec::with_capacity(commit.batch.rows().len());
    for row in commit.batch.rows() {
        outcomes.push(if stored.contains(&i64::from(row.position)) {
            Outcome::Stored(position_of(batch, row.position, received_at))
        } else {
            missed(connection, commit.batch.event(*row))?
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
    let mut counters = Counters::default();
    let mut insert = connection.prepare_cached(INSERT_EVENT)?;
    for row in commit.batch.rows() {
        let event = commit.batch.event(*row);
        let inserted = insert.execute(params![
            event.topic.as_str(),
            event.event_id.as_str(),
            event.occurred_at.micros(),
            event.source.as_str(),
            event.payload.as_str(),
            event.headers.as_ref().map(Headers::as_str),
            micros,
            batch,
            row.position
        ])?;
        let outcome = if inserted == 1 {
            Outcome::Stored(position_of(batch, row.position, received_at))
        } else {
            missed(connection, event)?
        };
        counters.add(event, i64::from(row.copies), &outcome);
        outcomes.push(outcome);
    }
    let mut count = connection.prepare_cached(COUNT_EVENTS)?;
    for (topic, counts) in &counters.0 {
        let Counts {
            received,
            unique_processed,
            duplicate_dropped,
            conflicts,
            ..
        } = counts;
        count.execute(params![topic, received, unique_processed, duplicate_dropped, conflicts])?;
    }
    if !outcomes.iter().any(|outcome| matches!(outcome, Outcome::Stored(_))) {
        connection.prepare_cached(NOTHING_TO_PUBLISH)?.execute([batch])?;
    }
    Ok(Appended {
        batch,
        received_at,
        outcomes,
    })
}

/// The outcome of an event whose identity was stored before.
fn missed(connection: &Connection, event: &Event) -> rusqlite::Result<Outcome> {
    let mut statement = connection.prepare_cached(FIRST_COPY)?;
    let mut rows = statement.query(params![event.topic.as_str(), event.event_id.as_str()])?;
    let Some(row) = rows.next()? else {
        // Only a repeated group commit can get here: the first copy was pruned meanwhile.
        return Ok(Outcome::Duplicate(None));
    };
    let first = Some(LogPosition {
        cursor: Cursor::new(row.get(0)?, row.get(1)?),
        received_at: timestamp(row.get(2)?)?,
    });
    let payload = row.get_ref(3)?.as_str()?;
    let is_same =
        payload == event.payload.as_str() || Payload::from_stored(payload.to_owned()).is_same_value(&event.payload);
    Ok(if is_same {
        Outcome::Duplicate(first)
    } else {
        Outcome::Conflict(first)
    })
}

/// What a batch adds to the counters, by topic. The rows of a batch are sorted by topic.
#[derive(Default)]
struct Counters<'a>(Vec<(&'a str, Counts)>);

impl<'a> Counters<'a> {
    fn add(&mut self, event: &'a Event, copies: i64, outcome: &Outcome) {
        if self.0.last().is_none_or(|(topic, _)| *topic != event.topic.as_str()) {
            self.0.push((event.topic.as_str(), Counts::default()));
        }
        let Some((_, counts)) = self.0.last_mut() else { return };
        let stored = i64::from(matches!(outcome, Outcome::Stored(_)));
        counts.received += copies;
        counts.unique_processed += stored;
        counts.duplicate_dropped += copies - stored;
        if matches!(outcome, Outcome::Conflict(_)) {
            counts.conflicts += copies;
        }
    }
}

fn position_of(batch: i64, position: u32, received_at: Timestamp) -> LogPosition {
    let position =
        i32::try_from(position).expect("a batch has at most as many rows as a request limit allows, far below 2^31");
    LogPosition {
        cursor: Cursor::new(batch, position),
        received_at,
    }
}

/// A row that was received later than this from now was received when the clock was wrong: it says nothing about those behind it.
pub(super) const FUTURE_MICROS: i64 = 3_600_000_000;

/// The store's clock.
#[expect(
    clippy::disallowed_methods,
    reason = "this is the store's clock, which makes received_at"
)]
pub(super) fn now() -> Timestamp {
    let micros = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .ok()
        .and_then(|since| i64::try_from(since.as_micros()).ok());
    micros
        .and_then(Timestamp::from_micros)
        .expect("the system's clock is between the years 1970 and 9999")
}

/// A stored time.
pub(super) fn timestamp(micros: i64) -> rusqlite::Result<Timestamp> {
    Timestamp::from_micros(micros).ok_or(rusqlite::Error::IntegralValueOutOfRange(0, micros))
}

pub(super) fn in_micros(time: Duration) -> i64 {
    i64::try_from(time.as_micros()).unwrap_or(i64::MAX)
}
