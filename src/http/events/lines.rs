//! Events as a stream of lines, read from the store page by page.

use axum::body::{Body, Bytes};
use axum::http::{HeaderValue, header};
use axum::response::{AppendHeaders, IntoResponse, Response};
use futures_util::stream;

use super::request::{NDJSON, ReadRequest, TRUNCATED, saturating};
use crate::api::events::{Form, StoredEvent};
use crate::event::Cursor;
use crate::http::error::ApiError;
use crate::http::state::AppState;
use crate::principals::Principal;
use crate::store::{List, Page, Scan, ScanError, Turn};

/// The events that are read at a time, at most.
const PAGE_EVENTS: u32 = 500;

/// The bytes of payloads and headers that are read at a time, if they are more than one event.
const PAGE_BYTES: usize = 512 << 10;

/// The room for one chunk: that of the lines, and of the events that they are made from.
const CHUNK_ROOM: usize = 2 * PAGE_BYTES;

/// The state of a stream of lines.
struct Lines {
    state: AppState,
    who: Principal,
    request: ReadRequest,
    /// How many lines may still follow; `None`: no limit.
    left: Option<u64>,
    /// Of a list: its last event so far. Of a cursor read: where it continues.
    at: Option<Cursor>,
    /// The stream ends before this batch.
    below: i64,
    is_last: bool,
    /// Whether events after the cursor are gone.
    is_truncated: bool,
}

/// Streams all events, one per line. A list ends with what was committed when it began, a cursor read with what was stable then.
/// The first page is read before the answer begins, so that an error of the store is answered with a proper 503.
pub(super) async fn answer(state: AppState, who: Principal, request: ReadRequest) -> Result<Response, ApiError> {
    let stability = state.store.stability().await?;
    let below = if request.after.is_some() {
        stability.last_stable.batch() + 1
    } else {
        stability.committed_below
    };
    let (left, at) = (request.limit, request.after);
    let mut lines = Lines {
        state,
        who,
        request,
        left,
        at,
        below,
        is_last: false,
        is_truncated: false,
    };
    let first = lines.next_chunk().await?;
    let truncated = lines.is_truncated.then_some(TRUNCATED);
    let rest = stream::unfold(Some(lines), async |lines| {
        let mut lines = lines?;
        match lines.next_chunk().await {
            Ok(Some(chunk)) => Some((Ok(chunk), Some(lines))),
            Ok(None) => None,
            // The answer breaks off without its last chunk, which a client can tell from its end.
            Err(error) => {
                tracing::debug!(status = %error.status(), "a stream of lines breaks off");
                Some((Err(std::io::Error::other("the events could not be read")), None))
            }
        }
    });
    let first = stream::iter(first.map(Ok));
    let body = Body::from_stream(futures_util::StreamExt::chain(first, rest));
    let content_type = (header::CONTENT_TYPE, HeaderValue::from_static(NDJSON));
    Ok(([content_type], AppendHeaders(truncated), body).into_response())
}

impl Lines {
    /// The next lines, some hundred at a time; `None` at the end. Waits for room, which the chunk keeps until it is written.
    async fn next_chunk(&mut self) -> Result<Option<Bytes>, ApiError> {
        let room = self.state.answers.room(CHUNK_ROOM).await?;
        if !self.state.principals.is_current(&self.who) {
            return Err(ApiError::Unauthenticated);
        }
        loop {
            let limit = self
                .left
                .map_or(PAGE_EVENTS, |left| saturating(left.min(u64::from(PAGE_EVENTS))));
            if self.is_last || limit == 0 {
                return Ok(None);
            }
            let page = self.read(limit).await?;
            self.is_last = page.is_last;
            self.left = self.left.map(|left| left - page.events.len() as u64);
            let mut out = Vec::new();
            for event in page.events {
                if self.request.after.is_some() && event.cursor.batch() >= self.below {
                    self.is_last = true;
                    break;
                }
                StoredEvent::of(&event, Form::OneLine).write_json(&mut out);
                out.push(b'\n');
            }
            if !out.is_empty() {
                return Ok(Some(room.hold(out)));
            }
        }
    }

    async fn read(&mut self, limit: u32) -> Result<Page, ScanError> {
        let filter = self.request.filter.clone();
        if self.request.after.is_some() {
            let after = self.at.unwrap_or(Cursor::BEGINNING);
            let scan = Scan {
                filter,
                after,
                limit,
                bytes_max: PAGE_BYTES,
                turn: Turn::Client,
            };
            let page = self.state.store.scan(&scan).await?;
            self.at = Some(page.next);
            self.is_truncated |= page.is_truncated;
            let reached = page.next.batch() >= self.below;
            return Ok(Page {
                is_last: page.is_last || reached,
                ..page
            });
        }
        let is_first = self.at.is_none();
        let list = List {
            filter,
            order: self.request.order,
            offset: if is_first { self.request.offset } else { 0 },
            limit,
            bytes_max: Some(PAGE_BYTES),
            behind: self.at,
            below: Some(self.below),
        };
        let page = self.state.store.list(&list).await?;
        self.at = page.events.last().map(|event| event.cursor).or(self.at);
        Ok(page)
    }
}
