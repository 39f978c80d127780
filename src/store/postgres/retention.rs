//! Partitions, and what expires.
//!
//! Each statement is a transaction of its own. What may take long only reads, or writes in small steps: a transaction that has written
//! holds back what cursor reads may see.

use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use sqlx::Row;
use sqlx::postgres::{PgArguments, PgRow};
use sqlx::query::Query;
use uuid::Uuid;

use super::Postgres;
use super::append::{interval, timestamp};
use super::connect::{Role, Session, bounded, connect};
use super::error::decoding;
use crate::config::OUTBOX_LEASE_CREDIBLE;
use crate::event::{Cursor, Timestamp};
use crate::store::backoff::Backoff;
use crate::store::{Archived, ErrorClass, Expired, Expiry, Partition, Retention, StoreError};

const LEASE: &str = include_str!("sql/lease.sql");
const BEGIN_PARTITION: &str = "select eventsieve.begin_partition($1)";
const FINISH_SWITCH: &str = "select eventsieve.finish_switch()";
const PARTITIONS: &str = include_str!("sql/partitions.sql");
const COUNT: &str = "select * from eventsieve.count_expired($1, $2, $3, $4, $5)";
const BEGIN_COPY: &str = "select eventsieve.begin_copy($1, $2, $3)";
const COPY_KEPT: &str = "select * from eventsieve.copy_kept($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)";
const COUNT_COPIED: &str = "select eventsieve.count_copied($1, $2, $3)";
const EXCHANGE: &str = "select eventsieve.exchange_partition($1, $2, $3, $4, $5)";
const DECIDE: &str = "update eventsieve.partitions set decision = $2, held_back = $3 where first_batch = $1";
const MARK_ARCHIVED: &str = include_str!("sql/mark_archived.sql");
const ARCHIVES: &str = include_str!("sql/archives.sql");
const IDENTITIES_BLOCKS: &str =
    "select pg_relation_size('eventsieve.identities') / current_setting('block_size')::bigint";
const FORGET: &str = "select eventsieve.forget_identities($1, $2, $3)";
const FORGET_TOPICS: &str = "select * from eventsieve.forget_topics($1, $2, $3)";
const PRUNE_CONFLICTS: &str = include_str!("sql/prune_conflicts.sql");

/// How long a statement may take that reads or writes little.
const TIMEOUT: Duration = Duration::from_secs(60);
/// How long it may take to count a partition: longer than the session's `statement_timeout`.
const COUNT_TIMEOUT: Duration = Duration::from_secs(3660);

/// How many events a step of copying examines at most, and how many bytes they have on disk: little enough that it holds back cursor
/// reads for some milliseconds only.
const COPY_EVENTS: i64 = 5000;
const COPY_BYTES: i64 = 4 << 20;

/// How many blocks of identities a step of forgetting examines: 8 MiB.
const FORGET_BLOCKS: i64 = 1024;

/// How many topics a step of forgetting looks at.
const FORGET_TOPICS_STEP: i64 = 500;

/// For how long the exchange of a partition is tried again while long reads are in its way.
const EXCHANGE_PATIENCE: Duration = Duration::from_secs(600);

impl Postgres {
    /// The connection of expiry.
    async fn expiry_connection(&self, slot: &mut Option<Session>) -> Result<Session, StoreError> {
        match slot.take() {
            Some(pg) => Ok(pg),
            None => connect(self.address()?, Role::Retention).await,
        }
    }

    /// Runs one statement on the connection of expiry.
    async fn expiring(
        &self,
        action: &'static str,
        query: Query<'_, sqlx::Postgres, PgArguments>,
    ) -> Result<Vec<PgRow>, StoreError> {
        let mut slot = self.expiry.lock().await;
        let mut pg = self.expiry_connection(&mut slot).await?;
        let rows = bounded(TIMEOUT, action, pg.fetch_all(query)).await;
        if !matches!(&rows, Err(error) if error.class.breaks_connection()) {
            *slot = Some(pg);
        }
        rows
    }

    /// Forgets the topics of which nothing is left, in the order of their names, up to one that is being written to: the next pass goes on.
    async fn forget_topics(&self, before: Timestamp) -> Result<(), StoreError> {
        let mut after = Some(String::new());
        while let Some(name) = after {
            let query = self
                .query(FORGET_TOPICS)
                .bind(DateTime::<Utc>::from(before))
                .bind(&name)
                .bind(FORGET_TOPICS_STEP);
            let rows = match self.expiring("forget topics", query).await {
                Err(error) if error.class == ErrorClass::Contention => return Ok(()),
                rows => rows?,
            };
            after = scalar(&rows)?;
        }
        Ok(())
    }
}

