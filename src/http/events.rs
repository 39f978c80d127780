//! `GET /events`: lists and cursor reads, as a JSON page, a bare array, or a stream of lines.

mod lines;
mod request;

use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{AppendHeaders, IntoResponse, Response};

pub(super) use self::request::{OFFSET_MAX, OTHER_BYTES, page_bytes_max};
use self::request::{ReadRequest, Style, TRUNCATED};
use super::docs::answers::events::ListAnswers;
use super::docs::parameters::ListParameters;
use super::error::ApiError;
use super::guard::{self, May};
use super::prefix::Prefix;
use super::room::Room;
use super::state::AppState;
use crate::api::events::{Form, LIMIT_DEFAULT, Page, PageStatus, StoredEvent};
use crate::store;

/// List events, or read on from a cursor
///
/// Without `after` it is a list: everything that is committed, including what was just published. With `after` it is a cursor
/// read: every event exactly once, in log order, whatever is being committed meanwhile. Begin with an empty `after`, and continue
/// with the `next` of the last page, as long as you like. A page of a cursor read may hold fewer events than `limit`, even none.
/// `next` is never null. A page with `truncated` says that events after its cursor are gone; a cursor that this log has not given out
/// is answered with 410. With `Accept: application/x-ndjson` either is streamed, one event per line.
#[utoipa::path(
    get,
    path = "/events",
    operation_id = "listEvents",
    tag = "read",
    params(ListParameters),
    responses(ListAnswers)
)]
pub(super) async fn list(
    May { who, .. }: May<guard::Read>,
    State(state): State<AppState>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    prefix: Prefix,
) -> Result<Response, ApiError> {
    state.check_started()?;
    let request = ReadRequest::parse(&who, query.as_deref(), &headers).map_err(ApiError::Invalid)?;
    if request.style == Style::Lines {
        return lines::answer(state, who, request).await;
    }
    let limit = request.limit.map_or(LIMIT_DEFAULT, request::saturating);
    let room = state.answers.room(request::page_bytes_max(limit)).await?;
    let page = request.first_page(&*state.store, limit).await?;
    Ok(answer(&request, &page, &prefix, room))
}

fn answer(request: &ReadRequest, page: &store::Page, prefix: &Prefix, room: Room) -> Response {
    const JSON: (header::HeaderName, HeaderValue) =
        (header::CONTENT_TYPE, HeaderValue::from_static("application/json"));

    let payloads: usize = page.events.iter().map(|event| event.event.payload.as_str().len()).sum();
    let mut out = Vec::with_capacity(64 + page.events.len() * 512 + payloads);
    let events: Vec<StoredEvent<'_>> = page
        .events
        .iter()
        .map(|event| StoredEvent::of(event, Form::AsSent))
        .collect();
    if request.style == Style::Array {
        StoredEvent::write_json_array(&events, &mut out);
        let link = format!("<{}>; rel=\"next\"", request.next_url(prefix, page.next));
        let link = HeaderValue::from_str(&link).expect("a prefix is plain, and a query string is percent-encoded");
        let truncated = page.is_truncated.then_some(TRUNCATED);
        return ([(header::LINK, link), JSON], AppendHeaders(truncated), room.hold(out)).into_response();
    }
    let page = Page {
        status: PageStatus::Success,
        topic: request.topic.as_ref().map(|topic| topic.as_str().into()),
        count: events.len(),
        events,
        next: page.next,
        truncated: page.is_truncated,
    };
    page.write_json(&mut out);
    ([JSON], room.hold(out)).into_response()
}
