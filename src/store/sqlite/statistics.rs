//! Statistics: counters, topics, conflicts, the backlog of the outbox, and how far the log is stable.

use std::time::Duration;

use rusqlite::{Connection, Row, params};

use super::clock::{now, timestamp};
use super::error::failed_to;
use crate::event::{Cursor, EventId, NameRange, Payload, Source, Topic, TopicGlobs};
use crate::store::{
    Backlog, Conflict, ConflictList, ConflictPage, Counts, Stability, StoreError, StoreStats, TOPICS_MAX, TopicList,
    TopicSummary, TopicSums,
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
    let read = || {
        let mut topics = Vec::new();
        each_in(connection, &list.after, &list.ranges(), |row| {
            let topic = Topic::from_stored(row.get::<_, String>(5)?);
            if list.globs.matches(&topic) {
                topics.push(TopicSummary {
                    topic,
                    counts: counts(row)?,
                    first_received_at: time(row, 6)?,
                    last_received_at: time(row, 7)?,
                });
            }
            Ok(topics.len() < list.limit as usize)
        })?;
        Ok(topics)
    };
    read().map_err(failed_to("list the topics"))
}

/// Passes the row of each of some topics to `take`, by name, until it returns false.
pub(super) fn each_topic(
    connection: &Connection,
    globs: &TopicGlobs,
    mut take: impl FnMut(&Row<'_>) -> rusqlite::Result<bool>,
) -> rusqlite::Result<()> {
    each_in(connection, "", &globs.ranges(), |row| {
        let topic = Topic::from_stored(row.get::<_, String>(5)?);
        Ok(!globs.matches(&topic) || take(row)?)
    })
}

fn each_in(
    connection: &Connection,
    after: &str,
    ranges: &[NameRange],
    mut take: impl FnMut(&Row<'_>) -> rusqlite::Result<bool>,
) -> rusqlite::Result<()> {
    let mut statement = connection.prepare_cached(TOPICS)?;
    for range in ranges {
        let mut rows = statement.query(params![after, range.low, range.below])?;
        while let Some(row) = rows.next()? {
            if !take(row)? {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// The counters of some topics together.
pub(super) fn sums(connection: &Connection, globs: &TopicGlobs) -> Result<TopicSums, StoreError> {
    let read = || {
        let (mut sums, mut topics) = (Counts::default(), Vec::new());
        each_topic(connection, globs, |row| {
            let of_topic = counts(row)?;
            sums.received += of_topic.received;
            sums.unique_processed += of_topic.unique_processed;
            sums.duplicate_dropped += of_topic.duplicate_dropped;
            sums.conflicts += of_topic.conflicts;
            sums.pruned += of_topic.pruned;
            topics.push((row.get(5)?, of_topic.unique_processed));
            Ok(true)
        })?;
        let topic_count = i64::try_from(topics.len()).unwrap_or(i64::MAX);
        topics.sort_by(|(one, many): &(String, i64), (other, few)| few.cmp(many).then_with(|| one.cmp(other)));
        topics.truncate(usize::try_from(TOPICS_MAX).unwrap_or(usize::MAX));
        Ok(TopicSums {
            counts: sums,
            topic_count,
            topics,
        })
    };
    read().map_err(failed_to("add up the counters of topics"))
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
                .query_map(params![batch, position], conflict)?
                .filter(|found| found.as_ref().map_or(true, |found| list.globs.matches(&found.topic)))
                .take(list.limit as usize)
                .collect::<Result<_, _>>()?,
        };
        Ok(list.page(conflicts, stability(connection)?.last_stable))
    };
    read().map_err(failed_to("list conflicts"))
}
