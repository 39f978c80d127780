//! Every route. The same list makes the router and the OpenAPI document.

use std::sync::LazyLock;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tower_http::catch_panic::CatchPanicLayer;
use utoipa_axum::router::{OpenApiRouter, UtoipaMethodRouter};
use utoipa_axum::routes;

use super::error::ApiError;
use super::prefix::Prefix;
use super::state::AppState;
use super::{
    admission, compress, dashboard, docs, events, keys, metrics, observe, prefix, probe, publish, stats, stream, topics,
};
use crate::access::Scope;

type Routes = UtoipaMethodRouter<AppState>;

/// Routes whose handlers ask for a principal with this scope. A test calls each of them with and without it.
fn needs(scope: Scope, (schemas, mut paths, methods): Routes) -> Routes {
    docs::secured(&mut paths, scope);
    (schemas, paths, methods)
}

/// Routes that everybody may call.
fn open((schemas, mut paths, methods): Routes) -> Routes {
    docs::unsecured(&mut paths);
    (schemas, paths, methods)
}

/// The routes for publishing, each with its part of the document.
fn publishing() -> OpenApiRouter<AppState> {
    OpenApiRouter::with_openapi(docs::base())
        .routes(needs(Scope::Publish, routes!(publish::publish)))
        .routes(needs(Scope::Publish, routes!(publish::flush)))
}

/// The routes of keys.
fn managing() -> OpenApiRouter<AppState> {
    OpenApiRouter::default()
        .routes(needs(Scope::Manage, routes!(keys::list, keys::create)))
        .routes(needs(Scope::Manage, routes!(keys::change, keys::revoke)))
        .routes(needs(Scope::Manage, routes!(keys::rotate)))
}

/// The routes for reading, whose answers may be large.
fn reading() -> OpenApiRouter<AppState> {
    OpenApiRouter::default()
        .routes(needs(Scope::Read, routes!(events::list)))
        .routes(needs(Scope::Read, routes!(stream::stream)))
        .routes(needs(Scope::Read, routes!(topics::topics)))
        .routes(needs(Scope::Read, routes!(topics::event)))
        .routes(needs(Scope::Read, routes!(topics::conflicts)))
        .routes(needs(Scope::Read, routes!(stats::stats)))
        .routes(needs(Scope::Read, routes!(stats::history)))
        .routes(open(routes!(dashboard::root)))
}

/// The probes.
fn probes() -> OpenApiRouter<AppState> {
    OpenApiRouter::default()
        .routes(open(routes!(probe::health)))
        .routes(open(routes!(probe::healthz)))
        .routes(open(routes!(probe::livez)))
        .routes(open(routes!(probe::readyz)))
}

/// The metrics, which may have an address of their own.
fn metrics_api() -> OpenApiRouter<AppState> {
    OpenApiRouter::default().routes(needs(Scope::Metrics, routes!(metrics::show)))
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
    let metrics = || match &state.limits.metrics_address {
        None => Router::from(metrics_api()),
        Some(_) => Router::new(),
    };
    // Publishing does not pay for what is compressed.
    let large = Router::from(reading()).merge(pages()).merge(metrics());
    let large = large.layer(from_fn_with_state(state.clone(), compress::compress));
    let small = Router::from(publishing())
        .merge(Router::from(probes()))
        .merge(Router::from(managing()));
    let service = layered(small.merge(large), state.clone());
    match &state.limits.proxy.base_path {
        base if base.as_str().is_empty() => service,
        base => {
            let entrance = prefix::entrance(base);
            let outside = Router::from(probes()).merge(metrics());
            let outside = layered(outside.route(base.as_str(), get(async move || entrance)), state.clone());
            prefix::mounted(base.clone(), service, outside)
        }
    }
}

/// The router of the second address: metrics and probes.
pub fn metrics_routes(state: AppState) -> Router {
    layered(Router::from(probes()).merge(Router::from(metrics_api())), state)
}

fn layered(routes: Router<AppState>, state: AppState) -> Router {
    routes
        .fallback(async || ApiError::NotFound)
        .method_not_allowed_fallback(async || ApiError::MethodNotAllowed)
        .layer(CatchPanicLayer::custom(|_| ApiError::Internal.into_response()))
        .layer(from_fn_with_state(state.clone(), admission::admit))
        .layer(from_fn_with_state(state.metrics.clone(), observe::observe))
        .with_state(state)
}

/// The OpenAPI document as indented JSON, with a line feed at its end.
pub fn document() -> &'static str {
    static TEXT: LazyLock<String> = LazyLock::new(|| {
        let api = publishing().merge(reading()).merge(managing());
        let api = api.merge(probes()).merge(metrics_api());
        let document = docs::complete(api.into_openapi()).to_pretty_json();
        document.expect("the document is made of JSON values") + "\n"
    });
    &TEXT
}

async fn openapi(State(state): State<AppState>, prefix: Prefix) -> Result<Response, ApiError> {
    let json = [(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))];
    if prefix.as_str().is_empty() {
        return Ok((json, document()).into_response());
    }
    let servers = format!("{{\n  \"servers\": [{{ \"url\": \"{}\" }}],", prefix.as_str());
    let with_servers = document().replacen('{', &servers, 1);
    let body = state.figures.hold(with_servers.into_bytes())?;
    Ok((json, Body::from(body)).into_response())
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
                let security = operation["security"].as_array();
                assert!(
                    security.is_some(),
                    "{method} {path} neither needs a scope nor says that it needs none"
                );
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