#[async_trait]
impl Retention for Postgres {
    /// On the connection of the relay, so that a lease is renewed while expiry is at work.
    async fn lease(&self, name: &str, owner: Uuid, length: Duration) -> Result<bool, StoreError> {
        let query = self
            .query(LEASE)
            .bind(name)
            .bind(owner)
            .bind(interval(length))
            .bind(interval(OUTBOX_LEASE_CREDIBLE));
        Ok(!self.relay("take a lease", query).await?.is_empty())
    }

    async fn begin_partition(&self, older_than: Duration) -> Result<bool, StoreError> {
        let begin = self.query(BEGIN_PARTITION).bind(interval(older_than));
        // Also for one that was interrupted between the two.
        self.expiring("finish the switch to a partition", self.query(FINISH_SWITCH))
            .await?;
        let rows = self.expiring("begin a partition", begin).await?;
        self.expiring("finish the switch to a partition", self.query(FINISH_SWITCH))
            .await?;
        scalar(&rows)
    }

    async fn partitions(&self) -> Result<Vec<Partition>, StoreError> {
        let rows = self.expiring("list the partitions", self.query(PARTITIONS)).await?;
        let partition = |row: &PgRow| {
            Ok(Partition {
                first_batch: row.try_get("first_batch")?,
                before_batch: row.try_get("before_batch")?,
                is_open: row.try_get("is_open")?,
                ended_at: row.try_get::<Option<DateTime<Utc>>, _>("ended_at")?.map(timestamp),
                bytes: unsigned(row.try_get("bytes")?),
                decision: row.try_get("decision")?,
                held_back: unsigned(row.try_get("held_back")?),
                archived_as: row.try_get("archived_as")?,
            })
        };
        rows.iter().map(partition).collect::<Result<_, _>>().map_err(decoding)
    }

    async fn expire(&self, expiry: &Expiry) -> Result<Expired, StoreError> {
        let mut slot = self.expiry.lock().await;
        let mut pg = self.expiry_connection(&mut slot).await?;
        let expired = Expiring::new(&mut pg, expiry).run().await;
        if !matches!(&expired, Err(error) if error.class.breaks_connection()) {
            *slot = Some(pg);
        }
        expired
    }

    async fn mark_archived(&self, partition: i64, archived: &Archived) -> Result<bool, StoreError> {
        let query = self
            .query(MARK_ARCHIVED)
            .bind(partition)
            .bind(&archived.manifest)
            .bind(i64::try_from(archived.events).unwrap_or(i64::MAX));
        let mut slot = self.expiry.lock().await;
        let mut pg = self.expiry_connection(&mut slot).await?;
        // It counts the partition.
        let rows = bounded(COUNT_TIMEOUT, "note an archive", pg.fetch_all(query)).await;
        if !matches!(&rows, Err(error) if error.class.breaks_connection()) {
            *slot = Some(pg);
        }
        Ok(!rows?.is_empty())
    }

    async fn archived(&self) -> Result<Vec<Archived>, StoreError> {
        let rows = self.expiring("list the archives", self.query(ARCHIVES)).await?;
        let archived = |row: &PgRow| {
            Ok(Archived {
                manifest: row.try_get("manifest")?,
                events: unsigned(row.try_get("events")?),
            })
        };
        rows.iter().map(archived).collect::<Result<_, _>>().map_err(decoding)
    }

    async fn forget_identities(&self, before: Timestamp) -> Result<u64, StoreError> {
        let rows = self
            .expiring("measure the identities", self.query(IDENTITIES_BLOCKS))
            .await?;
        let (blocks, mut block, mut forgotten): (i64, i64, u64) = (scalar(&rows)?, 0, 0);
        while block <= blocks {
            let query = self
                .query(FORGET)
                .bind(DateTime::<Utc>::from(before))
                .bind(block)
                .bind(block + FORGET_BLOCKS);
            forgotten += scalar(&self.expiring("forget identities", query).await?).map(unsigned)?;
            block += FORGET_BLOCKS;
        }
        self.forget_topics(before).await?;
        Ok(forgotten)
    }

    async fn prune_conflicts(&self, before: Timestamp, limit: u32) -> Result<u64, StoreError> {
        let query = self
            .query(PRUNE_CONFLICTS)
            .bind(DateTime::<Utc>::from(before))
            .bind(i64::from(limit));
        scalar(&self.expiring("prune conflicts", query).await?).map(unsigned)
    }
}

/// One expiry of one partition.
struct Expiring<'a> {
    pg: &'a mut Session,
    expiry: &'a Expiry,
    patterns: Vec<String>,
    are_expired: Vec<bool>,
}

impl<'a> Expiring<'a> {
    fn new(pg: &'a mut Session, expiry: &'a Expiry) -> Self {
        let topics = expiry.topics.iter();
        let (patterns, are_expired) = topics.map(|(glob, is_expired)| (glob.like(), *is_expired)).unzip();
        Self {
            pg,
            expiry,
            patterns,
            are_expired,
        }
    }

