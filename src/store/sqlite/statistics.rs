//! Statistics: counters, topics, conflicts, the backlog of the outbox, and how far the log is stable.

use std::time::Duration;

use rusqlite::{Connection, Row, params};

use super::clock::{now, timestamp};
use super::error::failed_to;
use crate::event::{Cursor, EventId, Payload, Source, Topic};
use crate::store::{
    Backlog, Conflict, ConflictList, ConflictPage, Counts, Stability, StoreError, StoreStats, TOPICS_MAX, TopicList,
    TopicSummary,
};

const LAST_BATCH: &str = "select last_batch from log";

const TOTALS: &str = include_str!("sql/totals.sql");

const LARGEST_TOPICS: &str =
    "select topic, unique_processed from topic_counts order by unique_processed desc, topic limit ?1";

const BACKLOG: &str = "
    select count(*), min(received_at), (select count(*) from parked) from batches where published_at is null";

const TOPIC_COUNTS: &str = "
    select received, unique_processed, duplicate_dropped, conflicts, pruned from topic_counts where topic = ?1";

const HAS_TOPIC: &str = "select exists (select 1 from topic_counts where topic = ?1)";

const TOPICS: &str = include_str!("sql/topics.sql");

const CONFLICTS: &str = include_str!("sql/conflicts.sql");

const CONFLICTS_OF_TOPIC: &str = include_str!("sql/conflicts_of_topic.sql");

const HELD_BACK: &str = "select coalesce(sum(held_back), 0) from partitions";

/// The counters and more.
pub(super) fn stats(connection: &Connection) -> Result<StoreStats, StoreError> {
    let read = || {
        let (counts, topic_count) = connection
            .prepare_cached(TOTALS)?
            .query_row([], |row| Ok((counts(row)?, row.get(5)?)))?;
        let topics = connection
            .prepare_cached(LARGEST_TOPICS)?
            .query_map([TOPICS_MAX], |row| Ok((row.get(0)?, row.get(1)?)))?
            .collect::<Result<_, _>>()?;
        Ok(StoreStats {
            counts,
            topic_count,
            topics,
            backlog: backlog(connection)?,
            held_back: connection.prepare_cached(HELD_BACK)?.query_row([], |row| row.get(0))?,
            stability: stability(connection)?,
        })
    };
    read().map_err(failed_to("read the counters"))
}

/// What is not published.
pub(super) fn backlog(connection: &Connection) -> rusqlite::Result<Backlog> {
    let (batches, oldest, dead_letters): (i64, Option<i64>, i64) = connection
        .prepare_cached(BACKLOG)?
        .query_row([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    // Never 0 for what waits, whatever happened to the clock.
    let age = oldest.map_or(0, |oldest| now().micros().saturating_sub(oldest).max(1000));
    Ok(Backlog {
        batches,
        oldest_seconds: Duration::from_micros(age.unsigned_abs()).as_secs_f64(),
        dead_letters,
    })
}

/// The counters of one topic.
pub(super) fn topic_counts(connection: &Connection, topic: &Topic) -> Result<Counts, StoreError> {
    let read = || {
        let mut statement = connection.prepare_cached(TOPIC_COUNTS)?;
        let mut rows = statement.query([topic.as_str()])?;
        rows.next()?.map_or(Ok(Counts::default()), counts)
    };
    read().map_err(failed_to("read the counters of a topic"))
}

/// Those of some topics that have no counters.
pub(super) fn unknown_topics(connection: &Connection, topics: Vec<String>) -> Result<Vec<String>, StoreError> {
    let read = || {
        let mut has = connection.prepare_cached(HAS_TOPIC)?;
        let mut unknown = Vec::new();
        for topic in &topics {
            if !has.query_row([topic], |row| row.get::<_, bool>(0))? {
                unknown.push(topic.clone());
            }
        }
        Ok(unknown)
    };
    read().map_err(failed_to("look for topics"))
}

/// How far the log is stable: batches are committed in the order of their numbers, so everything committed is stable.
pub(super) fn stability(connection: &Connection) -> rusqlite::Result<Stability> {
    let last: i64 = connection.prepare_cached(LAST_BATCH)?.query_row([], |row| row.get(0))?;
    Ok(Stability {
        last_stable: Cursor::new(last, i32::MAX),
        committed_below: last + 1,
        visibility_lag_seconds: 0.0,
    })
}

/// Counters from a row that begins with them.
pub(super) fn counts(row: &Row<'_>) -> rusqlite::Result<Counts> {
    Ok(Counts {
        received: row.get(0)?,
        unique_processed: row.get(1)?,
        duplicate_dropped: row.get(2)?,
        conflicts: row.get(3)?,
        pruned: row.get(4)?,
    })
}

/// Topics by name.
pub(super) fn topics(connection: &Connection, list: &TopicList) -> Result<Vec<TopicSummary>, StoreError> {
    let time = |row: &Row<'_>, index: usize| row.get::<_, Option<i64>>(index)?.map(timestamp).transpose();
    let summary = |row: &Row<'_>| {
        Ok(TopicSummary {
            topic: Topic::from_stored(row.get::<_, String>(5)?),
            counts: counts(row)?,
            first_received_at: time(row, 6)?,
            last_received_at: time(row, 7)?,
        })
    };
    let read = || {
        connection
            .prepare_cached(TOPICS)?
            .query_map(params![list.after, list.prefix, list.below(), list.limit], summary)?
            .collect::<Result<_, _>>()
    };
    read().map_err(failed_to("list the topics"))
}

/// A page of conflicts.
pub(super) fn conflicts(connection: &Connection, list: &ConflictList) -> Result<ConflictPage, StoreError> {
    let conflict = |row: &Row<'_>| {
        Ok(Conflict {
            cursor: Cursor::new(row.get(0)?, row.get(1)?),
            topic: Topic::from_stored(row.get::<_, String>(2)?),
            event_id: EventId::from_stored(row.get::<_, String>(3)?),
            first: Cursor::new(row.get(4)?, row.get(5)?),
            occurred_at: timestamp(row.get(6)?)?,
            received_at: timestamp(row.get(7)?)?,
            source: Source::from_stored(row.get::<_, String>(8)?),
            payload: row.get::<_, Option<String>>(9)?.map(Payload::from_stored),
        })
    };
    let read = || {
        let (batch, position) = (list.after.batch(), list.after.position());
        let conflicts = match &list.topic {
            Some(topic) => connection
                .prepare_cached(CONFLICTS_OF_TOPIC)?
                .query_map(params![batch, position, list.limit, topic.as_str()], conflict)?
                .collect::<Result<_, _>>()?,
            None => connection
                .prepare_cached(CONFLICTS)?
                .query_map(params![batch, position, list.limit], conflict)?
                .collect::<Result<_, _>>()?,
        };
        Ok(list.page(conflicts, stability(connection)?.last_stable))
    };
    read().map_err(failed_to("list conflicts"))
}
