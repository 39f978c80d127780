//! A request of `GET /events`: its parameters, and the query of the store that they stand for.

use axum::http::{HeaderMap, HeaderName, HeaderValue, header};

use crate::api::events::LIMIT_MAX;
use crate::event::{
    Cursor, HEADERS_BYTES_MAX, NAME_BYTES_MAX, PAYLOAD_BYTES_MAX, Topic, ValidationError, ValidationErrorKind,
};
use crate::http::guard::visible;
use crate::http::prefix::Prefix;
use crate::http::query::Query;
use crate::principals::Principal;
use crate::store::{EventReader, Filter, List, Order, Page, Scan, ScanError, Turn};

/// The media type of a stream of lines.
pub(super) const NDJSON: &str = "application/x-ndjson";

/// Says where the body has no place for it that events after the cursor are gone.
pub(super) const TRUNCATED: (HeaderName, HeaderValue) = (
    HeaderName::from_static("eventsieve-truncated"),
    HeaderValue::from_static("true"),
);

/// A page ends before its limit when its payloads and headers are larger than this, so that a slow reader holds a bounded amount of
/// memory.
const PAGE_BYTES_MAX: usize = 4 << 20;

/// The most bytes of a page of so many events as JSON.
pub(in crate::http) fn page_bytes_max(events: u32) -> usize {
    let events = events as usize;
    PAGE_BYTES_MAX.min(events * (PAYLOAD_BYTES_MAX + HEADERS_BYTES_MAX)) + events * OTHER_BYTES
}

/// The most bytes of an event beside its payload and headers: three names, of which each byte may have an escape, two times, the cursor.
pub(in crate::http) const OTHER_BYTES: usize = 6 * NAME_BYTES_MAX + 256;

/// The largest offset: the store reads what it skips. Cursor reads go further.
pub(in crate::http) const OFFSET_MAX: u64 = 10_000;

/// How a page is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    Object,
    Array,
    Lines,
}

/// The parameters of a request.
#[derive(Debug, Clone)]
pub(super) struct ReadRequest {
    /// The topic that was asked for, whether it exists for the principal or not.
    pub(super) topic: Option<Topic>,
    /// What is read.
    pub(super) filter: Filter,
    pub(super) order: Order,
    pub(super) limit: Option<u64>,
    pub(super) offset: u64,
    pub(super) after: Option<Cursor>,
    pub(super) style: Style,
}

impl ReadRequest {
    pub(super) fn parse(
        who: &Principal,
        query: Option<&str>,
        headers: &HeaderMap,
    ) -> Result<Self, Vec<ValidationError>> {
        let mut query = Query::read(query);
        let asked = query.topic();
        let (topic, globs) = visible(asked.clone(), who);
        let filter = Filter {
            topic,
            globs,
            source: query.source(),
            event_id: query.event_id(),
            since: query.time("since"),
            until: query.time("until"),
        };
        let wants_lines = accepts_lines(headers);
        let format = query.word("format", &[("object", Style::Object), ("array", Style::Array)]);
        let style = if wants_lines {
            Style::Lines
        } else {
            format.unwrap_or(Style::Object)
        };
        let limit_max = if wants_lines { u64::MAX } else { LIMIT_MAX.into() };
        let limit = query.number("limit", 1, limit_max);
        let offset = query.number("offset", 0, OFFSET_MAX);
        let order = query.word("order", &[("asc", Order::Ascending), ("desc", Order::Descending)]);
        let after = query.after();
        if after.is_some() {
            let not_allowed =
                || ValidationError::new(ValidationErrorKind::NotAllowed, "Not allowed together with 'after'");
            if offset.is_some() {
                query.reject("offset", not_allowed());
            }
            if order == Some(Order::Descending) {
                query.reject("order", not_allowed());
            }
        }
        query.finish()?;
        let (order, offset) = (order.unwrap_or_default(), offset.unwrap_or(0));
        Ok(Self {
            topic: asked,
            filter,
            order,
            limit,
            offset,
            after,
            style,
        })
    }

    /// Reads the first page, of at most `limit` events.
    pub(super) async fn first_page(&self, store: &dyn EventReader, limit: u32) -> Result<Page, ScanError> {
        match self.after {
            Some(after) => {
                let scan = Scan {
                    filter: self.filter.clone(),
                    after,
                    limit,
                    bytes_max: PAGE_BYTES_MAX,
                    turn: Turn::Client,
                };
                store.scan(&scan).await
            }
            None => {
                let list = List {
                    filter: self.filter.clone(),
                    order: self.order,
                    offset: self.offset,
                    limit,
                    bytes_max: Some(PAGE_BYTES_MAX),
                    ..List::default()
                };
                Ok(store.list(&list).await?)
            }
        }
    }

    /// The relative URL of the next page: the same filters, from `next`.
    pub(super) fn next_url(&self, prefix: &Prefix, next: Cursor) -> String {
        let mut query = form_urlencoded::Serializer::new(format!("{}/events?", prefix.as_str()));
        let filter = &self.filter;
        let parameters = [
            ("topic", self.topic.as_ref().map(ToString::to_string)),
            ("source", filter.source.as_ref().map(ToString::to_string)),
            ("event_id", filter.event_id.as_ref().map(ToString::to_string)),
            ("since", filter.since.map(|time| time.to_string())),
            ("until", filter.until.map(|time| time.to_string())),
            ("limit", self.limit.map(|limit| limit.to_string())),
            ("format", Some("array".to_owned())),
            ("after", Some(next.to_string())),
        ];
        for (name, value) in parameters {
            if let Some(value) = value {
                query.append_pair(name, &value);
            }
        }
        query.finish().replacen("?&", "?", 1)
    }
}

/// Whether the client prefers lines.
fn accepts_lines(headers: &HeaderMap) -> bool {
    let accept = headers
        .get(header::ACCEPT)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    accept
        .split(',')
        .any(|range| range.split(';').next().unwrap_or_default().trim() == NDJSON)
}

/// The limit of a page: there is no larger one.
pub(super) fn saturating(limit: u64) -> u32 {
    u32::try_from(limit).unwrap_or(u32::MAX)
}
