//! What each route answers. Failures are described by [`ApiError`] itself: an answer for each status, an example for each
//! reason.

pub mod observe;
pub mod pages;

use std::collections::BTreeMap;

use axum::http::{HeaderMap, HeaderValue, StatusCode};
use serde_json::{Value, json};
use utoipa::openapi::example::Example;
use utoipa::openapi::extensions::Extensions;
use utoipa::openapi::header::Header;
use utoipa::openapi::response::{Response, ResponseBuilder};
use utoipa::openapi::schema::{Object, Schema};
use utoipa::openapi::{Array, Content, OneOf, Ref, RefOr, Type};
use utoipa::{IntoResponses, ToSchema};

use super::schemas::{Accepted, Faults, Flushed, Lines, Page, Problem, StreamEvent};
use crate::event::{Loc, StoredEvent, ValidationError, ValidationErrorKind};
use crate::http::error::ApiError;
use crate::http::publish::Processed;
use crate::http::request_id::{RequestId, X_REQUEST_ID};
use crate::ingest::SubmitError;

type Answers = BTreeMap<String, RefOr<Response>>;

const JSON: &str = "application/json";
const PROBLEM: &str = "application/problem+json";

/// The id of the request in the examples.
const EXAMPLE_ID: HeaderValue = HeaderValue::from_static("6f0d2e7c-3c1b-4f7e-9a55-0d3a4be1f6c2");

/// A header that is there in every such answer.
pub fn header(about: &str, schema: impl Into<RefOr<Schema>>) -> Header {
    let mut header = Header::builder().description(Some(about)).schema(Some(schema)).build();
    // utoipa has no field for it, and writes extensions out as they are.
    header.extensions = Some(Extensions::from_iter([("required", true)]));
    header
}

fn text() -> Object {
    Object::builder().schema_type(Type::String).build()
}

