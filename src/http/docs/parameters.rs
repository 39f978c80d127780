//! Query parameters and request headers.

use serde_json::{Value, json};
use utoipa::openapi::path::{Parameter, ParameterIn};
use utoipa::openapi::schema::{Object, ObjectBuilder, Schema};
use utoipa::openapi::{RefOr, Required, Type};
use utoipa::{IntoParams, PartialSchema};

use crate::api::events::{LIMIT_DEFAULT, LIMIT_MAX};
use crate::api::keys::KEYS_MAX;
use crate::api::topics::CONFLICTS_MAX;
use crate::api::{cursor_schema, topic_part_schema};
use crate::event::{EventId, Source, Timestamp, Topic};
use crate::http::events::OFFSET_MAX;
use crate::metrics::history::SECONDS_MAX;

const AFTER: &str =
    "Cursor read: the events behind this cursor, in log order. Empty is the beginning; continue with the last `next`.";

fn parameter(location: ParameterIn, name: &str, about: &str, schema: impl Into<RefOr<Schema>>) -> Parameter {
    Parameter::builder()
        .name(name)
        .parameter_in(location)
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

fn number(minimum: u32) -> ObjectBuilder {
    Object::builder().schema_type(Type::Integer).minimum(Some(minimum))
}

fn page_limit(max: u32) -> ObjectBuilder {
    number(1).maximum(Some(max)).default(Some(json!(LIMIT_DEFAULT)))
}

/// The parameters of every request.
pub(in crate::http) fn shared() -> Vec<Parameter> {
    vec![
        header(
            "x-request-id",
            "An id for the request, which the response repeats and the log shows: 1 to 128 characters of `A–Z a–z 0–9 . _ : / + = -`. Any other value is replaced.",
            text().examples(["order-4711"]),
        ),
        header(
            "traceparent",
            "The trace that the request is part of (W3C Trace Context). A malformed value is ignored.",
            text().examples(["00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"]),
        ),
    ]
}

/// The parameters of `POST /publish`.
pub(in crate::http) struct PublishParameters;

impl IntoParams for PublishParameters {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        vec![
            header(
                "Prefer",
                "RFC 7240, any of: `respond-async` (202 as soon as the events are validated and queued), `handling=lenient` (the valid events are stored even if others are invalid), `return=representation` (a result for each event of a batch). Others are ignored.",
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

/// The parameters of `GET /events`.
pub(in crate::http) struct ListParameters;

impl IntoParams for ListParameters {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        vec![
            query("topic", "Events of this topic.", Topic::schema()),
            query("source", "Events of this source.", Source::schema()),
            query("event_id", "Events with this id, in any topic.", EventId::schema()),
            query(
                "since",
                "Events with this `timestamp` or a later one.",
                Timestamp::schema(),
            ),
            query(
                "until",
                "Events with a `timestamp` before this one.",
                Timestamp::schema(),
            ),
            query(
                "order",
                "Log order, or the newest first. `desc` is not allowed together with `after`.",
                word(&["asc", "desc"], "asc"),
            ),
            query(
                "limit",
                "Maximum number of events. As lines (`Accept: application/x-ndjson`) any number is allowed, and the default is no limit.",
                page_limit(LIMIT_MAX),
            ),
            query(
                "offset",
                "How many events to skip first. Not allowed together with `after`, which goes further.",
                number(0).maximum(Some(OFFSET_MAX as f64)).default(Some(json!(0))),
            ),
            query("after", AFTER, cursor_schema(AFTER, true)),
            query(
                "format",
                "`array` is the bare array, with `next` in the header `Link`.",
                word(&["object", "array"], "object"),
            ),
        ]
    }
}

/// The parameters of `GET /events/stream`.
pub(in crate::http) struct StreamParameters;

impl IntoParams for StreamParameters {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let about = "The `id` of the last event that the client has seen: the stream continues behind it. It takes precedence over `after`; empty is none.";
        vec![
            query("topic", "Only events of this topic.", Topic::schema()),
            query("after", AFTER, cursor_schema(AFTER, true)),
            header("Last-Event-ID", about, cursor_schema(about, true)),
        ]
    }
}

/// The parameters of `GET /stats`.
pub(in crate::http) struct StatsParameters;

impl IntoParams for StatsParameters {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        vec![query(
            "topic",
            "Only the counters of this topic; zeros for an unknown topic.",
            Topic::schema(),
        )]
    }
}

/// The parameters of `GET /topics`.
pub(in crate::http) struct TopicsParameters;

impl IntoParams for TopicsParameters {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        vec![
            query(
                "prefix",
                "Topics whose names begin with this.",
                topic_part_schema("The beginning of a topic."),
            ),
            query(
                "after",
                "Topics behind this name: the `next` of the last page.",
                topic_part_schema("A topic; empty is the beginning."),
            ),
            query("limit", "Maximum number of topics.", page_limit(LIMIT_MAX)),
        ]
    }
}

/// The parameters of `GET /conflicts`.
pub(in crate::http) struct ConflictsParameters;

impl IntoParams for ConflictsParameters {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let after = "Conflicts behind this place: the `next` of the last page. Empty is the beginning.";
        vec![
            query("topic", "Conflicts of this topic.", Topic::schema()),
            query("after", after, cursor_schema(after, true)),
            query("limit", "Maximum number of conflicts.", page_limit(CONFLICTS_MAX)),
        ]
    }
}

/// The parameters of `GET /topics/{topic}/events/{event_id}`.
pub(in crate::http) struct EventParameters;

impl IntoParams for EventParameters {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let path = |name, about, schema| {
            let mut parameter = parameter(ParameterIn::Path, name, about, schema);
            parameter.required = Required::True;
            parameter
        };
        vec![
            path("topic", "The topic, percent-encoded.", Topic::schema()),
            path("event_id", "The id of the event, percent-encoded.", EventId::schema()),
        ]
    }
}

/// `1s` to `900s`, or `1m` to `15m`.
const WINDOW: &str = "^(([1-9][0-9]?|[1-8][0-9][0-9]|900)s|([1-9]|1[0-5])m)$";
const _: () = assert!(SECONDS_MAX == 900);

/// The parameters of `GET /stats/history`.
pub(in crate::http) struct HistoryParameters;

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

/// The parameters of `GET /`.
pub(in crate::http) struct RootParameters;

impl IntoParams for RootParameters {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        vec![header(
            "If-None-Match",
            "The `ETag` of the browser's copy of the dashboard.",
            text().examples(["\"6f0d2e7c3c1b4f7e\""]),
        )]
    }
}

/// The parameters of `GET /keys`.
pub(in crate::http) struct KeysParameters;

impl IntoParams for KeysParameters {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let limit = number(1).maximum(Some(KEYS_MAX)).default(Some(json!(KEYS_MAX)));
        vec![
            query("after", "The keys behind this id.", key_id()),
            query("limit", "Maximum number of keys.", limit),
        ]
    }
}

/// The parameter of `/keys/{id}`.
pub(in crate::http) struct KeyParameters;

impl IntoParams for KeyParameters {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let id = Parameter::builder()
            .name("id")
            .parameter_in(ParameterIn::Path)
            .required(Required::True)
            .description(Some("The id of the key."))
            .schema(Some(key_id()))
            .build();
        vec![id]
    }
}

fn key_id() -> ObjectBuilder {
    text()
        .pattern(Some("^[0-9a-hjkmnp-tv-z]{12}$"))
        .examples(["0a1b2c3d4e5f"])
}
