//! Statistics: counters, the backlog of the outbox, and how far the log is stable.

use chrono::{DateTime, Utc};
use sqlx::Row;
use sqlx::postgres::{PgConnection, PgRow};

use super::append::timestamp;
use super::error::{decoding, failed_to};
use crate::event::{Cursor, Timestamp, Topic};
use crate::store::{Backlog, Counts, Stability, StoreError, StoreStats, TOPICS_MAX};

const STATS: &str = include_str!("sql/stats.sql");
const BACKLOG: &str = include_str!("sql/backlog.sql");
const TOPIC_COUNTS: &str = include_str!("sql/topic_counts.sql");
const STABILITY: &str = include_str!("sql/stability.sql");

/// The clock of the server; `received_at` is the clock of a transaction, `now()`.
const CLOCK: &str = "select clock_timestamp()";

/// As `17.2`, without the additions of a packager.
const VERSION: &str = "select split_part(current_setting('server_version'), ' ', 1)";

/// The settings of the whole server without which a commit would not be durable. (`synchronous_commit` belongs to a transaction:
/// a group commit sets it.)
const UNSAFE_SETTINGS: &str = "select name from pg_settings
    where name in ('fsync', 'full_page_writes') and setting = 'off' order by name";

/// The counters and more, in one snapshot.
pub(super) async fn stats(pg: &mut PgConnection) -> Result<StoreStats, StoreError> {
    let rows = sqlx::query(STATS)
        .bind(TOPICS_MAX)
        .fetch_all(pg)
        .await
        .map_err(failed_to("read the counters"))?;
    let read = || {
        let (totals, topics) = rows.split_first().ok_or(sqlx::Error::RowNotFound)?;
        let topic = |row: &PgRow| Ok((row.try_get("topic")?, row.try_get("unique_processed")?));
        Ok(StoreStats {
            counts: counts(totals)?,
            topic_count: totals.try_get("topics")?,
            topics: topics.iter().map(topic).collect::<Result<_, sqlx::Error>>()?,
            backlog: backlog_of(totals)?,
            stability: stability_of(totals)?,
        })
    };
    read().map_err(decoding)
}

/// What is not published.
pub(super) async fn backlog(pg: &mut PgConnection) -> Result<Backlog, StoreError> {
    let row = sqlx::query(BACKLOG).fetch_one(pg).await;
    backlog_of(&row.map_err(failed_to("count the backlog"))?).map_err(decoding)
}

fn backlog_of(row: &PgRow) -> sqlx::Result<Backlog> {
    Ok(Backlog {
        batches: row.try_get("outbox_batches")?,
        oldest_seconds: row.try_get("outbox_oldest_seconds")?,
        dead_letters: row.try_get("dead_letters")?,
    })
}

/// The counters of one topic.
pub(super) async fn topic_counts(pg: &mut PgConnection, topic: &Topic) -> Result<Counts, StoreError> {
    let row = sqlx::query(TOPIC_COUNTS).bind(topic.as_str()).fetch_one(pg).await;
    counts(&row.map_err(failed_to("read the counters of a topic"))?).map_err(decoding)
}

/// How far the log is stable.
pub(super) async fn stability(pg: &mut PgConnection) -> Result<Stability, StoreError> {
    let row = sqlx::query(STABILITY)
        .fetch_one(pg)
        .await
        .map_err(failed_to("read the last stable position"))?;
    stability_from(&row)
}

/// How far the log is stable, from a row with the columns of `stability.sql`.
pub(super) fn stability_from(row: &PgRow) -> Result<Stability, StoreError> {
    stability_of(row).map_err(decoding)
}

fn stability_of(row: &PgRow) -> Result<Stability, sqlx::Error> {
    Ok(Stability {
        last_stable: end_of(row.try_get("last_stable")?),
        committed_below: row.try_get("committed_below")?,
        visibility_lag_seconds: row.try_get("visibility_lag_seconds")?,
    })
}

/// The clock of the server.
pub(super) async fn clock(pg: &mut PgConnection) -> Result<Timestamp, StoreError> {
    let time = sqlx::query_scalar::<_, DateTime<Utc>>(CLOCK).fetch_one(pg).await;
    time.map(timestamp).map_err(failed_to("read the clock"))
}

/// The version of the server.
pub(super) async fn version(pg: &mut PgConnection) -> Result<String, StoreError> {
    let version = sqlx::query_scalar(VERSION).fetch_one(pg).await;
    version.map_err(failed_to("read the version of the server"))
}

/// The settings that are off and should not be.
pub(super) async fn unsafe_settings(pg: &mut PgConnection) -> Result<Vec<String>, StoreError> {
    let names = sqlx::query_scalar(UNSAFE_SETTINGS).fetch_all(pg).await;
    names.map_err(failed_to("read the settings of the server"))
}

fn counts(row: &PgRow) -> Result<Counts, sqlx::Error> {
    Ok(Counts {
        received: row.try_get("received")?,
        unique_processed: row.try_get("unique_processed")?,
        duplicate_dropped: row.try_get("duplicate_dropped")?,
        conflicts: row.try_get("conflicts")?,
        pruned: row.try_get("pruned")?,
    })
}

/// The last place of a batch.
pub(super) fn end_of(batch: i64) -> Cursor {
    Cursor::new(batch, i32::MAX)
}
