//! Every route. The same list makes the router and the OpenAPI document.

use std::sync::LazyLock;

use axum::Router;
use axum::http::{HeaderValue, header};
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tower_http::catch_panic::CatchPanicLayer;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::error::ApiError;
use super::state::AppState;
use super::{dashboard, docs, events, metrics, observe, probe, publish, stats, stream};

/// The routes of the API, each with its part of the document.
fn api() -> OpenApiRouter<AppState> {
    OpenApiRouter::with_openapi(docs::base())
        .routes(routes!(publish::publish))
        .routes(routes!(publish::flush))
        .routes(routes!(events::list))
        .routes(routes!(stream::stream))
        .routes(routes!(stats::stats))
        .routes(routes!(stats::history))
        .routes(routes!(metrics::show))
        .routes(routes!(dashboard::root))
        .routes(routes!(probe::health))
        .routes(routes!(probe::healthz))
        .routes(routes!(probe::livez))
        .routes(routes!(probe::readyz))
}

/// The pages for people and their files, which are not part of the API.
fn pages() -> Router<AppState> {
    Router::new()
        .route("/dashboard", get(dashboard::page))
        .route("/dashboard/{file}", get(dashboard::file))
        .route("/openapi.json", get(openapi))
        .route("/docs", get(docs::pages::enter))
        .route("/docs/", get(docs::pages::page))
        .route("/docs/{*file}", get(docs::pages::file))
}

/// The router of the service.
pub fn routes(state: AppState) -> Router {
    Router::from(api())
        .merge(pages())
        .fallback(async || ApiError::NotFound)
        .method_not_allowed_fallback(async || ApiError::MethodNotAllowed)
        .layer(CatchPanicLayer::custom(|_| ApiError::Internal.into_response()))
        .layer(from_fn_with_state(state.metrics.clone(), observe::observe))
        .with_state(state)
}

/// The OpenAPI document as indented JSON, with a line feed at its end.
pub fn document() -> &'static str {
    static TEXT: LazyLock<String> = LazyLock::new(|| {
        let document = docs::complete(api().into_openapi()).to_pretty_json();
        document.expect("the document is made of JSON values") + "\n"
    });
    &TEXT
}

async fn openapi() -> Response {
    let json = HeaderValue::from_static("application/json");
    ([(header::CONTENT_TYPE, json)], document()).into_response()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::*;

    fn parsed() -> Value {
        serde_json::from_str(document()).unwrap()
    }

    #[test]
    fn document_is_as_in_the_snapshot() {
        insta::assert_snapshot!("openapi", document());
    }

    #[test]
    fn references_and_schemas_are_the_same_set() {
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
    fn operations_have_a_unique_name_a_plain_summary_and_examples() {
        let document = parsed();
        let mut names = BTreeSet::new();
        for (path, item) in document["paths"].as_object().unwrap() {
            for (method, operation) in item.as_object().unwrap() {
                let name = operation["operationId"].as_str().unwrap();
                assert!(names.insert(name), "{method} {path} has the name of another: {name}");
                let summary = operation["summary"].as_str().unwrap();
                assert!(
                    !summary.contains('`'),
                    "Swagger UI shows summaries as plain text: {summary}"
                );
                for (status, answer) in operation["responses"].as_object().unwrap() {
                    let json = &answer["content"]["application/json"];
                    let has_examples = json["examples"]
                        .as_object()
                        .is_some_and(|examples| !examples.is_empty());
                    assert!(
                        json.is_null() || has_examples,
                        "{method} {path} {status} has no example"
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
