//! Reading back: lists, walks and counters. Each runs in a transaction of its own: all that it sees is one snapshot.
//!
//! Which index serves a read is decided here: everything, one topic, or one identity ([`road`]). What else filters is checked
//! row by row.

use std::time::Duration;

use rusqlite::{Connection, Row, named_params};

use super::append::{now, timestamp};
use super::error::during;
use crate::event::{Cursor, Event, EventId, Payload, Source, StoredEvent, Timestamp, Topic};
use crate::store::{Backlog, Counts, Filter, List, Order, Page, Scan, Stability, StoreError, StoreStats, TOPICS_MAX};

/// The query time limit: what a list or a walk's page may take, the wait for its turn included.
pub(super) const LIST_TIMEOUT: Duration = Duration::from_secs(5);

/// How many rows a page of a walk examines at most when a filter matches rarely.
const SCAN_MAX: u32 = 5000;

const LAST_BATCH: &str = "select last_batch from log";

const TOTALS: &str = "
    select coalesce(sum(received), 0), coalesce(sum(unique_processed), 0), coalesce(sum(duplicate_dropped), 0),
           coalesce(sum(conflicts), 0), coalesce(sum(pruned), 0), count(*)
    from topic_counts";

const TOPICS: &str = "select topic, unique_processed from topic_counts order by unique_processed desc, topic limit ?1";

const OUTBOX: &str = "
    select count(*), min(received_at), (select count(*) from parked) from batches where published_at is null";

const TOPIC_COUNTS: &str = "
    select received, unique_processed, duplicate_dropped, conflicts, pruned from topic_counts where topic = ?1";

macro_rules! columns {
    () => {
        "topic, event_id, occurred_at, source, payload, received_at, batch, position"
    };
}
pub(super) use columns;

/// A statement that lists: `$direction` orders, `$behind` compares with where it goes on.
macro_rules! list {
    ($road:literal, $behind:literal, $direction:literal) => {
        concat!(
            "select ",
            columns!(),
            " from events ",
            $road,
            " and (batch, position) ",
            $behind,
            " (:batch, :position) and batch < :below
              and (:event_id is null or event_id = :event_id) and (:topic is null or topic = :topic)
              and (:source is null or source = :source)
              and (:since is null or occurred_at >= :since) and (:until is null or occurred_at < :until)
            order by batch ",
            $direction,
            ", position ",
            $direction,
            " limit :limit offset :offset"
        )
    };
}

/// The statements of a road: a list in both orders.
struct Road {
    ascending: &'static str,
    descending: &'static str,
}

const EVERYTHING: Road = Road {
    ascending: list!("indexed by events_log_idx where true", ">", "asc"),
    descending: list!("indexed by events_log_idx where true", "<", "desc"),
};

const ONE_TOPIC: Road = Road {
    ascending: list!("indexed by events_topic_log_idx where topic = :topic", ">", "asc"),
    descending: list!("indexed by events_topic_log_idx where topic = :topic", "<", "desc"),
};

const ONE_IDENTITY: Road = Road {
    ascending: list!(
        "indexed by sqlite_autoindex_events_1 where topic = :topic and event_id = :event_id",
        ">",
        "asc"
    ),
    descending: list!(
        "indexed by sqlite_autoindex_events_1 where topic = :topic and event_id = :event_id",
        "<",
        "desc"
    ),
};

/// The index that serves a read.
fn road(filter: &Filter) -> &'static Road {
    match (&filter.topic, &filter.event_id) {
        (Some(_), Some(_)) => &ONE_IDENTITY,
        (Some(_), None) => &ONE_TOPIC,
        (None, _) => &EVERYTHING,
    }
}

