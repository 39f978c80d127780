//! The flush: one statement on a writer's own connection.

use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use sqlx::postgres::types::PgInterval;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgRow};
use sqlx::{Connection, Executor, Row as _};

use super::connect::{Role, bounded, connect};
use super::error;
use crate::event::{Cursor, Timestamp};
use crate::store::{Appended, Appender, Batch, ErrorClass, GroupCommit, LogPosition, Outcome, Row, StoreError};

/// The flush; `migrations/postgres` says what the functions do.
const APPEND: &str = "select * from append_v2($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)";

/// The flush of a single row.
const APPEND_ROW: &str = "select * from append_v2_row($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)";

/// Whether the server takes no writes. Also sees to it that a commit is on disk when it returns: a database or role whose
/// default is otherwise is overruled, a stronger setting (a standby's answer) is kept.
const LOOK: &str = "
    select pg_is_in_recovery() or current_setting('transaction_read_only')::boolean as is_read_only,
           case when current_setting('synchronous_commit') = 'off' then set_config('synchronous_commit', 'on', false) end";

/// Raises the offset of batch numbers where the cluster's next transaction id would not give a number above the newest
/// batch: a dump restored into a new cluster. The row's lock lets one writer do it; the others then find it done.
const RAISE_OFFSET: &str = "
    with newest as (
        select greatest((select max(batch) from batches), (select max(batch) from events), high_water) as batch,
               pg_snapshot_xmax(pg_current_snapshot())::text::bigint as next
        from log
    )
    update log set xid_offset = newest.batch - newest.next + 1
    from newest
    where log.xid_offset + newest.next <= newest.batch";

/// The number of shards of a topic's counters. Writers of one process take lanes that follow each other from a random
/// start, so that they seldom share a shard; reading sums them.
const SHARDS: u32 = 16;

/// A writer's connection.
pub(super) struct PgAppender {
    pg: PgConnection,
    shard: i32,
}

impl PgAppender {
    /// Connects, refuses a server that takes no writes, and sees to it that batch numbers go on rising.
    pub(super) async fn open(options: &PgConnectOptions, writer_id: u32) -> Result<Self, StoreError> {
        let mut pg = connect(options, Role::Writer).await?;
        let limit = Duration::from_secs(3);
        let read_only: bool = bounded(
            limit,
            "looking at the server",
            sqlx::query_scalar(LOOK).fetch_one(&mut pg),
        )
        .await
        .map_err(StoreError::before_sending)?;
        if read_only {
            return Err(StoreError::new(
                ErrorClass::ReadOnly,
                "the server takes no writes (a standby, or read-only)",
            ));
        }
        let raised = bounded(
            limit,
            "checking batch numbers",
            sqlx::query(RAISE_OFFSET).execute(&mut pg),
        )
        .await
        .map_err(StoreError::before_sending)?;
        if raised.rows_affected() > 0 {
            tracing::warn!(
                "transaction ids start below the newest batch (a restored dump?): batch numbers were raised"
            );
        }
        static START: std::sync::OnceLock<u32> = std::sync::OnceLock::new();
        let shard = (START.get_or_init(rand::random).wrapping_add(writer_id)) % SHARDS;
        Ok(Self {
            pg,
            shard: i32::try_from(shard).expect("a shard is below 16"),
        })
    }

    async fn call(&mut self, flush: &GroupCommit<'_>) -> Result<PgRow, sqlx::Error> {
        match flush.batch.rows() {
            [row] => self.call_row(flush, *row).await,
            _ => self.call_rows(flush).await,
        }
    }

    async fn call_row(&mut self, flush: &GroupCommit<'_>, row: Row) -> Result<PgRow, sqlx::Error> {
        let event = flush.batch.event(row);
        sqlx::query(APPEND_ROW)
            .bind(flush.id)
            .bind(self.shard)
            .bind(flush.lease.map(|lease| lease.owner))
            .bind(flush.lease.map(|lease| interval(lease.length)))
            .bind(event.topic.as_str())
            .bind(event.event_id.as_str())
            .bind(DateTime::from(event.occurred_at))
            .bind(event.source.as_str())
            .bind(event.payload.as_str())
            .bind(signed(row.copies))
            .fetch_one(&mut self.pg)
            .await
    }

    async fn call_rows(&mut self, flush: &GroupCommit<'_>) -> Result<PgRow, sqlx::Error> {
        let rows = Rows::of(flush.batch);
        sqlx::query(APPEND)
            .bind(flush.id)
            .bind(self.shard)
            .bind(flush.lease.map(|lease| lease.owner))
            .bind(flush.lease.map(|lease| interval(lease.length)))
            .bind(&rows.topics)
            .bind(&rows.event_ids)
            .bind(&rows.occurred)
            .bind(&rows.sources)
            .bind(&rows.payloads)
            .bind(&rows.positions)
            .bind(&rows.copies)
            .bind(&rows.count_topics)
            .bind(&rows.count_received)
            .bind(&rows.count_rows)
            .fetch_one(&mut self.pg)
            .await
    }
}

#[async_trait]
impl Appender for PgAppender {
    async fn append(&mut self, flush: &GroupCommit<'_>, timeout: Duration) -> Result<Appended, StoreError> {
        let answer = bounded(timeout, "flushing", self.call(flush)).await?;
        let appended = match flush.batch.rows() {
            [_] => appended_row(&answer),
            _ => appended_rows(flush.batch, &answer),
        };
        appended.map_err(error::decoding)
    }

