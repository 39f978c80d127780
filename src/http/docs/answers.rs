//! The answers of each route. Errors are described by [`ApiError`] itself: an answer for each status, an example for each reason.

pub(in crate::http) mod events;
pub(in crate::http) mod keys;
pub(in crate::http) mod observe;
pub(in crate::http) mod publish;
pub(in crate::http) mod topics;

use std::collections::BTreeMap;

use axum::http::{HeaderMap, HeaderValue, StatusCode};
use serde::Serialize;
use serde_json::{Value, json};
use utoipa::ToSchema;
use utoipa::openapi::example::Example;
use utoipa::openapi::extensions::Extensions;
use utoipa::openapi::header::Header;
use utoipa::openapi::response::{Response, ResponseBuilder};
use utoipa::openapi::schema::{Object, Schema};
use utoipa::openapi::{Content, Ref, RefOr, Type};

use crate::api::problem::{Problem, ValidationErrors};
use crate::event::{Loc, ValidationError, ValidationErrorKind};
use crate::http::error::ApiError;
use crate::http::request_id::{RequestId, X_REQUEST_ID};

/// The answers of a route by their status.
type Answers = BTreeMap<String, RefOr<Response>>;

const JSON: &str = "application/json";
const PROBLEM: &str = "application/problem+json";

/// The id of the request in the examples.
const EXAMPLE_ID: HeaderValue = HeaderValue::from_static("6f0d2e7c-3c1b-4f7e-9a55-0d3a4be1f6c2");

/// A header that every such answer has.
pub(super) fn header(about: &str, schema: impl Into<RefOr<Schema>>) -> Header {
    let mut header = Header::builder().description(Some(about)).schema(Some(schema)).build();
    // utoipa has no field for it, but writes extensions as they are.
    header.extensions = Some(Extensions::from_iter([("required", true)]));
    header
}

fn text() -> Object {
    Object::builder().schema_type(Type::String).build()
}

fn content<E: Serialize>(
    schema: impl Into<RefOr<Schema>>,
    examples: impl IntoIterator<Item = (&'static str, E)>,
) -> Content {
    let examples = examples
        .into_iter()
        .map(|(name, value)| (name, Example::builder().value(Some(json!(value))).build()));
    Content::builder()
        .schema(Some(schema))
        .examples_from_iter(examples)
        .build()
}

fn reference<T: ToSchema>() -> Ref {
    Ref::from_schema_name(T::name())
}

/// An answer with JSON of this type.
fn of<T: ToSchema + Serialize>(about: &str, examples: impl IntoIterator<Item = (&'static str, T)>) -> ResponseBuilder {
    Response::builder()
        .description(about)
        .content(JSON, content(reference::<T>(), examples))
}

fn retry_after() -> Header {
    let seconds = Object::builder().schema_type(Type::Integer).minimum(Some(1));
    header("After how many seconds to try again.", seconds)
}

/// The error answers: one for each status.
fn errors(reasons: impl IntoIterator<Item = (&'static str, ApiError)>) -> Answers {
    let mut by_status: BTreeMap<StatusCode, Vec<(&'static str, ApiError)>> = BTreeMap::new();
    for (name, error) in reasons {
        by_status.entry(error.status()).or_default().push((name, error));
    }
    let answers = by_status
        .into_iter()
        .map(|(status, reasons)| (status.as_str().to_owned(), error(status, &reasons).into()));
    answers.collect()
}

fn error(status: StatusCode, reasons: &[(&'static str, ApiError)]) -> Response {
    let id = RequestId::of(&HeaderMap::from_iter([(X_REQUEST_ID, EXAMPLE_ID)]));
    let example = |(name, error): &(&'static str, ApiError)| match error {
        ApiError::Invalid(errors) => (*name, json!(ValidationErrors { detail: errors.into() })),
        error => (*name, json!(error.problem(&id))),
    };
    let examples: Vec<(&str, Value)> = reasons.iter().map(example).collect();
    let (media_type, schema, about) = match status {
        StatusCode::UNPROCESSABLE_ENTITY => (
            JSON,
            reference::<ValidationErrors<'_>>(),
            "The request is invalid. The response lists all validation errors, up to 100.",
        ),
        _ => (
            PROBLEM,
            reference::<Problem<'_>>(),
            status.canonical_reason().unwrap_or_default(),
        ),
    };
    let answer = Response::builder()
        .description(about)
        .content(media_type, content(schema, examples));
    match status {
        StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS => answer.header("retry-after", retry_after()),
        StatusCode::UNSUPPORTED_MEDIA_TYPE => answer.header(
            "accept-encoding",
            Header::builder()
                .description(Some(
                    "The supported content codings, if the content coding was the error.",
                ))
                .schema(Some(text()))
                .build(),
        ),
        _ => answer,
    }
    .build()
}

fn invalid(kind: ValidationErrorKind, msg: &'static str, loc: &[&'static str]) -> ApiError {
    let loc = loc.iter().map(|step| Loc::name(step)).collect();
    ApiError::Invalid(vec![ValidationError::new(kind, msg).at(loc)])
}

fn invalid_query() -> (&'static str, ApiError) {
    let loc = ["query", "topic"];
    let error = invalid(
        ValidationErrorKind::StringTooShort,
        "String should have at least 1 byte",
        &loc,
    );
    ("string_too_short", error)
}

fn invalid_key() -> (&'static str, ApiError) {
    let message = "Input should be some of 'publish', 'read', 'consume', 'manage' and 'metrics'";
    let error = invalid(ValidationErrorKind::LiteralError, message, &["body", "scopes"]);
    ("literal_error", error)
}

/// The errors of a read.
fn read_errors() -> Vec<(&'static str, ApiError)> {
    vec![
        invalid_query(),
        ("internal", ApiError::Internal),
        ("starting", ApiError::STARTING),
        ("unreachable", ApiError::UNREACHABLE),
        ("query_timeout", ApiError::QUERY_TIMEOUT),
    ]
}

/// What every route answers that needs a key.
pub(super) fn refusals() -> Answers {
    let mut answers = errors([
        ("unauthenticated", ApiError::Unauthenticated),
        (
            "forbidden",
            ApiError::Forbidden("This key does not have the scope that is needed here."),
        ),
        ("keys_unavailable", ApiError::KEYS_UNAVAILABLE),
    ]);
    if let Some(RefOr::T(answer)) = answers.get_mut("401") {
        let header = header("Says that a key is needed.", text());
        answer.headers.insert("www-authenticate".to_owned(), header.into());
    }
    answers
}

/// The answers with those of success added.
fn with<const N: usize>(mut answers: Answers, successes: [(&str, ResponseBuilder); N]) -> Answers {
    answers.extend(
        successes
            .into_iter()
            .map(|(status, answer)| (status.to_owned(), answer.build().into())),
    );
    answers
}
