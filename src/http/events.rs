//! `GET /events`: lists and walks, as a JSON page, a bare array, or a stream of lines.

pub mod parameters;

use axum::body::{Body, Bytes};
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use futures_util::stream;

use self::parameters::Parameters;
use super::AppState;
use super::docs::answers::ListAnswers;
use super::docs::parameters::ListParameters;
use super::error::ApiError;
use crate::event::{Cursor, Form, StoredEvent, ValidationError, ValidationErrorKind};
use crate::store::{Filter, List, Order, Page, Scan, StoreError};

/// The most events of a page.
pub(super) const LIMIT_MAX: u64 = 1000;
/// The events of a page where no limit is given.
pub(super) const LIMIT_DEFAULT: u32 = 100;
/// The events that a stream of lines reads at a time.
const STREAM_PAGE: u32 = 500;

/// A page of a walk ends earlier than its limit says when its payloads are larger than this: what a slow reader keeps in
/// memory has a bound.
const WALK_BYTES_MAX: usize = 4 << 20;

/// How a page is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Style {
    Object,
    Array,
    Lines,
}

/// What a request asks for.
#[derive(Debug, Clone)]
struct Query {
    filter: Filter,
    order: Order,
    limit: Option<u64>,
    offset: u64,
    after: Option<Cursor>,
    style: Style,
}

/// Lists what is committed, or with `after=` walks over what is settled
///
/// A list shows everything that is committed, also what was just published. A walk shows every event exactly once, in log
/// order, whatever is being committed meanwhile: begin with `after=` and go on with `after=` the last `next`, for ever. A page of
/// a walk may hold fewer events than `limit`, even none. `next` is never null. With `Accept: application/x-ndjson` either is
/// streamed, one event a line.
#[utoipa::path(
    get,
    path = "/events",
    operation_id = "list_events",
    tag = "read",
    params(ListParameters),
    responses(ListAnswers)
)]
pub async fn list(
    State(state): State<AppState>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    state.check_started()?;
    let query = Query::parse(query.as_deref(), &headers).map_err(ApiError::Invalid)?;
    if query.style == Style::Lines {
        return lines(state, query).await;
    }
    let page = query
        .first_page(&state, query.limit.map_or(LIMIT_DEFAULT, small))
        .await?;
    Ok(query.write(&page))
}

impl Query {
    fn parse(query: Option<&str>, headers: &HeaderMap) -> Result<Self, Vec<crate::event::ValidationError>> {
        let mut parameters = Parameters::read(query);
        let filter = Filter {
            topic: parameters.topic(),
            source: parameters.source(),
            event_id: parameters.event_id(),
            since: parameters.time("since"),
            until: parameters.time("until"),
        };
        let accept = headers
            .get(header::ACCEPT)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default();
        let wants_lines = accept
            .split(',')
            .any(|range| range.split(';').next().unwrap_or_default().trim() == NDJSON);
        let format = parameters.word("format", &[("object", Style::Object), ("array", Style::Array)]);
        let style = if wants_lines {
            Style::Lines
        } else {
            format.unwrap_or(Style::Object)
        };
        let limit_max = if wants_lines { u64::MAX } else { LIMIT_MAX };
        let limit = parameters.number("limit", 1, limit_max);
        let offset = parameters.number("offset", 0, u64::MAX);
        let order = parameters.word("order", &[("asc", Order::Ascending), ("desc", Order::Descending)]);
        let after = parameters.after();
        if after.is_some() {
            let not_allowed =
                || ValidationError::new(ValidationErrorKind::NotAllowed, "Not allowed together with 'after'");
            if offset.is_some() {
                parameters.refuse("offset", not_allowed());
            }
            if order == Some(Order::Descending) {
                parameters.refuse("order", not_allowed());
            }
        }
        parameters.finish()?;
        let (order, offset) = (order.unwrap_or_default(), offset.unwrap_or(0));
        Ok(Self {
            filter,
            order,
            limit,
            offset,
            after,
            style,
        })
    }

    async fn first_page(&self, state: &AppState, limit: u32) -> Result<Page, StoreError> {
        match self.after {
            Some(after) => {
                state
                    .store
                    .scan(&Scan {
                        filter: self.filter.clone(),
                        after,
                        limit,
                        bytes_max: WALK_BYTES_MAX,
                    })
                    .await
            }
            None => {
                let (filter, order, offset) = (self.filter.clone(), self.order, self.offset);
                state
                    .store
                    .list(&List {
                        filter,
                        order,
                        offset,
                        limit,
                        ..List::default()
                    })
                    .await
            }
        }
    }