    async fn ping(&mut self, timeout: Duration) -> Result<(), StoreError> {
        bounded(timeout, "looking after an idle connection", self.pg.ping()).await
    }

    async fn dry_run(&mut self, flush: &GroupCommit<'_>, timeout: Duration) -> Result<(), StoreError> {
        let rehearsal = async {
            self.pg.execute("begin").await?;
            let result = self.call(flush).await;
            self.pg.execute("rollback").await?;
            result
        };
        bounded(timeout, "rehearsing a flush", rehearsal).await.map(drop)
    }
}

/// A batch as the arrays that the function takes: borrowed text, nothing copied before the wire.
#[derive(Default)]
struct Rows<'a> {
    topics: Vec<&'a str>,
    event_ids: Vec<&'a str>,
    occurred: Vec<DateTime<Utc>>,
    sources: Vec<&'a str>,
    payloads: Vec<&'a str>,
    positions: Vec<i32>,
    copies: Vec<i32>,
    count_topics: Vec<&'a str>,
    count_received: Vec<i64>,
    count_rows: Vec<i64>,
}

impl<'a> Rows<'a> {
    fn of(batch: &'a Batch) -> Self {
        let mut rows = Rows::default();
        for &row in batch.rows() {
            let event = batch.event(row);
            rows.topics.push(event.topic.as_str());
            rows.event_ids.push(event.event_id.as_str());
            rows.occurred.push(event.occurred_at.into());
            rows.sources.push(event.source.as_str());
            rows.payloads.push(event.payload.as_str());
            rows.positions.push(signed(row.position));
            rows.copies.push(signed(row.copies));
            if rows.count_topics.last() != Some(&event.topic.as_str()) {
                rows.count_topics.push(event.topic.as_str());
                rows.count_received.push(0);
                rows.count_rows.push(0);
            }
            if let (Some(received), Some(count)) = (rows.count_received.last_mut(), rows.count_rows.last_mut()) {
                *received += i64::from(row.copies);
                *count += 1;
            }
        }
        rows
    }
}

/// Reads the answer for a single row.
fn appended_row(answer: &PgRow) -> Result<Appended, sqlx::Error> {
    let (batch, received_at) = written(answer)?;
    let outcome = if answer.try_get("is_stored")? {
        Outcome::Stored(LogPosition {
            cursor: Cursor::new(batch, 0),
            received_at,
        })
    } else {
        let first = first_copy(
            answer.try_get("first_batch")?,
            answer.try_get("first_position")?,
            answer.try_get("first_received")?,
        );
        missed(first, answer.try_get("is_conflict")?)
    };
    Ok(Appended {
        batch,
        received_at,
        outcomes: vec![outcome],
    })
}

/// Reads the answer for many rows: what is not among the missed was stored.
fn appended_rows(batch: &Batch, answer: &PgRow) -> Result<Appended, sqlx::Error> {
    let (number, received_at) = written(answer)?;
    let missed_positions: Option<Vec<i32>> = answer.try_get("missed")?;
    let mut missed_at = vec![None; batch.len()];
    if let Some(missed_positions) = missed_positions {
        let batches: Vec<Option<i64>> = answer.try_get("first_batches")?;
        let positions: Vec<Option<i32>> = answer.try_get("first_positions")?;
        let received: Vec<Option<DateTime<Utc>>> = answer.try_get("first_received")?;
        let conflicts: Vec<bool> = answer.try_get("conflicts")?;
        for (index, position) in missed_positions.into_iter().enumerate() {
            let first = first_copy(batches[index], positions[index], received[index]);
            missed_at[usize::try_from(position).unwrap_or(usize::MAX)] = Some(missed(first, conflicts[index]));
        }
    }
    let outcome = |position: u32| {
        let stored = || {
            Outcome::Stored(LogPosition {
                cursor: Cursor::new(number, signed(position)),
                received_at,
            })
        };
        missed_at[position as usize].unwrap_or_else(stored)
    };
    let outcomes = batch.rows().iter().map(|row| outcome(row.position)).collect();
    Ok(Appended {
        batch: number,
        received_at,
        outcomes,
    })
}

/// The batch that was written, and when.
fn written(answer: &PgRow) -> Result<(i64, Timestamp), sqlx::Error> {
    Ok((answer.try_get("batch")?, timestamp(answer.try_get("received_at")?)))
}

/// Where the first copy lies, unless it was pruned a moment ago.
fn first_copy(batch: Option<i64>, position: Option<i32>, received: Option<DateTime<Utc>>) -> Option<LogPosition> {
    Some(LogPosition {
        cursor: Cursor::new(batch?, position?),
        received_at: timestamp(received?),
    })
}

/// What becomes of a row that was not stored.
fn missed(first: Option<LogPosition>, is_conflict: bool) -> Outcome {
    if is_conflict {
        Outcome::Conflict(first)
    } else {
        Outcome::Duplicate(first)
    }
}

/// The store's clock lies within the years that a [`Timestamp`] knows.
pub(super) fn timestamp(time: DateTime<Utc>) -> Timestamp {
    Timestamp::from_micros(time.timestamp_micros()).expect("PostgreSQL's clock shows a year before 10000")
}

fn signed(number: u32) -> i32 {
    i32::try_from(number).expect("a batch has fewer than 2^31 events")
}

pub(super) fn interval(length: Duration) -> PgInterval {
    PgInterval {
        months: 0,
        days: 0,
        microseconds: i64::try_from(length.as_micros()).unwrap_or(i64::MAX),
    }
}
