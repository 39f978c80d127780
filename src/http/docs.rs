//! The OpenAPI document, made from the handlers, and Swagger UI. All of it is in the binary: a page of it asks nobody else.

pub mod answers;
pub mod parameters;
pub mod schemas;
#[cfg_attr(not(feature = "swagger-ui"), path = "docs/no_swagger_ui.rs")]
mod swagger_ui;

use std::sync::LazyLock;

use axum::http::{HeaderValue, Uri, header};
use axum::response::{IntoResponse, Redirect, Response};
use utoipa::openapi::path::{Operation, PathItem};
use utoipa::openapi::schema::Object;
use utoipa::openapi::{RefOr, Type};
use utoipa::{Modify, OpenApi};

use self::answers::pages::{DocumentAnswers, EnterAnswers, FileAnswers, PageAnswers};
use self::parameters::FileParameters;
use super::error::ApiError;
use super::{dashboard, events, metrics, probe, publish, stats, stream};
use crate::event;
use crate::store::Counts;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "eventsieve",
        description = "Publish an event as often as you like; it is stored once, counted once, and handed to every subscriber at least once.\n\nAn unknown path is answered 404, another method of a known one 405 with `Allow`; a `GET` may be a `HEAD`. All errors but 422 are problems (RFC 9457). Every answer has the header `x-request-id`, and every 503 `Retry-After`. Sending a request again after a time-out, a 5xx or a lost connection is always safe: nothing is stored twice.",
        license(name = "MIT", identifier = "MIT")
    ),
    tags(
        (name = "publish", description = "Events in"),
        (name = "read", description = "Events out"),
        (name = "observe", description = "Statistics and probes"),
        (name = "pages", description = "For people")
    ),
    paths(
        publish::publish,
        publish::flush,
        events::list,
        stream::follow,
        stats::show,
        stats::history,
        metrics::show,
        dashboard::root,
        dashboard::page,
        dashboard::file,
        probe::health,
        probe::healthz,
        probe::livez,
        probe::readyz,
        openapi,
        enter,
        page,
        asset,
    ),
    components(schemas(
        event::Topic,
        event::EventId,
        event::Timestamp,
        event::Source,
        event::Payload,
        event::Cursor,
        event::Event,
        event::StoredEvent,
        event::ValidationError,
        Counts,
        publish::Processed,
        schemas::Publication,
        schemas::Lines,
        schemas::StreamEvent,
        schemas::Accepted,
        schemas::Flushed,
        schemas::Page,
        schemas::Problem,
        schemas::Faults,
        schemas::observe::Alive,
        schemas::observe::Probe,
        schemas::observe::Health,
        schemas::observe::Statistics,
        schemas::observe::Stats,
        schemas::observe::History,
    )),
    modifiers(&Shared)
)]
struct Document;

/// What every request may carry, and every answer does.
struct Shared;

impl Modify for Shared {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let operations = document.paths.paths.values_mut().flat_map(operations);
        for operation in operations {
            operation
                .parameters
                .get_or_insert_default()
                .extend(parameters::shared().into_iter().map(Into::into));
            for answer in operation.responses.responses.values_mut() {
                if let RefOr::T(answer) = answer {
                    let id = Object::builder()
                        .schema_type(Type::String)
                        .pattern(Some("^[A-Za-z0-9._:/+=-]{1,128}$"));
                    let id = answers::header("The request's id: the client's, or a new one.", id);
                    answer.headers.insert("x-request-id".to_owned(), id.into());
                }
            }
        }
    }
}

/// The operations of a path: the service knows these two methods.
fn operations(item: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    item.get.iter_mut().chain(item.post.iter_mut())
}

/// The OpenAPI document as JSON, for people to read as well, with a line feed at its end.
#[must_use]
pub fn document() -> &'static str {
    static TEXT: LazyLock<String> = LazyLock::new(|| {
        let document = Document::openapi().to_pretty_json();
        document.expect("the document is made of JSON values") + "\n"
    });
    &TEXT
}

/// This document
///
/// The same as `eventsieve openapi` prints.
#[utoipa::path(
    get,
    path = "/openapi.json",
    operation_id = "show_document",
    tag = "pages",
    responses(DocumentAnswers)
)]
pub async fn openapi() -> Response {
    let json = HeaderValue::from_static("application/json");
    ([(header::CONTENT_TYPE, json)], document()).into_response()
}

