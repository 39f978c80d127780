//! Reads of the log: lists and scans. Each runs in a transaction of its own and sees one snapshot.
//!
//! The statement decides which index serves a read: everything, one topic, or one identity ([`IndexPath`]). Other filters are
//! checked row by row, patterns of topics too.

use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, Row, named_params, params};

use super::clock::timestamp;
use super::error::failed_to;
use super::statistics::{each_topic, stability};
use crate::event::{
    Cursor, Event, EventId, Headers, IdentityKey, Payload, Source, StoredEvent, Timestamp, Topic, TopicGlobs,
};
use crate::store::{Filter, Found, List, LogPosition, Order, Page, Scan, StoreError};

/// The query time limit of a list or of a page of a scan, the wait for a connection included.
pub(super) const LIST_TIMEOUT: Duration = Duration::from_secs(5);

/// How many rows a page of a scan examines at most when a filter matches rarely.
const SCAN_ROWS_MAX: u32 = 5000;

/// Whether events behind a cursor are gone: pruned, or lost with the copy of the file that gave it out.
const IS_TRUNCATED: &str = include_str!("sql/is_truncated.sql");

const FIND: &str = include_str!("sql/find.sql");

/// The statements of an index path. Each names its index, so that no plan can choose another one.
struct IndexPath {
    list: &'static str,
    list_newest_first: &'static str,
}

const EVERYTHING: IndexPath = IndexPath {
    list: include_str!("sql/list_all.sql"),
    list_newest_first: include_str!("sql/list_all_newest_first.sql"),
};

const ONE_TOPIC: IndexPath = IndexPath {
    list: include_str!("sql/list_topic.sql"),
    list_newest_first: include_str!("sql/list_topic_newest_first.sql"),
};

const ONE_IDENTITY: IndexPath = IndexPath {
    list: include_str!("sql/list_identity.sql"),
    list_newest_first: include_str!("sql/list_identity_newest_first.sql"),
};

impl IndexPath {
    fn of(filter: &Filter) -> &'static Self {
        match (&filter.topic, &filter.event_id) {
            (Some(_), Some(_)) => &ONE_IDENTITY,
            (Some(_), None) => &ONE_TOPIC,
            (None, _) => &EVERYTHING,
        }
    }
}

