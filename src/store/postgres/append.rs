//! The group commit: one statement on a writer's own connection.

use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use sqlx::Row as _;
use sqlx::postgres::PgRow;
use sqlx::postgres::types::PgInterval;
use uuid::Uuid;

use super::connect::{Address, IS_READ_ONLY, READ_COMMITTED, Role, Session, bounded, connect};
use super::error;
use super::schema::PREPARE_NUMBERS;
use crate::event::{Cursor, Headers, Timestamp};
use crate::store::{Appended, Appender, Batch, GroupCommit, LogPosition, Outcome, Row, StoreError};

/// The group commit; `migrations/postgres` says what the functions do.
const APPEND: &str =
    "select * from eventsieve.append($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17)";

/// The group commit of a single row.
const APPEND_ROW: &str = "select * from eventsieve.append_row($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)";

/// The number of lanes of a topic's counters. The writers of a process take consecutive lanes from a random start, so that two
/// writers seldom share a lane; reads add the lanes up.
const LANES: u32 = 16;

/// The connection of one writer.
pub(super) struct PgAppender {
    pg: Session,
    lane: i32,
}

impl PgAppender {
    /// Connects, and fails on a server that takes no writes. Each group commit makes sure that batch numbers keep rising; here it
    /// is done once at the start, so that it can be logged.
    pub(super) async fn open(address: &Address, writer_id: u32) -> Result<Self, StoreError> {
        let mut pg = connect(address, Role::Writer).await?;
        let limit = Duration::from_secs(3);
        let read_only: bool = bounded(
            limit,
            "prepare the session of a writer",
            pg.scalar(pg.query(IS_READ_ONLY)),
        )
        .await
        .map_err(StoreError::before_sending)?;
        if read_only {
            return Err(error::read_only());
        }
        let raised: bool = bounded(
            limit,
            "begin the numbering of batches anew",
            pg.scalar(pg.query(PREPARE_NUMBERS)),
        )
        .await
        .map_err(StoreError::before_sending)?;
        if raised {
            tracing::debug!(
                "new batches are numbered above all earlier ones, because the database server was started since"
            );
        }
        static START: std::sync::OnceLock<u32> = std::sync::OnceLock::new();
        let lane = (START.get_or_init(rand::random).wrapping_add(writer_id)) % LANES;
        Ok(Self {
            pg,
            lane: i32::try_from(lane).expect("a lane is below 16"),
        })
    }

    async fn call(&mut self, commit: &GroupCommit<'_>) -> Result<PgRow, sqlx::Error> {
        match commit.batch.rows() {
            [row] => self.call_row(commit, *row).await,
            _ => self.call_rows(commit).await,
        }
    }

    async fn call_row(&mut self, commit: &GroupCommit<'_>, row: Row) -> Result<PgRow, sqlx::Error> {
        let event = commit.batch.event(row);
        let query = self
            .pg
            .query(APPEND_ROW)
            .bind(commit.id)
            .bind(self.lane)
            .bind(commit.lease.map(|lease| lease.owner))
            .bind(commit.lease.map(|lease| interval(lease.length)))
            .bind(event.topic.as_str())
            .bind(event.event_id.as_str())
            .bind(DateTime::from(event.occurred_at))
            .bind(event.source.as_str())
            .bind(event.payload.as_str())
            .bind(signed(row.copies))
            .bind(row.digest)
            .bind(key(row))
            .bind(event.headers.as_ref().map(Headers::as_str));
        self.pg.fetch_one(query).await
    }

    async fn call_rows(&mut self, commit: &GroupCommit<'_>) -> Result<PgRow, sqlx::Error> {
        let rows = Rows::of(commit.batch);
        let query = self
            .pg
            .query(APPEND)
            .bind(commit.id)
            .bind(self.lane)
            .bind(commit.lease.map(|lease| lease.owner))
            .bind(commit.lease.map(|lease| interval(lease.length)))
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
            .bind(&rows.digests)
            .bind(&rows.keys)
            .bind(rows.has_headers.then_some(&rows.headers));
        self.pg.fetch_one(query).await
    }
}

#[async_trait]
impl Appender for PgAppender {
    async fn append(&mut self, commit: &GroupCommit<'_>, timeout: Duration) -> Result<Appended, StoreError> {
        let answer = bounded(timeout, "commit a batch", self.call(commit)).await?;
        let appended = match commit.batch.rows() {
            [_] => appended_row(&answer),
            _ => appended_rows(commit.batch, &answer),
        };
        appended.map_err(error::decoding)
    }

    async fn ping(&mut self, timeout: Duration) -> Result<(), StoreError> {
        bounded(timeout, "ping an idle connection", self.pg.ping()).await
    }

    async fn dry_run(&mut self, commit: &GroupCommit<'_>, timeout: Duration) -> Result<(), StoreError> {
        let dry_run = async {
            self.pg.begin(READ_COMMITTED).await?;
            let result = self.call(commit).await;
            self.pg.end("rollback").await?;
            result
        };
        bounded(timeout, "dry-run a batch", dry_run).await.map(drop)
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
    headers: Vec<Option<&'a str>>,
    has_headers: bool,
    positions: Vec<i32>,
    copies: Vec<i32>,
    digests: Vec<i64>,
    keys: Vec<Uuid>,
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
            rows.headers.push(event.headers.as_ref().map(Headers::as_str));
            rows.has_headers |= event.headers.is_some();
            rows.positions.push(signed(row.position));
            rows.copies.push(signed(row.copies));
            rows.digests.push(row.digest);
            rows.keys.push(key(row));
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
        let first = LogPosition {
            cursor: Cursor::new(answer.try_get("first_batch")?, answer.try_get("first_position")?),
            received_at: timestamp(answer.try_get("first_received")?),
        };
        missed(first, answer.try_get("is_conflict")?)
    };
    Ok(Appended {
        batch,
        received_at,
        outcomes: vec![outcome],
    })
}

/// Reads the answer for many rows: a row that is not listed as missed was stored.
fn appended_rows(batch: &Batch, answer: &PgRow) -> Result<Appended, sqlx::Error> {
    let (number, received_at) = written(answer)?;
    let missed_positions: Option<Vec<i32>> = answer.try_get("missed")?;
    let mut missed_at = vec![None; batch.len()];
    if let Some(missed_positions) = missed_positions {
        let batches: Vec<i64> = answer.try_get("first_batches")?;
        let positions: Vec<i32> = answer.try_get("first_positions")?;
        let received: Vec<DateTime<Utc>> = answer.try_get("first_received")?;
        let conflicts: Vec<bool> = answer.try_get("conflicts")?;
        for (index, position) in missed_positions.into_iter().enumerate() {
            let first = LogPosition {
                cursor: Cursor::new(batches[index], positions[index]),
                received_at: timestamp(received[index]),
            };
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

/// The outcome of a row that was not stored.
fn missed(first: LogPosition, is_conflict: bool) -> Outcome {
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

fn key(row: Row) -> Uuid {
    Uuid::from_bytes(row.key.0)
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
