//! The flush: one transaction of plain statements. Nobody else writes meanwhile, so first copies are always seen.

use std::collections::HashSet;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};

use super::connect::{Link, Readers};
use super::error::{committing, during};
use crate::event::{Cursor, Event, Payload, Timestamp};
use crate::store::{Appended, Appender, Counts, ErrorClass, GroupCommit, LogPosition, Outcome, StoreError};

/// The attempt of this flush that committed, if one did.
const EARLIER: &str = "select batch, received_at from batches where flush_id = ?1";

/// What that attempt stored.
const STORED_BY: &str = "select position from events where batch = ?1";

const NEXT_BATCH: &str = "update log set last_batch = last_batch + 1 returning last_batch";

const INSERT_BATCH: &str = "
    insert into batches (batch, flush_id, received_at, owner, lease_until, published_at) values (?1, ?2, ?3, ?4, ?5, ?6)";

const INSERT_EVENT: &str = "
    insert into events (topic, event_id, occurred_at, source, payload, received_at, batch, position)
    values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) on conflict (topic, event_id) do nothing";

const FIRST_COPY: &str = "
    select batch, position, received_at, payload from events where topic = ?1 and event_id = ?2";

const COUNT: &str = "
    insert into topic_counts as c (topic, received, unique_processed, duplicate_dropped, conflicts) values (?1, ?2, ?3, ?4, ?5)
    on conflict (topic) do update set
        received          = c.received + excluded.received,
        unique_processed  = c.unique_processed + excluded.unique_processed,
        duplicate_dropped = c.duplicate_dropped + excluded.duplicate_dropped,
        conflicts         = c.conflicts + excluded.conflicts";

/// A batch that stored nothing has nothing to publish.
const NOTHING_TO_PUBLISH: &str =
    "update batches set published_at = received_at where batch = ?1 and published_at is null";

/// How large the write-ahead log may grow before the writer holds reads back for a moment, so that it can begin anew.
const WAL_BYTES_MAX: u64 = 64 << 20;
/// How long it waits for those that have begun. If one takes longer (a recount of another process), it is tried again when
/// the log has grown as much once more.
const CHECKPOINT_TIMEOUT: Duration = Duration::from_secs(2);

/// A writer's connection.
pub(super) struct SqliteAppender {
    link: Link,
    readers: Readers,
    /// The size of the write-ahead log at which it is looked after next.
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

    /// Runs the flush in a transaction that is not ended yet. The wait for another process's lock takes at most `limit`; after
    /// that only the disk can be slow, and a flush is not given up for that: nobody else could be asked instead.
    fn begin(
        &mut self,
        flush: &GroupCommit<'_>,
        limit: Duration,
    ) -> Result<(rusqlite::Transaction<'_>, Appended), StoreError> {
        self.link.file.check()?;
        let connection = &mut self.link.connection;
        let transaction = connection
            .busy_timeout(limit)
            .and_then(|()| connection.transaction_with_behavior(TransactionBehavior::Immediate))
            .map_err(during("beginning a flush"))?;
        let appended = write(&transaction, flush).map_err(during("flushing"))?;
        Ok((transaction, appended))
    }

    fn commit(&mut self, flush: &GroupCommit<'_>, limit: Duration) -> Result<Appended, StoreError> {
        let (transaction, appended) = self.begin(flush, limit).map_err(StoreError::before_sending)?;
        transaction.commit().map_err(committing)?;
        // The file may have lost its name while the lock was waited for.
        self.link
            .file
            .check()
            .map_err(|error| error.as_class(ErrorClass::Ambiguous))?;
        Ok(appended)
    }

    /// Lets the write-ahead log begin anew when it is large. SQLite does so by itself at any commit that no reader stands in
    /// the way of; with readers that take turns there may never be one.
    ///
    /// All else about checkpoints is SQLite's own: the commit that finds 1000 pages in the log copies them into the file. On a
    /// connection of their own, beside the writer, they were tried: requests with 1000 events took 130 ms instead of 185 (p50),
    /// but the fan-out fell behind, so that until the last event was published there were 0.91 to 1.27 times as many events/s
    /// (ten pairs of runs, median 1.02), with 90 MB of memory instead of 75. A checkpoint is also the moment at which others
    /// get the lock that the writer otherwise takes again at once: the relay, and a `prune` of another process. With turns for
    /// the relay it was 1.03 to 1.10 times (four pairs), with 160 MB.
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
            tracing::warn!(bytes, "a long read keeps the write-ahead log from being emptied");
        }
        self.wal_bytes_max = WAL_BYTES_MAX + if is_empty { 0 } else { bytes };
    }
}

