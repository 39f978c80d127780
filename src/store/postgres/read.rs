//! Reading back: lists and walks.
//!
//! Which index serves a read is decided here by the statement, not there by a plan: everything, one topic, or one identity
//! ([`Road`]). What else filters is checked row by row.

use std::time::Duration;

use chrono::{DateTime, Utc};
use sqlx::Row;
use sqlx::postgres::{PgArguments, PgConnection, PgRow};
use sqlx::query::Query;

use super::append::timestamp;
use super::error::{decoding, during};
use super::statistics::{edge_cursor, settled};
use crate::event::{Cursor, Event, EventId, Payload, Source, StoredEvent, Timestamp, Topic};
use crate::store::{Filter, List, Order, Page, Scan, StoreError};

/// The query time limit: what a list or a walk's page may take, the wait for its turn included.
pub(super) const LIST_TIMEOUT: Duration = Duration::from_secs(5);

/// How many rows a page of a walk examines at most when a filter matches rarely.
const SCAN_MAX: i64 = 5000;

macro_rules! columns {
    () => {
        "e.topic, e.event_id, e.occurred_at, e.source, e.payload::text as payload, e.received_at, e.batch, e.position"
    };
}
pub(super) use columns;

/// The filters that no index serves. All statements bind $1 topic, $2 event_id, $3 source, $4 since, $5 until.
macro_rules! checks {
    () => {
        "($2::text is null or e.event_id = $2) and ($3::text is null or e.source = $3)
         and ($4::timestamptz is null or e.occurred_at >= $4) and ($5::timestamptz is null or e.occurred_at < $5)"
    };
}

macro_rules! everything {
    () => {
        "$1::text is null"
    };
}

macro_rules! one_topic {
    () => {
        "e.topic = $1"
    };
}

macro_rules! one_identity {
    () => {
        "e.topic = $1 and e.event_id = $2"
    };
}

/// $6, $7: behind this place; $8: below this batch; $9: limit; $10: offset.
macro_rules! list {
    ($road:ident, $compare:literal, $order:literal) => {
        concat!(
            "select s.edge, s.horizon, p.* from ",
            settled!(),
            " s left join lateral (
                select ",
            columns!(),
            " from events e
                where ",
            $road!(),
            " and ",
            checks!(),
            "
                  and (e.batch, e.position) ",
            $compare,
            " ($6::bigint, $7::int) and e.batch < $8::bigint
                order by e.batch ",
            $order,
            ", e.position ",
            $order,
            " limit $9::bigint offset $10::bigint
            ) p on true order by p.batch ",
            $order,
            ", p.position ",
            $order
        )
    };
}

/// Two common table expressions that end a page of the rows `examined` before its payloads exceed `$max` bytes, so that
/// the server does not send what would be thrown away. `x` counts the rows, and tells whether they fit as a whole: what is
/// not compressed has its size beside it, and a page of small events costs no more than that look. `cut` is the first place
/// of `$page` that is out (a place beyond all if there is none); it is computed where it is asked for, reads payloads one by
/// one, and none behind the cut.
macro_rules! cut {
    ($page:expr, $max:literal) => {
        concat!(
            "x as materialized (
                select count(*) as scanned,
                       coalesce(sum(pg_column_size(payload)), 0) <= ",
            $max,
            "::bigint and count(pg_column_compression(payload)) = 0 as fits
                from examined
            ), cut as materialized (
                select coalesce(k.batch, 9223372036854775807) as batch, coalesce(k.position, 0) as position
                from (select) one left join (
                    select k.batch, k.position from (
                        select e.batch, e.position, row_number() over w as number,
                               sum(octet_length(e.payload::text)) over w as bytes
                        from (",
            $page,
            ") e window w as (order by e.batch, e.position rows unbounded preceding)
                    ) k
                    where k.number > 1 and k.bytes > ",
            $max,
            "::bigint order by k.batch, k.position limit 1
                ) k on true
            )"
        )
    };
}
pub(super) use cut;

/// Whether the row `e` is before the cut.
macro_rules! before_cut {
    () => {
        "case when (select fits from x) then true
              else (e.batch, e.position) < (select batch, position from cut) end"
    };
}
pub(super) use before_cut;

/// Whether anything is behind the cut.
macro_rules! is_cut {
    () => {
        "case when x.fits then false else (select batch from cut) < 9223372036854775807 end as is_cut"
    };
}
pub(super) use is_cut;

/// $6, $7: after this place; $8: rows to examine; $9: limit; $10: bytes. The columns `scanned_*` tell how far the page looked.
macro_rules! walk {
    ($road:ident) => {
        concat!(
            "with s as ", settled!(), ", examined as materialized (
                select e.* from events e
                where ", $road!(), " and (e.batch, e.position) > ($6::bigint, $7::int) and e.batch < (select edge from s)
                order by e.batch, e.position limit $8::bigint
            ), ", cut!(concat!("select e.* from examined e where ", checks!(), " order by e.batch, e.position limit $9::bigint"), "$10"), "
            select s.edge, s.horizon, x.scanned, ", is_cut!(), ",
                   l.batch as scanned_batch, l.position as scanned_position, p.*
            from s cross join x
                left join (select batch, position from examined order by batch desc, position desc limit 1) l on true
                left join (
                    select ", columns!(), " from examined e where ", checks!(), " and ", before_cut!(), "
                    order by e.batch, e.position limit $9::bigint
                ) p on true
            order by p.batch, p.position"
        )
    };
}