fn content(schema: impl Into<RefOr<Schema>>, examples: impl IntoIterator<Item = (&'static str, Value)>) -> Content {
    let examples = examples
        .into_iter()
        .map(|(name, value)| (name, Example::builder().value(Some(value)).build()));
    Content::builder()
        .schema(Some(schema))
        .examples_from_iter(examples)
        .build()
}

fn reference<T: ToSchema>() -> Ref {
    Ref::from_schema_name(T::name())
}

/// An answer with JSON of this type.
fn of<T: ToSchema>(about: &str, examples: impl IntoIterator<Item = (&'static str, Value)>) -> ResponseBuilder {
    Response::builder()
        .description(about)
        .content(JSON, content(reference::<T>(), examples))
}

fn retry_after() -> Header {
    let seconds = Object::builder().schema_type(Type::Integer).minimum(Some(1));
    header("After how many seconds to try again.", seconds)
}

/// The answers of failures.
fn failures(reasons: impl IntoIterator<Item = (&'static str, ApiError)>) -> Answers {
    let mut by_status: BTreeMap<StatusCode, Vec<(&'static str, ApiError)>> = BTreeMap::new();
    for (name, failure) in reasons {
        by_status.entry(failure.status()).or_default().push((name, failure));
    }
    let answers = by_status
        .into_iter()
        .map(|(status, reasons)| (status.as_str().to_owned(), failure(status, &reasons).into()));
    answers.collect()
}

fn failure(status: StatusCode, reasons: &[(&'static str, ApiError)]) -> Response {
    let id = RequestId::of(&HeaderMap::from_iter([(X_REQUEST_ID, EXAMPLE_ID)]));
    let example = |(name, failure): &(&'static str, ApiError)| match failure {
        ApiError::Invalid(faults) => (*name, json!({ "detail": faults })),
        failure => (*name, failure.problem(status, &id)),
    };
    let examples: Vec<(&str, Value)> = reasons.iter().map(example).collect();
    let (media_type, schema, about) = match status {
        StatusCode::UNPROCESSABLE_ENTITY => (
            JSON,
            reference::<Faults>(),
            "What was sent breaks rules: nothing was stored, and every fault is listed (the first 100).",
        ),
        _ => (
            PROBLEM,
            reference::<Problem>(),
            status.canonical_reason().unwrap_or_default(),
        ),
    };
    let answer = Response::builder()
        .description(about)
        .content(media_type, content(schema, examples));
    match status {
        StatusCode::SERVICE_UNAVAILABLE => answer.header("retry-after", retry_after()),
        StatusCode::UNSUPPORTED_MEDIA_TYPE => answer.header(
            "accept-encoding",
            Header::builder()
                .description(Some(
                    "The content codings that are understood, where another one was the fault.",
                ))
                .schema(Some(text()))
                .build(),
        ),
        _ => answer,
    }
    .build()
}

fn invalid(kind: ValidationErrorKind, msg: &'static str, loc: &[Loc]) -> (&'static str, ApiError) {
    let faults: Vec<ValidationError> = vec![ValidationError::new(kind, msg).at(loc.to_vec())];
    (kind.as_str(), ApiError::Invalid(faults))
}

fn invalid_query() -> (&'static str, ApiError) {
    let loc = [Loc::Name("query"), Loc::Name("topic")];
    invalid(
        ValidationErrorKind::StringTooShort,
        "String should have at least 1 byte",
        &loc,
    )
}

/// What befalls who reads.
fn read_failures() -> Vec<(&'static str, ApiError)> {
    vec![
        invalid_query(),
        ("internal", ApiError::Internal),
        ("starting", ApiError::STARTING),
        ("unreachable", ApiError::UNREACHABLE),
        ("too_slow", ApiError::TOO_SLOW),
    ]
}

/// The same with the answers of success.
fn with<const N: usize>(mut answers: Answers, successes: [(&str, ResponseBuilder); N]) -> Answers {
    answers.extend(
        successes
            .into_iter()
            .map(|(status, answer)| (status.to_owned(), answer.build().into())),
    );
    answers
}

/// An event as it comes back.
fn stored_event() -> Value {
    json!({
        "topic": "order.created", "event_id": "evt-1", "timestamp": "2025-10-24T10:30:00Z", "source": "shop",
        "payload": { "total": 44.8 }, "received_at": "2025-10-24T10:30:00.25Z", "cursor": "000000000000000700000001"
    })
}

/// Of `POST /publish`.
pub struct PublishAnswers;

impl PublishAnswers {
    fn processed(status: &str, unique: u32) -> Value {
        json!({
            "status": "success", "message": "Processed 1 events",
            "received": 1, "unique_processed": unique, "duplicate_dropped": 1 - unique,
            "details": { "accepted": unique, "rejected": 0, "duplicates_immediate": 1 - unique },
            "results": [{ "index": 0, "topic": "order.created", "event_id": "evt-1", "status": status,
                "cursor": "000000000000000700000001", "received_at": "2025-10-24T10:30:00.25Z" }]
        })
    }

    fn lenient() -> Value {
        json!({
            "status": "success", "message": "Processed 1 events",
            "received": 1, "unique_processed": 1, "duplicate_dropped": 0,
            "details": { "accepted": 1, "rejected": 1, "duplicates_immediate": 0 },
            "results": [{ "index": 1, "status": "rejected", "errors": [
                { "type": "missing", "loc": ["body", 1, "topic"], "msg": "Field required" }] }]
        })
    }

    fn failures() -> Answers {
        let missing = [Loc::Name("body"), Loc::Name("topic")];
        failures([
            ("undecodable", ApiError::Undecodable),
            ("incomplete", ApiError::Incomplete),
            ("timeout", ApiError::BodyTimeout),
            ("too_large", ApiError::TooLarge(10 << 20)),
            ("media_type", ApiError::UnsupportedMediaType),
            ("content_coding", ApiError::UnsupportedCoding),
            invalid(ValidationErrorKind::Missing, "Field required", &missing),
            ("internal", ApiError::Internal),
            ("starting", ApiError::STARTING),
            ("queue_full", SubmitError::Full.into()),
            ("stopping", SubmitError::Stopping.into()),
            ("too_late", SubmitError::TooLate.into()),
            ("outcome_unknown", SubmitError::Unknown.into()),
        ])
    }
}

impl IntoResponses for PublishAnswers {
    fn responses() -> Answers {
        let accepted = json!({ "status": "accepted", "message": "Received 1 event(s) for processing", "received": 1 });
        let applied = Object::builder()
            .schema_type(Type::String)
            .enum_values(Some(["respond-async"]));
        let first = ("stored", Self::processed("stored", 1));
        let again = ("duplicate", Self::processed("duplicate", 0));
        let other = ("conflict", Self::processed("conflict", 0));
        let queued = of::<Accepted>(
            "With `Prefer: respond-async`: valid and queued in memory, not yet durable.",
            [("accepted", accepted)],
        );
        with(
            Self::failures(),
            [
                (
                    "200",
                    of::<Processed>(
                        "Committed, flushed to disk, and counted: every event was a duplicate, or there was none.",
                        [again, other],
                    ),
                ),
                (
                    "201",
                    of::<Processed>(
                        "Committed, flushed to disk, and counted: at least one event was new.",
                        [first, ("lenient", Self::lenient())],
                    ),
                ),
                (
                    "202",
                    queued.header("preference-applied", header("What was honoured.", applied)),
                ),
            ],
        )
    }
}

/// Of `POST /_flush`.
pub struct FlushAnswers;

impl IntoResponses for FlushAnswers {
    fn responses() -> Answers {
        let failures = failures([
            ("internal", ApiError::Internal),
            ("starting", ApiError::STARTING),
            ("too_late", ApiError::NOT_FLUSHED),
        ]);
        let flushed = of::<Flushed>(
            "All that was accepted before is committed and fanned out, or parked in the outbox because Redis is down.",
            [("flushed", json!({ "flushed": 3 }))],
        );
        with(failures, [("200", flushed)])
    }
}

/// Of `GET /events`.
pub struct ListAnswers;

impl IntoResponses for ListAnswers {
    fn responses() -> Answers {
        let cursor = stored_event()["cursor"].clone();
        let page = json!({
            "status": "success", "topic": null, "count": 1, "events": [stored_event()], "next": cursor
        });
        let array = Array::builder().title(Some("Array")).items(reference::<StoredEvent>());
        let body = OneOf::builder().item(reference::<Page>()).item(array);
        let link = Header::builder()
            .description(Some(
                "With `format=array`: where the walk goes on, `<…>; rel=\"next\"`.",
            ))
            .schema(Some(text()));
        let examples = [("object", page), ("array", json!([stored_event()]))];
        let line = Value::from(format!("{}\n", stored_event()));
        let found = Response::builder()
            .description("The events, as an object, an array, or one a line.")
            .content(JSON, content(body, examples))
            .content("application/x-ndjson", content(reference::<Lines>(), [("lines", line)]))
            .header("link", link.build());
        with(failures(read_failures()), [("200", found)])
    }
}

/// Of `GET /events/stream`.
pub struct StreamAnswers;

impl IntoResponses for StreamAnswers {
    fn responses() -> Answers {
        let mut reasons = read_failures();
        reasons.push(("too_many_followers", ApiError::TOO_MANY_SUBSCRIBERS));
        let frame = format!(
            "id: 000000000000000700000001\nevent: event\ndata: {}\n\n",
            stored_event()
        );
        let stream = Response::builder()
            .description("Server-Sent Events, without an end: `id` is the cursor, `data` the event as in `/events`. A comment every 15 seconds.")
            .content("text/event-stream", content(reference::<StreamEvent>(), [("event", Value::from(frame))]));
        with(failures(reasons), [("200", stream)])
    }
}
