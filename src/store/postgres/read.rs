//! Reads of the log: lists and scans.
//!
//! The statement decides which index serves a read, not a plan: everything, one topic, some topics, or one identity ([`IndexPath`]).
//! Other filters are checked row by row; so are patterns that more topics match than can be read one by one.

use std::time::Duration;

use chrono::{DateTime, Utc};
use sqlx::Row;
use sqlx::postgres::{PgArguments, PgRow};
use sqlx::query::Query;
use uuid::Uuid;

use super::append::timestamp;
use super::connect::Session;
use super::error::{decoding, failed_to};
use super::globs::{MERGED_TOPICS_MAX, likes, ranges};
use super::schema::PREPARE_NUMBERS;
use super::statistics::end_of;
use crate::event::{Cursor, Event, EventId, Headers, IdentityKey, Payload, Source, StoredEvent, Timestamp, Topic};
use crate::store::{Filter, Found, List, LogPosition, Order, Page, Scan, StoreError};

/// The query time limit of a list or of a page of a scan, the wait for a connection included.
pub(super) const LIST_TIMEOUT: Duration = Duration::from_secs(5);

/// How many rows a page of a scan examines at most when a filter matches rarely.
const SCAN_ROWS_MAX: i64 = 5000;

const FIND: &str = include_str!("sql/find.sql");

/// The statements of an index path. A statement must not leave the choice of the index to a plan, so each path has its own.
struct IndexPath {
    list: &'static str,
    list_newest_first: &'static str,
    scan: &'static str,
}

static EVERYTHING: IndexPath = IndexPath {
    list: include_str!("sql/list_all.sql"),
    list_newest_first: include_str!("sql/list_all_newest_first.sql"),
    scan: include_str!("sql/scan_all.sql"),
};
static ONE_TOPIC: IndexPath = IndexPath {
    list: include_str!("sql/list_topic.sql"),
    list_newest_first: include_str!("sql/list_topic_newest_first.sql"),
    scan: include_str!("sql/scan_topic.sql"),
};
static SOME_TOPICS: IndexPath = IndexPath {
    list: include_str!("sql/list_topics.sql"),
    list_newest_first: include_str!("sql/list_topics_newest_first.sql"),
    scan: include_str!("sql/scan_topics.sql"),
};
static ONE_IDENTITY: IndexPath = IndexPath {
    list: include_str!("sql/list_identity.sql"),
    list_newest_first: include_str!("sql/list_identity_newest_first.sql"),
    scan: include_str!("sql/scan_identity.sql"),
};

impl IndexPath {
    fn of(filter: &Filter) -> &'static Self {
        match (&filter.topic, &filter.event_id) {
            (Some(_), Some(_)) => &ONE_IDENTITY,
            (Some(_), None) => &ONE_TOPIC,
            (None, _) if filter.globs.is_all() => &EVERYTHING,
            (None, _) => &SOME_TOPICS,
        }
    }

    /// Binds what the statements of this path have beside the others.
    fn bind<'q>(
        &self,
        query: Query<'q, sqlx::Postgres, PgArguments>,
        filter: &Filter,
    ) -> Query<'q, sqlx::Postgres, PgArguments> {
        if let (Some(topic), Some(event_id)) = (&filter.topic, &filter.event_id) {
            return query.bind(key_of(topic, event_id));
        }
        if filter.topic.is_some() {
            return query;
        }
        let likes = likes(&filter.globs);
        if std::ptr::eq(self, &EVERYTHING) {
            return query.bind(likes);
        }
        let (low, below) = ranges(&filter.globs);
        query
            .bind(low)
            .bind(below)
            .bind(likes)
            .bind(i64::from(MERGED_TOPICS_MAX))
    }
}

/// Lists what is committed.
pub(super) async fn list(pg: &mut Session, list: &List) -> Result<Page, StoreError> {
    let path = IndexPath::of(&list.filter);
    let page = list_by(pg, list, path).await?;
    match page {
        Some(page) => Ok(page),
        // Too many topics to read each of them.
        None => list_by(pg, list, &EVERYTHING)
            .await?
            .ok_or_else(|| decoding(sqlx::Error::RowNotFound)),
    }
}