/// Leads to Swagger UI
#[utoipa::path(
    get,
    path = "/docs",
    operation_id = "find_docs",
    tag = "pages",
    responses(EnterAnswers)
)]
pub async fn enter() -> Redirect {
    // Relative, so that it holds behind a proxy that adds a prefix.
    Redirect::permanent("docs/")
}

/// Swagger UI: a page to read this document and to try its requests
#[utoipa::path(
    get,
    path = "/docs/",
    operation_id = "show_docs",
    tag = "pages",
    responses(PageAnswers)
)]
pub async fn page() -> Result<Response, ApiError> {
    swagger_ui::file("index.html")
}

/// The files of Swagger UI
#[utoipa::path(
    get,
    path = "/docs/{file}",
    tag = "pages",
    params(FileParameters),
    responses(FileAnswers)
)]
pub async fn asset(uri: Uri) -> Result<Response, ApiError> {
    match uri.path().strip_prefix("/docs/") {
        // Which the crate takes for the page.
        Some("/") | None => Err(ApiError::NotFound),
        Some(name) => swagger_ui::file(name),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::*;

    fn parsed() -> Value {
        serde_json::from_str(document()).unwrap()
    }

    /// Every `METHOD PATH` of the route table, as it is written.
    fn routes() -> BTreeSet<String> {
        let source = include_str!("../http.rs").split("#[cfg(test)]").next().unwrap();
        let table = source
            .split("pub fn routes(")
            .nth(1)
            .unwrap()
            .split(".fallback(")
            .next()
            .unwrap();
        let routes = table.split(".route(\"").skip(1).flat_map(|route| {
            let (path, handlers) = route.split_once('"').unwrap();
            let path = path.replace("{*", "{");
            let methods = ["get", "post", "put", "patch", "delete", "any"];
            let methods = methods.into_iter().filter(|method| {
                handlers.contains(&format!(" {method}(")) || handlers.contains(&format!(".{method}("))
            });
            methods
                .map(move |method| format!("{method} {path}"))
                .collect::<Vec<_>>()
        });
        routes.collect()
    }

    #[test]
    fn every_route_is_documented_and_nothing_else_is() {
        let document = parsed();
        let paths = document["paths"].as_object().unwrap();
        let documented: BTreeSet<String> = paths
            .iter()
            .flat_map(|(path, item)| {
                item.as_object()
                    .unwrap()
                    .keys()
                    .map(move |method| format!("{method} {path}"))
            })
            .collect();
        assert!(documented.len() > 10);
        assert_eq!(documented, routes());
    }

    #[test]
    fn every_reference_leads_to_a_schema_and_every_schema_is_used() {
        let document = parsed();
        let text = document.to_string();
        let used: BTreeSet<&str> = text
            .split("\"#/components/schemas/")
            .skip(1)
            .map(|rest| rest.split('"').next().unwrap())
            .collect();
        let known: BTreeSet<&str> = document["components"]["schemas"]
            .as_object()
            .unwrap()
            .keys()
            .map(String::as_str)
            .collect();
        assert_eq!(used, known);
    }

    #[test]
    fn every_operation_has_a_name_of_its_own_a_summary_and_examples_where_json_is_answered() {
        let document = parsed();
        let mut names = BTreeSet::new();
        for (path, item) in document["paths"].as_object().unwrap() {
            for (method, operation) in item.as_object().unwrap() {
                let name = operation["operationId"].as_str().unwrap();
                assert!(names.insert(name), "{method} {path} has the name of another: {name}");
                assert!(operation["summary"].is_string(), "{method} {path}");
                for (status, answer) in operation["responses"].as_object().unwrap() {
                    let json = &answer["content"]["application/json"];
                    let is_document = path == "/openapi.json";
                    let shows = json["examples"]
                        .as_object()
                        .is_some_and(|examples| !examples.is_empty());
                    assert!(
                        json.is_null() || shows || is_document,
                        "{method} {path} {status} shows no example"
                    );
                    assert_eq!(
                        answer["headers"]["x-request-id"]["required"], true,
                        "{method} {path} {status}"
                    );
                }
            }
        }
    }
}