    fn write(&self, page: &Page) -> Response {
        let mut out = Vec::with_capacity(64 + page.events.len() * 512);
        if self.style == Style::Array {
            write_array(&mut out, &page.events);
            let link = format!("<{}>; rel=\"next\"", self.next_url(page.next));
            let link = HeaderValue::from_str(&link).expect("a query string is percent-encoded");
            return ([(header::LINK, link), (header::CONTENT_TYPE, JSON)], out).into_response();
        }
        let topic = self.filter.topic.as_ref().map(|topic| topic.as_str());
        let topic = serde_json::to_string(&topic).expect("a string is always JSON");
        out.extend_from_slice(
            format!(
                r#"{{"status":"success","topic":{topic},"count":{},"events":"#,
                page.events.len()
            )
            .as_bytes(),
        );
        write_array(&mut out, &page.events);
        out.extend_from_slice(format!(r#","next":"{}"}}"#, page.next).as_bytes());
        ([(header::CONTENT_TYPE, JSON)], out).into_response()
    }

    /// Where the walk goes on: the same filters, from `next`.
    fn next_url(&self, next: Cursor) -> String {
        let mut query = form_urlencoded::Serializer::new(String::from("/events?"));
        let filter = &self.filter;
        let parameters = [
            ("topic", filter.topic.as_ref().map(ToString::to_string)),
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

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const NDJSON: &str = "application/x-ndjson";

fn small(limit: u64) -> u32 {
    u32::try_from(limit).unwrap_or(u32::MAX)
}

fn write_array(out: &mut Vec<u8>, events: &[StoredEvent]) {
    out.push(b'[');
    for (index, event) in events.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        event.write_json(out, Form::AsSent);
    }
    out.push(b']');
}

/// Where a stream of lines stands.
struct Lines {
    state: AppState,
    query: Query,
    /// How many lines may still follow; `None`: as many as there are.
    left: Option<u64>,
    /// Of a list: its last event so far, and what was committed when it began. Of a walk: where it goes on, and where it ends.
    at: Option<Cursor>,
    below: i64,
    is_last: bool,
}

/// Streams all events, one a line, page by page: to what was committed when it began (a list), or was settled then (a walk).
/// The first page is read before the answer begins, so that a store that fails is a proper 503.
async fn lines(state: AppState, query: Query) -> Result<Response, ApiError> {
    let settled = state.store.stability().await?;
    let below = if query.after.is_some() {
        settled.last_stable.batch() + 1
    } else {
        settled.committed_below
    };
    let (left, at) = (query.limit, query.after);
    let mut lines = Lines {
        state,
        query,
        left,
        at,
        below,
        is_last: false,
    };
    let first = lines.next_chunk().await?;
    let rest = stream::unfold(Some(lines), async |lines| {
        let mut lines = lines?;
        match lines.next_chunk().await {
            Ok(Some(chunk)) => Some((Ok(chunk), Some(lines))),
            Ok(None) => None,
            // The stream breaks off, which a client can tell from its end: the last chunk is missing.
            Err(error) => Some((Err(std::io::Error::other(error)), None)),
        }
    });
    let first = stream::iter(first.map(Ok));
    let body = Body::from_stream(futures_util::StreamExt::chain(first, rest));
    Ok(([(header::CONTENT_TYPE, HeaderValue::from_static(NDJSON))], body).into_response())
}

impl Lines {
    /// The next lines, some hundred at a time; `None` at the end.
    async fn next_chunk(&mut self) -> Result<Option<Bytes>, StoreError> {
        loop {
            let limit = self
                .left
                .map_or(STREAM_PAGE, |left| small(left.min(u64::from(STREAM_PAGE))));
            if self.is_last || limit == 0 {
                return Ok(None);
            }
            let page = self.read(limit).await?;
            self.is_last = page.is_last;
            self.left = self.left.map(|left| left - page.events.len() as u64);
            let mut out = Vec::new();
            for event in page.events {
                if self.query.after.is_some() && event.cursor.batch() >= self.below {
                    self.is_last = true;
                    break;
                }
                event.write_json(&mut out, Form::OneLine);
                out.push(b'\n');
            }
            if !out.is_empty() {
                return Ok(Some(out.into()));
            }
        }
    }

    async fn read(&mut self, limit: u32) -> Result<Page, StoreError> {
        let filter = self.query.filter.clone();
        if self.query.after.is_some() {
            let after = self.at.unwrap_or(Cursor::BEGINNING);
            let walk = Scan {
                filter,
                after,
                limit,
                bytes_max: WALK_BYTES_MAX,
            };
            let page = self.state.store.scan(&walk).await?;
            self.at = Some(page.next);
            let reached = page.next.batch() >= self.below;
            return Ok(Page {
                is_last: page.is_last || reached,
                ..page
            });
        }
        let is_first = self.at.is_none();
        let list = List {
            filter,
            order: self.query.order,
            offset: if is_first { self.query.offset } else { 0 },
            limit,
            behind: self.at,
            below: Some(self.below),
        };
        let page = self.state.store.list(&list).await?;
        self.at = page.events.last().map(|event| event.cursor).or(self.at);
        Ok(page)
    }
}
