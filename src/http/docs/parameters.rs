//! What may stand in a query and in the head of a request.

use serde_json::{Value, json};
use utoipa::openapi::path::{Parameter, ParameterIn};
use utoipa::openapi::schema::{Object, ObjectBuilder, Schema};
use utoipa::openapi::{RefOr, Required, Type};
use utoipa::{IntoParams, PartialSchema};

use super::schemas::place;
use crate::event::{EventId, Source, Timestamp, Topic};
use crate::http::events::{LIMIT_DEFAULT, LIMIT_MAX};
use crate::metrics::history::SECONDS_MAX;

const AFTER: &str =
    "Scan: the events behind this cursor, in log order. Empty is the beginning; go on with the last `next`.";

fn parameter(place: ParameterIn, name: &str, about: &str, schema: impl Into<RefOr<Schema>>) -> Parameter {
    Parameter::builder()
        .name(name)
        .parameter_in(place)
        .required(Required::False)
        .description(Some(about))
        .schema(Some(schema))
        .build()
}

fn query(name: &str, about: &str, schema: impl Into<RefOr<Schema>>) -> Parameter {
    parameter(ParameterIn::Query, name, about, schema)
}

fn header(name: &str, about: &str, schema: impl Into<RefOr<Schema>>) -> Parameter {
    parameter(ParameterIn::Header, name, about, schema)
}

fn text() -> ObjectBuilder {
    Object::builder().schema_type(Type::String)
}

fn word(words: &[&str], default: &str) -> ObjectBuilder {
    text()
        .enum_values(Some(words.iter().copied()))
        .default(Some(Value::from(default)))
}

fn number(minimum: usize) -> ObjectBuilder {
    Object::builder().schema_type(Type::Integer).minimum(Some(minimum))
}

/// Of every request.
pub fn shared() -> Vec<Parameter> {
    vec![
        header(
            "x-request-id",
            "A name for the request, which the answer repeats and the log shows, if it is 1 to 128 of `A–Z a–z 0–9 . _ : / + = -`. Any other is replaced.",
            text().examples(["order-4711"]),
        ),
        header(
            "traceparent",
            "The trace that the request is part of (W3C Trace Context). One that is malformed is ignored.",
            text().examples(["00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"]),
        ),
    ]
}

/// Of `POST /publish`.
pub struct PublishParameters;

impl IntoParams for PublishParameters {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        vec![
            header(
                "Prefer",
                "RFC 7240, any of: `respond-async` (202 as soon as the events are valid and queued), `handling=lenient` (the valid events are stored although others are not), `return=representation` (a result for each event of a batch). Others are ignored.",
                text().examples(["handling=lenient, return=representation"]),
            ),
            header(
                "Content-Encoding",
                "How the body is compressed.",
                word(&["identity", "gzip", "zstd"], "identity"),
            ),
        ]
    }
}

/// Of `GET /events`.
pub struct ListParameters;

impl IntoParams for ListParameters {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let limit = number(1)
            .maximum(Some(usize::try_from(LIMIT_MAX).unwrap_or(usize::MAX)))
            .default(Some(json!(LIMIT_DEFAULT)));
        vec![
            query("topic", "Events of this topic.", Topic::schema()),
            query("source", "Events of this source.", Source::schema()),
            query("event_id", "Events of this id, in any topic.", EventId::schema()),
            query(
                "since",
                "Events with this `timestamp` or a later one.",
                Timestamp::schema(),
            ),
            query("until", "Events with an earlier `timestamp`.", Timestamp::schema()),
            query(
                "order",
                "Log order, or the newest first. `desc` is refused together with `after`.",
                word(&["asc", "desc"], "asc"),
            ),
            query(
                "limit",
                "How many events at most. As lines (`Accept: application/x-ndjson`) any number, and all where none is given.",
                limit,
            ),
            query(
                "offset",
                "How many events are left out first. Refused together with `after`.",
                number(0).default(Some(json!(0))),
            ),
            query("after", AFTER, place(AFTER, true)),
            query(
                "format",
                "`array` gives the bare array, with `next` in the header `Link`.",
                word(&["object", "array"], "object"),
            ),
        ]
    }
}

/// Of `GET /events/stream`.
pub struct StreamParameters;

impl IntoParams for StreamParameters {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let about = "The `id` of the last event that was seen: the stream goes on behind it. It comes before `after`; empty is none.";
        vec![
            query("topic", "Events of this topic alone.", Topic::schema()),
            query("after", AFTER, place(AFTER, true)),
            header("Last-Event-ID", about, place(about, true)),
        ]
    }
}

/// Of `GET /stats`.
pub struct StatsParameters;

impl IntoParams for StatsParameters {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        vec![query(
            "topic",
            "The counts of this topic alone; zeros for one never seen.",
            Topic::schema(),
        )]
    }
}

/// `1s` to `900s`, or `1m` to `15m`.
const WINDOW: &str = "^(([1-9][0-9]?|[1-8][0-9][0-9]|900)s|([1-9]|1[0-5])m)$";
const _: () = assert!(SECONDS_MAX == 900);

/// Of `GET /stats/history`.
pub struct HistoryParameters;

impl IntoParams for HistoryParameters {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let window = text()
            .pattern(Some(WINDOW))
            .default(Some(Value::from("15m")))
            .examples(["15m", "60s"]);
        vec![query(
            "window",
            "How far back: whole seconds or minutes, at most 15 minutes.",
            window,
        )]
    }
}

/// Of a page that a browser may have already.
pub struct CacheParameters;

impl IntoParams for CacheParameters {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        vec![header(
            "If-None-Match",
            "The `ETag` of the browser's copy.",
            text().examples(["\"6f0d2e7c3c1b4f7e\""]),
        )]
    }
}

/// Of `GET /dashboard/{file}`.
pub struct DashboardFileParameters;

impl IntoParams for DashboardFileParameters {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let mut parameters = vec![file("style.css")];
        parameters.extend(CacheParameters::into_params(|| None));
        parameters
    }
}

/// Of `GET /docs/{file}`.
pub struct FileParameters;

impl IntoParams for FileParameters {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        vec![file("index.css")]
    }
}

fn file(example: &str) -> Parameter {
    let name = text().examples([example]);
    let mut file = parameter(ParameterIn::Path, "file", "A file of the page.", name);
    file.required = Required::True;
    file
}