async fn list_by(pg: &mut Session, list: &List, path: &'static IndexPath) -> Result<Option<Page>, StoreError> {
    let sql = match list.order {
        Order::Ascending => path.list,
        Order::Descending => path.list_newest_first,
    };
    let behind = list.behind.map(|cursor| (cursor.batch(), cursor.position()));
    let (batch, position) = behind.unwrap_or(match list.order {
        Order::Ascending => (-1, 0),
        Order::Descending => (i64::MAX, 0),
    });
    let query = bind(pg.query(sql), &list.filter)
        .bind(batch)
        .bind(position)
        .bind(list.below.unwrap_or(i64::MAX))
        .bind(i64::from(list.limit))
        .bind(i64::try_from(list.offset).unwrap_or(i64::MAX));
    let is_one = list.filter.topic.is_some() && list.filter.event_id.is_some();
    let query = if is_one {
        query
    } else {
        query.bind(
            list.bytes_max
                .and_then(|bytes| i64::try_from(bytes).ok())
                .unwrap_or(i64::MAX),
        )
    };
    let rows = pg
        .fetch_all(path.bind(query, &list.filter))
        .await
        .map_err(failed_to("list events"))?;
    let Some(first) = rows.first() else {
        return Err(decoding(sqlx::Error::RowNotFound));
    };
    let is_cut = !is_one && first.try_get("is_cut").map_err(decoding)?;
    let (events, last_stable) = (stored_events(&rows)?, last_stable(first)?);
    if !std::ptr::eq(path, &SOME_TOPICS) {
        return Ok(Some(list.page(events, is_cut, last_stable)));
    }
    let Some(limit) = page_limit(first)? else {
        return Ok(None);
    };
    let is_cut = is_cut || (limit < i64::from(list.limit) && events.len() as i64 == limit);
    Ok(Some(list.page(events, is_cut, last_stable)))
}

/// How many events a page of some topics has at most; `None`: there are too many topics.
fn page_limit(row: &PgRow) -> Result<Option<i64>, StoreError> {
    let is_many: bool = row.try_get("is_many").map_err(decoding)?;
    let limit = row.try_get("page_limit").map_err(decoding)?;
    Ok((!is_many).then_some(limit))
}

/// Reads on from a cursor, up to the last stable position. `None`: the cursor lies above the end of the log.
pub(super) async fn scan(pg: &mut Session, scan: &Scan) -> Result<Option<Page>, StoreError> {
    let page = scan_once(pg, scan).await?;
    if page.is_some() {
        return Ok(page);
    }
    // A server that was restored or promoted, and that nothing was stored on since: its numbering has not begun anew yet.
    // Whether this transaction or another one has done it by now does not matter.
    pg.fetch_all(pg.query(PREPARE_NUMBERS))
        .await
        .map_err(failed_to("begin the numbering of batches anew"))?;
    scan_once(pg, scan).await
}

async fn scan_once(pg: &mut Session, scan: &Scan) -> Result<Option<Page>, StoreError> {
    let path = IndexPath::of(&scan.filter);
    match scan_by(pg, scan, path).await? {
        Scanned::Page(page) => Ok(Some(page)),
        Scanned::Unknown => Ok(None),
        Scanned::Many => match scan_by(pg, scan, &EVERYTHING).await? {
            Scanned::Page(page) => Ok(Some(page)),
            Scanned::Unknown | Scanned::Many => Ok(None),
        },
    }
}

/// What a statement has found.
enum Scanned {
    Page(Page),
    /// The cursor lies above the end of the log.
    Unknown,
    /// There are too many topics to read each of them.
    Many,
}

