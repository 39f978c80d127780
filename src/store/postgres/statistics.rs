//! Statistics: counters, the backlog of the outbox, and how far the log is stable.

use chrono::{DateTime, Utc};
use sqlx::Row;
use sqlx::postgres::PgRow;

use super::append::timestamp;
use super::connect::Session;
use super::error::{decoding, failed_to};
use super::globs::{likes, ranges};
use crate::event::{Cursor, EventId, NameRange, Payload, Source, Timestamp, Topic, TopicGlobs};
use crate::store::{
    Backlog, Conflict, ConflictList, ConflictPage, Counts, Stability, StoreError, StoreStats, TOPICS_MAX, TopicList,
    TopicSummary, TopicSums,
};

const STATS: &str = include_str!("sql/stats.sql");
const BACKLOG: &str = include_str!("sql/backlog.sql");
const TOPIC_COUNTS: &str = include_str!("sql/topic_counts.sql");
const UNKNOWN_TOPICS: &str = include_str!("sql/unknown_topics.sql");
const SUMS: &str = include_str!("sql/sums.sql");
const TOPICS: &str = include_str!("sql/topics.sql");
const CONFLICTS: &str = include_str!("sql/conflicts.sql");
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
pub(super) async fn stats(pg: &mut Session) -> Result<StoreStats, StoreError> {
    let rows = pg
        .fetch_all(pg.query(STATS).bind(TOPICS_MAX))
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
            held_back: totals.try_get("held_back")?,
            stability: stability_of(totals)?,
        })
    };
    read().map_err(decoding)
}

/// What is not published.
pub(super) async fn backlog(pg: &mut Session) -> Result<Backlog, StoreError> {
    let row = pg.fetch_one(pg.query(BACKLOG)).await;
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
pub(super) async fn topic_counts(pg: &mut Session, topic: &Topic) -> Result<Counts, StoreError> {
    let row = pg.fetch_one(pg.query(TOPIC_COUNTS).bind(topic.as_str())).await;
    counts(&row.map_err(failed_to("read the counters of a topic"))?).map_err(decoding)
}

/// Those of some topics that have no counters.
pub(super) async fn unknown_topics(pg: &mut Session, topics: &[&str]) -> Result<Vec<String>, StoreError> {
    let unknown = pg.scalars(pg.query(UNKNOWN_TOPICS).bind(topics)).await;
    unknown.map_err(failed_to("look for topics"))
}

/// The counters of some topics together.
pub(super) async fn sums(pg: &mut Session, globs: &TopicGlobs) -> Result<TopicSums, StoreError> {
    let (low, below) = ranges(globs);
    let query = pg.query(SUMS).bind(TOPICS_MAX).bind(low).bind(below);
    let rows = pg
        .fetch_all(query.bind(likes(globs).unwrap_or_else(|| vec!["%".to_owned()])))
        .await
        .map_err(failed_to("add up the counters of topics"))?;
    let read = || {
        let (totals, topics) = rows.split_first().ok_or(sqlx::Error::RowNotFound)?;
        let topic = |row: &PgRow| Ok((row.try_get("topic")?, row.try_get("unique_processed")?));
        Ok(TopicSums {
            counts: counts(totals)?,
            topic_count: totals.try_get("topics")?,
            topics: topics.iter().map(topic).collect::<Result<_, sqlx::Error>>()?,
        })
    };
    read().map_err(decoding)
}

/// Topics by name.
pub(super) async fn topics(pg: &mut Session, list: &TopicList) -> Result<Vec<TopicSummary>, StoreError> {
    let mut topics = Vec::new();
    for range in list.ranges() {
        topics.append(&mut topics_of(pg, list, &range, topics.len()).await?);
        if topics.len() >= list.limit as usize {
            break;
        }
    }
    Ok(topics)
}

/// Those of a range, to follow so many.
async fn topics_of(
    pg: &mut Session,
    list: &TopicList,
    range: &NameRange,
    before: usize,
) -> Result<Vec<TopicSummary>, StoreError> {
    let rows = pg
        .fetch_all(
            pg.query(TOPICS)
                .bind(&list.after)
                .bind(&range.low)
                .bind(&range.below)
                .bind(i64::from(list.limit) - before as i64)
                .bind(likes(&list.globs)),
        )
        .await
        .map_err(failed_to("list the topics"))?;
    let time = |row: &PgRow, name| {
        row.try_get::<Option<DateTime<Utc>>, _>(name)
            .map(|time| time.map(timestamp))
    };
    let summary = |row: &PgRow| {
        Ok(TopicSummary {
            topic: Topic::from_stored(row.try_get::<String, _>("topic")?),
            counts: counts(row)?,
            first_received_at: time(row, "first_received_at")?,
            last_received_at: time(row, "last_received_at")?,
        })
    };
    rows.iter()
        .map(summary)
        .collect::<Result<_, sqlx::Error>>()
        .map_err(decoding)
}

/// A page of conflicts.
pub(super) async fn conflicts(pg: &mut Session, list: &ConflictList) -> Result<ConflictPage, StoreError> {
    let rows = pg
        .fetch_all(
            pg.query(CONFLICTS)
                .bind(list.topic.as_ref().map(Topic::as_str))
                .bind(list.after.batch())
                .bind(list.after.position())
                .bind(i64::from(list.limit))
                .bind(likes(&list.globs)),
        )
        .await
        .map_err(failed_to("list conflicts"))?;
    let read = || {
        let last_stable = end_of(rows.first().ok_or(sqlx::Error::RowNotFound)?.try_get("last_stable")?);
        let is_there = |row: &&PgRow| !matches!(row.try_get::<Option<&str>, _>("topic"), Ok(None));
        let conflicts = rows
            .iter()
            .filter(is_there)
            .map(conflict)
            .collect::<Result<_, sqlx::Error>>()?;
        Ok(list.page(conflicts, last_stable))
    };
    read().map_err(decoding)
}

fn conflict(row: &PgRow) -> Result<Conflict, sqlx::Error> {
    Ok(Conflict {
        cursor: Cursor::new(row.try_get("batch")?, row.try_get("position")?),
        topic: Topic::from_stored(row.try_get::<String, _>("topic")?),
        event_id: EventId::from_stored(row.try_get::<String, _>("event_id")?),
        first: Cursor::new(row.try_get("first_batch")?, row.try_get("first_position")?),
        occurred_at: timestamp(row.try_get("occurred_at")?),
        received_at: timestamp(row.try_get("received_at")?),
        source: Source::from_stored(row.try_get::<String, _>("source")?),
        payload: row.try_get::<Option<String>, _>("payload")?.map(Payload::from_stored),
    })
}

/// How far the log is stable.
pub(super) async fn stability(pg: &mut Session) -> Result<Stability, StoreError> {
    let row = pg
        .fetch_one(pg.query(STABILITY))
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
pub(super) async fn clock(pg: &mut Session) -> Result<Timestamp, StoreError> {
    let time = pg.scalar(pg.query(CLOCK)).await;
    time.map(timestamp).map_err(failed_to("read the clock"))
}

/// The version of the server.
pub(super) async fn version(pg: &mut Session) -> Result<String, StoreError> {
    let version = pg.scalar(pg.query(VERSION)).await;
    version.map_err(failed_to("read the version of the server"))
}

/// The settings that are off and should not be.
pub(super) async fn unsafe_settings(pg: &mut Session) -> Result<Vec<String>, StoreError> {
    let names = pg.scalars(pg.query(UNSAFE_SETTINGS)).await;
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