/// Runs the list of a road, and hands each row to `take` until that says that it has enough.
fn each(
    connection: &Connection,
    list: &List,
    filter: &Filter,
    mut take: impl FnMut(&Row<'_>) -> rusqlite::Result<bool>,
) -> rusqlite::Result<()> {
    let road = road(&list.filter);
    let (sql, start) = match list.order {
        Order::Ascending => (road.ascending, (-1, 0)),
        Order::Descending => (road.descending, (i64::MAX, 0)),
    };
    let (batch, position) = list.behind.map_or(start, |cursor| (cursor.batch(), cursor.position()));
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query(named_params! {
        ":topic": filter.topic.as_ref().map(Topic::as_str),
        ":event_id": filter.event_id.as_ref().map(EventId::as_str),
        ":source": filter.source.as_ref().map(Source::as_str),
        ":since": filter.since.map(Timestamp::micros),
        ":until": filter.until.map(Timestamp::micros),
        ":batch": batch,
        ":position": position,
        ":below": list.below.unwrap_or(i64::MAX),
        ":limit": list.limit,
        ":offset": i64::try_from(list.offset).unwrap_or(i64::MAX),
    })?;
    while let Some(row) = rows.next()? {
        if !take(row)? {
            break;
        }
    }
    Ok(())
}

/// Lists what is committed.
pub(super) fn list(connection: &Connection, list: &List) -> Result<Page, StoreError> {
    let read = || {
        let mut events = Vec::new();
        each(connection, list, &list.filter, |row| {
            events.push(stored_event(row)?);
            Ok(true)
        })?;
        Ok((events, stability(connection)?.last_stable))
    };
    let (events, edge) = read().map_err(during("listing events"))?;
    // What came after a long list began is not in it, and a walk from its `next` must not pass it over.
    let edge = list
        .below
        .map_or(edge, |below| edge.min(Cursor::new(below - 1, i32::MAX)));
    let is_last = events.len() < list.limit as usize;
    let next = match (list.order, events.last()) {
        (Order::Ascending, Some(last)) if !is_last => last.cursor.min(edge),
        _ => edge,
    };
    Ok(Page { events, next, is_last })
}

/// Walks over what is settled, which is all that is committed.
pub(super) fn scan(connection: &Connection, walk: &Scan) -> Result<Page, StoreError> {
    let Filter {
        topic,
        event_id,
        source,
        since,
        until,
    } = &walk.filter;
    let is_checked = source.is_some() || since.is_some() || until.is_some() || (event_id.is_some() && topic.is_none());
    let scan = if is_checked {
        walk.limit.max(SCAN_MAX)
    } else {
        walk.limit
    };
    // The road alone filters in the statement; the rest is checked here, so that the rows examined can be counted.
    let road = Filter {
        topic: topic.clone(),
        event_id: topic.as_ref().and(event_id.clone()),
        ..Filter::default()
    };
    let examined = List {
        filter: road.clone(),
        behind: Some(walk.after),
        limit: scan,
        ..List::default()
    };
    let read = || {
        let (mut taken, mut scanned, mut last) = (Taken::new(walk.bytes_max), 0, walk.after);
        each(connection, &examined, &road, |row| {
            scanned += 1;
            let is_wanted = !is_checked || matches(&walk.filter, row)?;
            if is_wanted && !taken.take(row)? {
                return Ok(false);
            }
            last = cursor(row)?;
            Ok(taken.events.len() < walk.limit as usize)
        })?;
        Ok((taken, scanned, last, stability(connection)?.last_stable))
    };
    let (taken, scanned, last, edge) = read().map_err(during("walking over events"))?;
    let Taken { events, is_cut, .. } = taken;
    let is_full = events.len() == walk.limit as usize || is_cut;
    let is_last = !is_full && scanned < scan;
    let next = match events.last() {
        Some(event) if is_cut => event.cursor,
        _ if is_last => edge.max(walk.after),
        _ => last,
    };
    Ok(Page { events, next, is_last })
}

/// Events whose payloads have at most so many bytes together, or a single one.
pub(super) struct Taken {
    pub(super) events: Vec<StoredEvent>,
    /// Whether an event was left out.
    pub(super) is_cut: bool,
    bytes_left: usize,
}

impl Taken {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self {
            events: Vec::new(),
            is_cut: false,
            bytes_left: bytes_max,
        }
    }

    /// Takes the event of a row, and says whether there was room for it.
    pub(super) fn take(&mut self, row: &Row<'_>) -> rusqlite::Result<bool> {
        let bytes = row.get_ref("payload")?.as_str()?.len();
        self.is_cut = !self.events.is_empty() && bytes > self.bytes_left;
        if !self.is_cut {
            self.bytes_left = self.bytes_left.saturating_sub(bytes);
            self.events.push(stored_event(row)?);
        }
        Ok(!self.is_cut)
    }
}

/// Whether a row passes the filters that no index serves.
fn matches(filter: &Filter, row: &Row<'_>) -> rusqlite::Result<bool> {
    let occurred_at: i64 = row.get("occurred_at")?;
    let is = |column: &str, wanted: Option<&str>| match wanted {
        Some(wanted) => Ok::<_, rusqlite::Error>(row.get_ref(column)?.as_str()? == wanted),
        None => Ok(true),
    };
    Ok(is("event_id", filter.event_id.as_ref().map(EventId::as_str))?
        && is("source", filter.source.as_ref().map(Source::as_str))?
        && filter.since.is_none_or(|since| occurred_at >= since.micros())
        && filter.until.is_none_or(|until| occurred_at < until.micros()))
}

/// The counters and more.
pub(super) fn stats(connection: &Connection) -> Result<StoreStats, StoreError> {
    let read = || {
        let (counts, topic_count) = connection
            .prepare_cached(TOTALS)?
            .query_row([], |row| Ok((counts(row)?, row.get(5)?)))?;
        let topics = connection
            .prepare_cached(TOPICS)?
            .query_map([TOPICS_MAX], |row| Ok((row.get(0)?, row.get(1)?)))?
            .collect::<Result<_, _>>()?;
        Ok(StoreStats {
            counts,
            topic_count,
            topics,
            backlog: backlog(connection)?,
            stability: stability(connection)?,
        })
    };
    read().map_err(during("reading counters"))
}

/// What is not published.
pub(super) fn backlog(connection: &Connection) -> rusqlite::Result<Backlog> {
    let (batches, oldest, dead_letters): (i64, Option<i64>, i64) = connection
        .prepare_cached(OUTBOX)?
        .query_row([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    let age = oldest.map_or(0, |oldest| now().micros().saturating_sub(oldest).max(0));
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
    read().map_err(during("reading a topic's counters"))
}

/// How far the log is settled: batches are committed in the order of their numbers, so nothing is ever unsettled.
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

fn cursor(row: &Row<'_>) -> rusqlite::Result<Cursor> {
    Ok(Cursor::new(row.get("batch")?, row.get("position")?))
}

pub(super) fn stored_event(row: &Row<'_>) -> rusqlite::Result<StoredEvent> {
    let text = |column| row.get::<_, String>(column);
    Ok(StoredEvent {
        event: Event {
            topic: Topic::from_stored(text("topic")?),
            event_id: EventId::from_stored(text("event_id")?),
            occurred_at: timestamp(row.get("occurred_at")?)?,
            source: Source::from_stored(text("source")?),
            payload: Payload::from_stored(text("payload")?),
        },
        received_at: timestamp(row.get("received_at")?)?,
        cursor: cursor(row)?,
        trace: None,
    })
}