/// Everything blocks on the thread of the caller, which hands its other tasks over: the batch need not be copied to another
/// thread.
#[async_trait]
impl Appender for SqliteAppender {
    async fn append(&mut self, flush: &GroupCommit<'_>, timeout: Duration) -> Result<Appended, StoreError> {
        tokio::task::block_in_place(|| {
            let appended = self.commit(flush, timeout)?;
            self.keep_wal_small();
            Ok(appended)
        })
    }

    async fn ping(&mut self, _timeout: Duration) -> Result<(), StoreError> {
        self.link.file.check()
    }

    async fn dry_run(&mut self, flush: &GroupCommit<'_>, timeout: Duration) -> Result<(), StoreError> {
        tokio::task::block_in_place(|| {
            self.begin(flush, timeout)
                .and_then(|(transaction, _)| transaction.rollback().map_err(during("undoing a rehearsal")))
                .map_err(StoreError::before_sending)
        })
    }
}

/// Does what the flush says, or finds out what an earlier attempt of it has done.
fn write(connection: &Connection, flush: &GroupCommit<'_>) -> rusqlite::Result<Appended> {
    let earlier: Option<(i64, i64)> = connection
        .prepare_cached(EARLIER)?
        .query_row([flush.id.as_bytes()], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    match earlier {
        Some((batch, received_at)) => answer_again(connection, flush, batch, timestamp(received_at)?),
        None => store(connection, flush),
    }
}

/// What an earlier attempt of the flush has answered. Nothing is written.
fn answer_again(
    connection: &Connection,
    flush: &GroupCommit<'_>,
    batch: i64,
    received_at: Timestamp,
) -> rusqlite::Result<Appended> {
    let stored: HashSet<i64> = connection
        .prepare_cached(STORED_BY)?
        .query_map([batch], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    let mut outcomes = Vec::with_capacity(flush.batch.rows().len());
    for row in flush.batch.rows() {
        outcomes.push(if stored.contains(&i64::from(row.position)) {
            Outcome::Stored(place(batch, row.position, received_at))
        } else {
            missed(connection, flush.batch.event(*row))?
        });
    }
    Ok(Appended {
        batch,
        received_at,
        outcomes,
    })
}

fn store(connection: &Connection, flush: &GroupCommit<'_>) -> rusqlite::Result<Appended> {
    let received_at = now();
    let micros = received_at.micros();
    let batch: i64 = connection.prepare_cached(NEXT_BATCH)?.query_row([], |row| row.get(0))?;
    let owner = flush.lease.map(|lease| *lease.owner.as_bytes());
    let lease_until = flush.lease.map(|lease| micros.saturating_add(in_micros(lease.length)));
    let published_at = if flush.lease.is_none() { Some(micros) } else { None };
    connection.prepare_cached(INSERT_BATCH)?.execute(params![
        batch,
        flush.id.as_bytes(),
        micros,
        owner,
        lease_until,
        published_at
    ])?;

    let mut outcomes = Vec::with_capacity(flush.batch.rows().len());
    let mut counters = Counters::default();
    let mut insert = connection.prepare_cached(INSERT_EVENT)?;
    for row in flush.batch.rows() {
        let event = flush.batch.event(*row);
        let inserted = insert.execute(params![
            event.topic.as_str(),
            event.event_id.as_str(),
            event.occurred_at.micros(),
            event.source.as_str(),
            event.payload.as_str(),
            micros,
            batch,
            row.position
        ])?;
        let outcome = if inserted == 1 {
            Outcome::Stored(place(batch, row.position, received_at))
        } else {
            missed(connection, event)?
        };
        counters.add(event, i64::from(row.copies), &outcome);
        outcomes.push(outcome);
    }
    let mut count = connection.prepare_cached(COUNT)?;
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

/// What became of an event whose identity was there: the first copy's place, and whether its payload is another value.
fn missed(connection: &Connection, event: &Event) -> rusqlite::Result<Outcome> {
    let mut statement = connection.prepare_cached(FIRST_COPY)?;
    let mut rows = statement.query(params![event.topic.as_str(), event.event_id.as_str()])?;
    let Some(row) = rows.next()? else {
        // Only a flush that is sent again can meet this: the first copy was pruned since.
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

/// What a flush adds to the counters, by topic: its rows are sorted by it.
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

fn place(batch: i64, position: u32, received_at: Timestamp) -> LogPosition {
    let position =
        i32::try_from(position).expect("a batch has at most as many rows as a request limit allows, far below 2^31");
    LogPosition {
        cursor: Cursor::new(batch, position),
        received_at,
    }
}

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