/// Runs a list with `filter` on the index path of `list`, and passes each row to `take` until it returns false.
fn each(
    connection: &Connection,
    list: &List,
    filter: &Filter,
    mut take: impl FnMut(&Row<'_>) -> rusqlite::Result<bool>,
) -> rusqlite::Result<()> {
    let path = IndexPath::of(&list.filter);
    let (sql, start) = match list.order {
        Order::Ascending => (path.list, (-1, 0)),
        Order::Descending => (path.list_newest_first, (i64::MAX, 0)),
    };
    let (batch, position) = list.behind.map_or(start, |cursor| (cursor.batch(), cursor.position()));
    let mut statement = connection.prepare_cached(sql)?;
    if let (Some(topic), Some(event_id)) = (&filter.topic, &filter.event_id) {
        // Only the statements of this index path have it.
        let key = statement
            .parameter_index(":key")?
            .expect("a statement for one identity has its key");
        statement.raw_bind_parameter(key, IdentityKey::of(topic, event_id).0)?;
    }
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
    let globs = by_row(&list.filter);
    let (mut skipped, mut every) = (0, list.clone());
    if !globs.is_all() {
        // Only what they match counts for the limit and the offset.
        (every.limit, every.offset) = (u32::MAX, 0);
    }
    let mut read = || {
        let mut taken = Taken::new(list.bytes_max.unwrap_or(usize::MAX));
        each(connection, &every, &list.filter, |row| {
            if !globs.is_all() {
                if !globs.matches(&topic(row)?) {
                    return Ok(true);
                }
                if skipped < list.offset {
                    skipped += 1;
                    return Ok(true);
                }
            }
            Ok(taken.take(row)? && taken.events.len() < list.limit as usize)
        })?;
        Ok((taken, stability(connection)?.last_stable))
    };
    let (taken, last_stable) = read().map_err(failed_to("list events"))?;
    Ok(list.page(taken.events, taken.is_cut, last_stable))
}

/// Reads on from a cursor, up to the last stable position, which is the end of the log. `None`: the cursor lies above it.
pub(super) fn scan(connection: &Connection, scan: &Scan) -> Result<Option<Page>, StoreError> {
    let Filter {
        topic,
        globs: _,
        event_id,
        source,
        since,
        until,
    } = &scan.filter;
    let is_checked = !by_row(&scan.filter).is_all()
        || source.is_some()
        || since.is_some()
        || until.is_some()
        || (event_id.is_some() && topic.is_none());
    let rows_max = if is_checked {
        scan.limit.max(SCAN_ROWS_MAX)
    } else {
        scan.limit
    };
    // The statement filters only by the index path. Other filters are checked here, so that the examined rows can be counted.
    let by_index = Filter {
        topic: topic.clone(),
        event_id: topic.as_ref().and(event_id.clone()),
        ..Filter::default()
    };
    let examined = List {
        filter: by_index.clone(),
        behind: Some(scan.after),
        limit: rows_max,
        ..List::default()
    };
    let read = || {
        let (mut taken, mut scanned, mut last) = (Taken::new(scan.bytes_max), 0, scan.after);
        each(connection, &examined, &by_index, |row| {
            scanned += 1;
            let is_wanted = !is_checked || matches(&scan.filter, row)?;
            if is_wanted && !taken.take(row)? {
                return Ok(false);
            }
            last = cursor(row)?;
            Ok(taken.events.len() < scan.limit as usize)
        })?;
        let stable = stability(connection)?.last_stable;
        Ok((taken, scanned, last, stable, is_truncated(connection, scan)?))
    };
    let (taken, scanned, last, stable, is_truncated) = read().map_err(failed_to("read events from a cursor"))?;
    if scan.after > stable {
        return Ok(None);
    }
    let Taken { events, is_cut, .. } = taken;
    let is_full = events.len() == scan.limit as usize || is_cut;
    let is_last = !is_full && scanned < rows_max;
    let next = match events.last() {
        Some(event) if is_cut => event.cursor,
        _ if is_last => stable,
        _ => last,
    };
    Ok(Some(Page {
        events,
        next,
        is_last,
        is_truncated,
    }))
}

fn is_truncated(connection: &Connection, scan: &Scan) -> rusqlite::Result<bool> {
    let mut statement = connection.prepare_cached(IS_TRUNCATED)?;
    let mut is_truncated = |topic: Option<&str>| {
        statement.query_row(params![scan.after.batch(), scan.after.position(), topic], |row| {
            row.get::<_, bool>(0)
        })
    };
    let globs = by_row(&scan.filter);
    if globs.is_all() || !is_truncated(None)? {
        return is_truncated(scan.filter.topic.as_ref().map(Topic::as_str));
    }
    // The empty name, which no topic has, stands for those that are forgotten.
    let mut found = is_truncated(Some(""))?;
    each_topic(connection, globs, |row| {
        found = found || is_truncated(Some(row.get_ref("topic")?.as_str()?))?;
        Ok(!found)
    })?;
    Ok(found)
}

/// The patterns that are compared row by row.
fn by_row(filter: &Filter) -> &TopicGlobs {
    if filter.topic.is_some() {
        &TopicGlobs::All
    } else {
        &filter.globs
    }
}

fn topic(row: &Row<'_>) -> rusqlite::Result<Topic> {
    Ok(Topic::from_stored(row.get::<_, String>("topic")?))
}

/// Looks for an identity.
pub(super) fn find(connection: &Connection, topic: &Topic, event_id: &EventId) -> Result<Option<Found>, StoreError> {
    let found = |row: &Row<'_>| {
        Ok(Found {
            first: LogPosition {
                cursor: Cursor::new(row.get("first_batch")?, row.get("first_position")?),
                received_at: timestamp(row.get("first_received")?)?,
            },
            event: match row.get::<_, Option<i64>>("batch")? {
                Some(_) => Some(stored_event(row)?),
                None => None,
            },
        })
    };
    connection
        .prepare_cached(FIND)
        .and_then(|mut statement| {
            statement
                .query_row([IdentityKey::of(topic, event_id).0], found)
                .optional()
        })
        .map_err(failed_to("look for an event"))
}

/// Events whose payloads have a limited number of bytes together, or a single event.
pub(super) struct Taken {
    pub(super) events: Vec<StoredEvent>,
    /// Whether an event did not fit.
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

    /// Takes the event of a row if it fits, and returns whether it did.
    pub(super) fn take(&mut self, row: &Row<'_>) -> rusqlite::Result<bool> {
        let headers = row.get_ref("headers")?.as_str_or_null()?;
        let bytes = row.get_ref("payload")?.as_str()?.len() + headers.map_or(0, str::len);
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
    let globs = by_row(filter);
    Ok((globs.is_all() || globs.matches(&topic(row)?))
        && is("event_id", filter.event_id.as_ref().map(EventId::as_str))?
        && is("source", filter.source.as_ref().map(Source::as_str))?
        && filter.since.is_none_or(|since| occurred_at >= since.micros())
        && filter.until.is_none_or(|until| occurred_at < until.micros()))
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
            headers: row.get::<_, Option<String>>("headers")?.map(Headers::from_stored),
        },
        received_at: timestamp(row.get("received_at")?)?,
        cursor: cursor(row)?,
        trace: None,
    })
}
