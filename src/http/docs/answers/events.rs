//! The answers of `GET /events` and `GET /events/stream`.

use serde_json::{Value, json};
use utoipa::IntoResponses;
use utoipa::openapi::header::Header;
use utoipa::openapi::response::Response;
use utoipa::openapi::{Array, OneOf};

use super::{Answers, JSON, content, errors, read_errors, reference, text, with};
use crate::api::events::{Lines, Page, PageStatus, StoredEvent, StreamEvent};
use crate::http::docs::examples::stored_event;
use crate::http::error::ApiError;

/// The answers of `GET /events`.
pub(in crate::http) struct ListAnswers;

impl IntoResponses for ListAnswers {
    fn responses() -> Answers {
        let event = stored_event();
        let line = Value::from(format!("{}\n", json!(event)));
        let array = json!([event]);
        let page = json!(Page {
            status: PageStatus::Success,
            topic: None,
            count: 1,
            next: event.cursor,
            truncated: false,
            events: vec![event],
        });
        let bare = Array::builder()
            .title(Some("Array"))
            .items(reference::<StoredEvent<'_>>());
        let body = OneOf::builder().item(reference::<Page<'_, ()>>()).item(bare);
        let link = Header::builder()
            .description(Some("With `format=array`: where to continue, `<…>; rel=\"next\"`."))
            .schema(Some(text()));
        let truncated = Header::builder()
            .description(Some(
                "`true` where events after the cursor are gone, with `format=array` and NDJSON.",
            ))
            .schema(Some(text()));
        let found = Response::builder()
            .description("The events, as an object, as an array, or one per line.")
            .content(JSON, content(body, [("object", page), ("array", array)]))
            .content("application/x-ndjson", content(reference::<Lines>(), [("lines", line)]))
            .header("link", link.build())
            .header("eventsieve-truncated", truncated.build());
        let mut reasons = read_errors();
        reasons.push(("cursor_unknown", ApiError::CursorUnknown));
        with(errors(reasons), [("200", found)])
    }
}

/// The answers of `GET /events/stream`.
pub(in crate::http) struct StreamAnswers;

impl IntoResponses for StreamAnswers {
    fn responses() -> Answers {
        let mut reasons = read_errors();
        reasons.push(("too_many_subscribers", ApiError::TOO_MANY_SUBSCRIBERS));
        let event = stored_event();
        let frame = format!("id: {}\ndata: {}\n\n", event.cursor, json!(event));
        let stream = Response::builder()
            .description("Server-Sent Events without an end: `id` is the cursor, `data` the event as in `/events`. A comment every 15 seconds. A frame `event: truncated` says that events after the cursor are gone; `event: cursor_unknown` that the log has not given out the cursor, and it is the last.")
            .content("text/event-stream", content(reference::<StreamEvent>(), [("event", frame)]));
        with(errors(reasons), [("200", stream)])
    }
}