async fn scan_by(pg: &mut Session, scan: &Scan, path: &'static IndexPath) -> Result<Scanned, StoreError> {
    let Filter {
        topic,
        globs: _,
        source,
        event_id,
        since,
        until,
    } = &scan.filter;
    let is_by_row = std::ptr::eq(path, &EVERYTHING) && !scan.filter.globs.is_all();
    let is_checked =
        is_by_row || source.is_some() || since.is_some() || until.is_some() || (event_id.is_some() && topic.is_none());
    let limit = i64::from(scan.limit);
    let mut rows_max = if is_checked { limit.max(SCAN_ROWS_MAX) } else { limit };
    let query = bind(pg.query(path.scan), &scan.filter)
        .bind(scan.after.batch())
        .bind(scan.after.position())
        .bind(rows_max)
        .bind(limit)
        .bind(i64::try_from(scan.bytes_max).unwrap_or(i64::MAX));
    let rows = pg
        .fetch_all(path.bind(query, &scan.filter))
        .await
        .map_err(failed_to("read events from a cursor"))?;
    let Some(first) = rows.first() else {
        return Err(decoding(sqlx::Error::RowNotFound));
    };
    if first.try_get("is_unknown").map_err(decoding)? {
        return Ok(Scanned::Unknown);
    }
    if std::ptr::eq(path, &SOME_TOPICS) {
        match page_limit(first)? {
            Some(limit) => rows_max = limit,
            None => return Ok(Scanned::Many),
        }
    }
    let stable = last_stable(first)?;
    let scanned: i64 = first.try_get("scanned").map_err(decoding)?;
    let events = stored_events(&rows)?;
    let is_full = events.len() == scan.limit as usize || first.try_get("is_cut").map_err(decoding)?;
    let next = match (events.last(), scanned_to(first)?) {
        (Some(last), _) if is_full => last.cursor,
        (_, Some(last)) if scanned == rows_max => last,
        _ => stable.max(scan.after),
    };
    Ok(Scanned::Page(Page {
        events,
        next,
        is_last: !is_full && scanned < rows_max,
        is_truncated: first.try_get("is_truncated").map_err(decoding)?,
    }))
}

fn bind<'q>(
    query: Query<'q, sqlx::Postgres, PgArguments>,
    filter: &'q Filter,
) -> Query<'q, sqlx::Postgres, PgArguments> {
    let time = |timestamp: Timestamp| -> DateTime<Utc> { timestamp.into() };
    query
        .bind(filter.topic.as_ref().map(Topic::as_str))
        .bind(filter.event_id.as_ref().map(EventId::as_str))
        .bind(filter.source.as_ref().map(Source::as_str))
        .bind(filter.since.map(time))
        .bind(filter.until.map(time))
}

fn key_of(topic: &Topic, event_id: &EventId) -> Uuid {
    Uuid::from_bytes(IdentityKey::of(topic, event_id).0)
}

/// Looks for an identity.
pub(super) async fn find(pg: &mut Session, (topic, event_id): (&Topic, &EventId)) -> Result<Option<Found>, StoreError> {
    let rows = pg
        .fetch_all(pg.query(FIND).bind(key_of(topic, event_id)))
        .await
        .map_err(failed_to("look for an event"))?;
    let found = |row: &PgRow| {
        Ok(Found {
            first: LogPosition {
                cursor: Cursor::new(row.try_get("first_batch")?, row.try_get("first_position")?),
                received_at: timestamp(row.try_get("first_received")?),
            },
            event: match row.try_get::<Option<i64>, _>("batch")? {
                Some(_) => Some(stored_event(row)?),
                None => None,
            },
        })
    };
    rows.first().map(found).transpose().map_err(decoding)
}

fn last_stable(row: &PgRow) -> Result<Cursor, StoreError> {
    row.try_get("last_stable").map(end_of).map_err(decoding)
}

fn scanned_to(row: &PgRow) -> Result<Option<Cursor>, StoreError> {
    let batch: Option<i64> = row.try_get("scanned_batch").map_err(decoding)?;
    let position: Option<i32> = row.try_get("scanned_position").map_err(decoding)?;
    Ok(batch
        .zip(position)
        .map(|(batch, position)| Cursor::new(batch, position)))
}

/// The events of a page. A page of no events is one row whose event is null.
pub(super) fn stored_events(rows: &[PgRow]) -> Result<Vec<StoredEvent>, StoreError> {
    let has_event = |row: &&PgRow| !matches!(row.try_get::<Option<&str>, _>("topic"), Ok(None));
    rows.iter()
        .filter(has_event)
        .map(stored_event)
        .collect::<Result<_, _>>()
        .map_err(decoding)
}

pub(super) fn stored_event(row: &PgRow) -> Result<StoredEvent, sqlx::Error> {
    let text = |column| row.try_get::<String, _>(column);
    let event = Event {
        topic: Topic::from_stored(text("topic")?),
        event_id: EventId::from_stored(text("event_id")?),
        occurred_at: timestamp(row.try_get("occurred_at")?),
        source: Source::from_stored(text("source")?),
        payload: Payload::from_stored(text("payload")?),
        headers: row.try_get::<Option<String>, _>("headers")?.map(Headers::from_stored),
    };
    let cursor = Cursor::new(row.try_get("batch")?, row.try_get("position")?);
    Ok(StoredEvent {
        event,
        received_at: timestamp(row.try_get("received_at")?),
        cursor,
        trace: None,
    })
}