    async fn run(mut self) -> Result<Expired, StoreError> {
        let partition = self.expiry.partition;
        let counted = self.bind(self.pg.query(COUNT));
        let row = bounded(COUNT_TIMEOUT, "count what has expired", self.pg.fetch_one(counted)).await?;
        let number = |name| {
            row.try_get::<Option<i64>, _>(name)
                .map_err(decoding)
                .map(Option::unwrap_or_default)
        };
        let (removed, held_back, left_over) = (number("removed")?, number("held_back")?, number("left_over")?);
        let is_open = row.try_get::<Option<bool>, _>("is_stable").map_err(decoding)? == Some(false);
        let mut expired = Expired {
            removed: if is_open && !self.expiry.dry_run {
                0
            } else {
                unsigned(removed)
            },
            held_back: unsigned(held_back),
            is_open,
        };
        if self.expiry.dry_run || is_open {
            return Ok(expired);
        }
        if removed == 0 && left_over > 0 {
            if let Some(decision) = &self.expiry.decision {
                let decide = self.pg.query(DECIDE).bind(partition).bind(decision).bind(held_back);
                bounded(TIMEOUT, "note a decision", self.pg.fetch_all(decide)).await?;
            }
            return Ok(expired);
        }
        let table: String = row.try_get("table_name").map_err(decoding)?;
        let events = removed.saturating_add(left_over).max(1);
        let limit = (COPY_BYTES / (number("bytes")? / events + 1)).clamp(10, COPY_EVENTS);
        let begin = self
            .pg
            .query(BEGIN_COPY)
            .bind(partition)
            .bind(&table)
            .bind(left_over > 0);
        let copy: Option<String> = bounded(TIMEOUT, "begin a copy", self.pg.scalar(begin)).await?;
        let tables = (table.as_str(), copy.as_deref());
        if left_over > 0 {
            self.copy(tables, limit).await?;
        }
        let count = self
            .pg
            .query(COUNT_COPIED)
            .bind(partition)
            .bind(tables.0)
            .bind(tables.1);
        let gone: i64 = bounded(COUNT_TIMEOUT, "count what expires", self.pg.scalar(count)).await?;
        expired.removed = unsigned(gone);
        self.exchange(tables, held_back).await?;
        Ok(expired)
    }

    /// Copies what stays of a table to its copy, `limit` events at a time.
    async fn copy(&mut self, (table, copy): (&str, Option<&str>), limit: i64) -> Result<(), StoreError> {
        let mut after = Cursor::BEGINNING;
        loop {
            let step = self
                .bind(self.pg.query(COPY_KEPT))
                .bind(table)
                .bind(copy)
                .bind(after.batch())
                .bind(after.position())
                .bind(limit);
            let row = bounded(COUNT_TIMEOUT, "copy what stays", self.pg.fetch_one(step)).await?;
            let batch: Option<i64> = row.try_get("last_batch").map_err(decoding)?;
            let position: Option<i32> = row.try_get("last_position").map_err(decoding)?;
            match batch.zip(position) {
                Some((batch, position)) => after = Cursor::new(batch, position),
                None => return Ok(()),
            }
        }
    }

    /// Puts the copy in the place of the table, as soon as no long read is in the way.
    async fn exchange(&mut self, (table, copy): (&str, Option<&str>), held_back: i64) -> Result<(), StoreError> {
        let (mut backoff, begun) = (Backoff::default(), tokio::time::Instant::now());
        loop {
            let exchange = self
                .pg
                .query(EXCHANGE)
                .bind(self.expiry.partition)
                .bind(table)
                .bind(copy)
                .bind(&self.expiry.decision)
                .bind(self.expiry.decision.as_ref().map(|_| held_back));
            match bounded(TIMEOUT, "exchange a partition", self.pg.fetch_all(exchange)).await {
                Err(error) if error.class == ErrorClass::Contention && begun.elapsed() < EXCHANGE_PATIENCE => {
                    tokio::time::sleep(backoff.next_wait()).await;
                }
                exchanged => return exchanged.map(drop),
            }
        }
    }

    fn bind<'q>(&self, query: Query<'q, sqlx::Postgres, PgArguments>) -> Query<'q, sqlx::Postgres, PgArguments> {
        query
            .bind(self.expiry.partition)
            .bind(self.patterns.clone())
            .bind(self.are_expired.clone())
            .bind(self.expiry.others)
            .bind(self.expiry.before.map(DateTime::<Utc>::from))
    }
}

fn scalar<T>(rows: &[PgRow]) -> Result<T, StoreError>
where
    T: for<'r> sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres>,
{
    let row = rows.first().ok_or_else(|| decoding(sqlx::Error::RowNotFound))?;
    row.try_get(0).map_err(decoding)
}

fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}
