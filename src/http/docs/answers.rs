//! What each route answers. Failures are described by [`Failure`] itself: an answer for each status, an example for each
//! reason.

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

use super::schemas::{
    Accepted, Alive, Faults, Flushed, Health, History, Lines, Page, Probe, Problem, Stats, StreamEvent,
};
use crate::event::{Breach, Fault, FaultKind, Loc, StoredEvent};
use crate::http::error::Failure;
use crate::http::publish::Processed;
use crate::http::request_id::{RequestId, X_REQUEST_ID};
use crate::ingest::SubmitError;

type Answers = BTreeMap<String, RefOr<Response>>;

const JSON: &str = "application/json";
const PROBLEM: &str = "application/problem+json";
const HTML: &str = "text/html";

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
fn failures(reasons: impl IntoIterator<Item = (&'static str, Failure)>) -> Answers {
    let mut by_status: BTreeMap<StatusCode, Vec<(&'static str, Failure)>> = BTreeMap::new();
    for (name, failure) in reasons {
        by_status.entry(failure.status()).or_default().push((name, failure));
    }
    let answers = by_status
        .into_iter()
        .map(|(status, reasons)| (status.as_str().to_owned(), failure(status, &reasons).into()));
    answers.collect()
}

fn failure(status: StatusCode, reasons: &[(&'static str, Failure)]) -> Response {
    let id = RequestId::of(&HeaderMap::from_iter([(X_REQUEST_ID, EXAMPLE_ID)]));
    let example = |(name, failure): &(&'static str, Failure)| match failure {
        Failure::Invalid(faults) => (*name, json!({ "detail": faults })),
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

fn invalid(kind: FaultKind, msg: &'static str, loc: &[Loc]) -> (&'static str, Failure) {
    let faults: Vec<Fault> = vec![Breach::new(kind, msg).at(loc.to_vec())];
    (kind.as_str(), Failure::Invalid(faults))
}

fn invalid_query() -> (&'static str, Failure) {
    let loc = [Loc::Name("query"), Loc::Name("topic")];
    invalid(FaultKind::StringTooShort, "String should have at least 1 byte", &loc)
}

/// What befalls who reads.
fn read_failures() -> Vec<(&'static str, Failure)> {
    vec![
        invalid_query(),
        ("internal", Failure::Internal),
        ("starting", Failure::STARTING),
        ("unreachable", Failure::UNREACHABLE),
        ("too_slow", Failure::TOO_SLOW),
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
            ("undecodable", Failure::Undecodable),
            ("incomplete", Failure::Incomplete),
            ("timeout", Failure::BodyTimeout),
            ("too_large", Failure::TooLarge(10 << 20)),
            ("media_type", Failure::UnsupportedMediaType),
            ("content_coding", Failure::UnsupportedCoding),
            invalid(FaultKind::Missing, "Field required", &missing),
            ("internal", Failure::Internal),
            ("starting", Failure::STARTING),
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
            ("internal", Failure::Internal),
            ("starting", Failure::STARTING),
            ("too_late", Failure::NOT_FLUSHED),
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
        reasons.push(("too_many_followers", Failure::TOO_MANY_FOLLOWERS));
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

/// Of `GET /stats`.
pub struct StatsAnswers;

impl IntoResponses for StatsAnswers {
    fn responses() -> Answers {
        let counts = json!({ "received": 4, "unique_processed": 2, "duplicate_dropped": 2, "conflicts": 1 });
        let figures = json!({
            "received": 20000, "unique_processed": 14000, "duplicate_dropped": 6000, "conflicts": 0,
            "topics": { "order.created": 7000, "user.login": 7000 }, "topic_count": 2,
            "uptime": 123.45, "uptime_seconds": 123.45,
            "uptime_stats": { "received": 20000, "unique_processed": 14000, "duplicate_dropped": 6000, "rejected": 0 },
            "database_total_rows": 14000,
            "performance": { "events_per_second": 0.0, "commit_latency_ms": { "p50": 1.5, "p99": 6.0 }, "duplicate_rate": 0.3 },
            "queue": { "events": 0, "capacity": 100_000 },
            "outbox": { "batches": 0, "oldest_seconds": 0.0, "parked": 0 },
            "log": { "unsettled_seconds": 0.0 }, "store": "postgres", "fanout": "redis"
        });
        let found = of::<Stats>("The figures.", [("all", figures), ("topic", counts)]);
        with(failures(read_failures()), [("200", found)])
    }
}

/// Of `GET /stats/history`.
pub struct HistoryAnswers;

impl IntoResponses for HistoryAnswers {
    fn responses() -> Answers {
        let loc = [Loc::Name("query"), Loc::Name("window")];
        let form = "Input should be a length of time such as 60s or 5m";
        let failures = failures([invalid(FaultKind::StringPatternMismatch, form, &loc)]);
        let point =
            json!({ "at": "2025-10-24T10:30:00Z", "received": 3, "unique_processed": 2, "duplicate_dropped": 1 });
        let example = json!({ "interval_seconds": 1, "points": [point] });
        let found = of::<History>("The last 15 minutes of this process.", [("history", example)]);
        with(failures, [("200", found)])
    }
}

/// Of `GET /`.
pub struct RootAnswers;

impl IntoResponses for RootAnswers {
    fn responses() -> Answers {
        let alive = json!({ "service": "eventsieve", "status": "alive", "version": env!("CARGO_PKG_VERSION") });
        let answer = of::<Alive>("It is there.", [("alive", alive)]).content(HTML, content(text(), []));
        with_not_modified(with(Answers::new(), [("200", answer)]))
    }
}

/// The same for a browser that may have the page or file already.
fn with_not_modified(answers: Answers) -> Answers {
    let unchanged = Response::builder().description("With `If-None-Match`: the browser's copy is still good.");
    with(answers, [("304", unchanged)])
}

/// Of `GET /health` and `/healthz`.
pub struct HealthAnswers;

impl IntoResponses for HealthAnswers {
    fn responses() -> Answers {
        let health = |status, store, fanout| json!({ "status": status, "store": store, "fanout": fanout });
        let up = json!({ "kind": "redis", "status": "up" });
        let store = json!({ "kind": "postgres", "status": "up", "unsettled_seconds": 0.0 });
        let down = json!({ "kind": "postgres", "status": "down", "unsettled_seconds": 0.0, "reason": "The store cannot be reached." });
        let aside = json!({ "kind": "redis", "status": "down", "reason": "Redis cannot be reached." });
        let well = [
            ("healthy", health("healthy", store.clone(), up.clone())),
            ("degraded", health("degraded", store, aside)),
        ];
        let unhealthy = of::<Health>(
            "Publishing cannot succeed: the store is down.",
            [("unhealthy", health("unhealthy", down, up))],
        );
        let answers = [
            ("200", of::<Health>("Publishing can succeed.", well)),
            ("503", unhealthy.header("retry-after", retry_after())),
        ];
        with(Answers::new(), answers)
    }
}

/// Of `GET /livez`.
pub struct LiveAnswers;

impl IntoResponses for LiveAnswers {
    fn responses() -> Answers {
        let alive = of::<Probe>("The process runs.", [("alive", json!({ "status": "alive" }))]);
        with(Answers::new(), [("200", alive)])
    }
}

/// Of `GET /readyz`.
pub struct ReadyAnswers;

impl IntoResponses for ReadyAnswers {
    fn responses() -> Answers {
        let ready = of::<Probe>("Publishing can succeed.", [("ready", json!({ "status": "ready" }))]);
        let failures = failures([("starting", Failure::STARTING), ("unreachable", Failure::UNREACHABLE)]);
        with(failures, [("200", ready)])
    }
}

/// Of `GET /metrics`.
pub struct MetricsAnswers;

impl IntoResponses for MetricsAnswers {
    fn responses() -> Answers {
        let example = "# TYPE eventsieve_events_total counter\neventsieve_events_total{verdict=\"stored\"} 14000\n";
        let metrics = Response::builder()
            .description("What this process counts, in Prometheus' text format.")
            .content("text/plain", content(text(), [("metrics", Value::from(example))]));
        with(Answers::new(), [("200", metrics)])
    }
}

/// Of a page for people.
pub struct PageAnswers;

impl IntoResponses for PageAnswers {
    fn responses() -> Answers {
        let page = Response::builder()
            .description("The page.")
            .content(HTML, content(text(), []));
        with(Answers::new(), [("200", page)])
    }
}

/// Of `GET /dashboard`.
pub struct DashboardAnswers;

impl IntoResponses for DashboardAnswers {
    fn responses() -> Answers {
        with_not_modified(PageAnswers::responses())
    }
}

/// Of `GET /dashboard/{file}`.
pub struct DashboardFileAnswers;

impl IntoResponses for DashboardFileAnswers {
    fn responses() -> Answers {
        with_not_modified(FileAnswers::responses())
    }
}

/// Of `GET /docs`.
pub struct EnterAnswers;

impl IntoResponses for EnterAnswers {
    fn responses() -> Answers {
        let elsewhere = Response::builder()
            .description("The page is at `/docs/`.")
            .header("location", header("Relative to this one.", text()));
        with(Answers::new(), [("308", elsewhere)])
    }
}

/// Of `GET /docs/{file}`.
pub struct FileAnswers;

impl IntoResponses for FileAnswers {
    fn responses() -> Answers {
        let file = ["text/css", "text/javascript", "text/html", "image/png", "image/svg+xml"]
            .into_iter()
            .fold(Response::builder().description("The file."), |file, media_type| {
                file.content(media_type, content(text(), []))
            });
        with(failures([("not_found", Failure::NotFound)]), [("200", file)])
    }
}

/// Of `GET /openapi.json`.
pub struct DocumentAnswers;

impl IntoResponses for DocumentAnswers {
    fn responses() -> Answers {
        let object = Object::builder().schema_type(Type::Object);
        let document = Response::builder()
            .description("OpenAPI 3.1.")
            .content(JSON, content(object, []));
        with(Answers::new(), [("200", document)])
    }
}