const LIST_ALL: &str = list!(everything, ">", "asc");
const LIST_ALL_NEWEST: &str = list!(everything, "<", "desc");
const LIST_TOPIC: &str = list!(one_topic, ">", "asc");
const LIST_TOPIC_NEWEST: &str = list!(one_topic, "<", "desc");
const LIST_IDENTITY: &str = list!(one_identity, ">", "asc");
const LIST_IDENTITY_NEWEST: &str = list!(one_identity, "<", "desc");
const WALK_ALL: &str = walk!(everything);
const WALK_TOPIC: &str = walk!(one_topic);
const WALK_IDENTITY: &str = walk!(one_identity);

/// The index that serves a read.
enum Road {
    Everything,
    Topic,
    Identity,
}

impl Road {
    fn of(filter: &Filter) -> Self {
        match (&filter.topic, &filter.event_id) {
            (Some(_), Some(_)) => Road::Identity,
            (Some(_), None) => Road::Topic,
            (None, _) => Road::Everything,
        }
    }
}

/// Lists what is committed.
pub(super) async fn list(pg: &mut PgConnection, list: &List) -> Result<Page, StoreError> {
    let sql = match (Road::of(&list.filter), list.order) {
        (Road::Everything, Order::Ascending) => LIST_ALL,
        (Road::Everything, Order::Descending) => LIST_ALL_NEWEST,
        (Road::Topic, Order::Ascending) => LIST_TOPIC,
        (Road::Topic, Order::Descending) => LIST_TOPIC_NEWEST,
        (Road::Identity, Order::Ascending) => LIST_IDENTITY,
        (Road::Identity, Order::Descending) => LIST_IDENTITY_NEWEST,
    };
    let behind = list.behind.map(|cursor| (cursor.batch(), cursor.position()));
    let (batch, position) = behind.unwrap_or(match list.order {
        Order::Ascending => (-1, 0),
        Order::Descending => (i64::MAX, 0),
    });
    let rows = bind(sqlx::query(sql), &list.filter)
        .bind(batch)
        .bind(position)
        .bind(list.below.unwrap_or(i64::MAX))
        .bind(i64::from(list.limit))
        .bind(i64::try_from(list.offset).unwrap_or(i64::MAX))
        .fetch_all(pg)
        .await
        .map_err(during("listing events"))?;
    let edge = rows.first().map(edge).transpose()?.unwrap_or(Cursor::BEGINNING);
    // What came after a long list began is not in it, and a walk from its `next` must not pass it over.
    let edge = list.below.map_or(edge, |below| edge.min(edge_cursor(below)));
    let events = stored_events(&rows)?;
    let is_last = events.len() < list.limit as usize;
    let next = match (list.order, events.last()) {
        (Order::Ascending, Some(last)) if !is_last => last.cursor.min(edge),
        _ => edge,
    };
    Ok(Page { events, next, is_last })
}

/// Walks over what is settled.
pub(super) async fn scan(pg: &mut PgConnection, walk: &Scan) -> Result<Page, StoreError> {
    let sql = match Road::of(&walk.filter) {
        Road::Everything => WALK_ALL,
        Road::Topic => WALK_TOPIC,
        Road::Identity => WALK_IDENTITY,
    };
    let Filter {
        topic,
        source,
        event_id,
        since,
        until,
    } = &walk.filter;
    let is_checked = source.is_some() || since.is_some() || until.is_some() || (event_id.is_some() && topic.is_none());
    let limit = i64::from(walk.limit);
    let scan = if is_checked { limit.max(SCAN_MAX) } else { limit };
    let rows = bind(sqlx::query(sql), &walk.filter)
        .bind(walk.after.batch())
        .bind(walk.after.position())
        .bind(scan)
        .bind(limit)
        .bind(i64::try_from(walk.bytes_max).unwrap_or(i64::MAX))
        .fetch_all(pg)
        .await
        .map_err(during("walking over events"))?;
    let Some(first) = rows.first() else {
        return Ok(Page {
            events: Vec::new(),
            next: walk.after,
            is_last: true,
        });
    };
    let edge = edge(first)?;
    let scanned: i64 = first.try_get("scanned").map_err(decoding)?;
    let events = stored_events(&rows)?;
    let is_full = events.len() == walk.limit as usize || first.try_get("is_cut").map_err(decoding)?;
    let next = match (events.last(), scanned_to(first)?) {
        (Some(last), _) if is_full => last.cursor,
        (_, Some(last)) if scanned == scan => last,
        _ => edge.max(walk.after),
    };
    Ok(Page {
        events,
        next,
        is_last: !is_full && scanned < scan,
    })
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

fn edge(row: &PgRow) -> Result<Cursor, StoreError> {
    row.try_get("edge").map(edge_cursor).map_err(decoding)
}

fn scanned_to(row: &PgRow) -> Result<Option<Cursor>, StoreError> {
    let batch: Option<i64> = row.try_get("scanned_batch").map_err(decoding)?;
    let position: Option<i32> = row.try_get("scanned_position").map_err(decoding)?;
    Ok(batch
        .zip(position)
        .map(|(batch, position)| Cursor::new(batch, position)))
}

/// The events of a page. A page of none is one row whose event is null.
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
    };
    let cursor = Cursor::new(row.try_get("batch")?, row.try_get("position")?);
    Ok(StoredEvent {
        event,
        received_at: timestamp(row.try_get("received_at")?),
        cursor,
        trace: None,
    })
}
