//! Is it alive, is it ready, is it well. Answered from memory: what a probe asks costs the store nothing.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::docs::answers::observe::{HealthAnswers, LiveAnswers, ReadyAnswers};
use super::error::ApiError;
use super::{AppState, Phase};
use crate::store::ErrorClass;

/// What `/readyz` says while the process still serves, but will not for long.
pub const STOPPING: &str = "The service is stopping.";

/// A log that is unsettled for longer than this is worth a look: some transaction holds back every walk.
const UNSETTLED_SECONDS_MAX: f64 = 10.0;

/// Who we are.
pub async fn alive() -> Json<Value> {
    Json(json!({ "service": "eventsieve", "status": "alive", "version": env!("CARGO_PKG_VERSION") }))
}

/// Says that the process runs
///
/// Asks nothing of the store, so that an outage of it restarts nobody.
#[utoipa::path(get, path = "/livez", tag = "observe", responses(LiveAnswers))]
pub async fn livez() -> Json<Value> {
    Json(json!({ "status": "alive" }))
}

/// Says whether publishing can succeed
#[utoipa::path(get, path = "/readyz", tag = "observe", responses(ReadyAnswers))]
pub async fn readyz(State(state): State<AppState>) -> Result<Json<Value>, ApiError> {
    match state.unready() {
        None => Ok(Json(json!({ "status": "ready" }))),
        Some(reason) => Err(ApiError::Unavailable(reason)),
    }
}

/// Shows how the store and the fan-out are
///
/// A fan-out that is down keeps nobody from publishing, and so is no reason for a 503.
#[utoipa::path(get, path = "/health", tag = "observe", responses(HealthAnswers))]
pub async fn health(State(state): State<AppState>) -> Response {
    let health = *state.health.borrow();
    let unsettled = health
        .and_then(Result::ok)
        .map_or(0.0, |stability| stability.visibility_lag_seconds);
    let trouble = state.trouble();
    let fanout_trouble = *state.fanout.trouble.borrow();
    let (code, status) = match trouble {
        Some(_) => (StatusCode::SERVICE_UNAVAILABLE, "unhealthy"),
        None if unsettled > UNSETTLED_SECONDS_MAX || fanout_trouble.is_some() => (StatusCode::OK, "degraded"),
        None => (StatusCode::OK, "healthy"),
    };
    let mut store = json!({ "kind": state.store.name(), "status": if trouble.is_none() { "up" } else { "down" }, "unsettled_seconds": unsettled });
    if let Some(reason) = trouble {
        store["reason"] = json!(reason);
    }
    let mut fanout =
        json!({ "kind": state.fanout.kind, "status": if fanout_trouble.is_none() { "up" } else { "down" } });
    if let Some(trouble) = fanout_trouble {
        fanout["reason"] = json!(trouble.sentence());
    }
    let body = json!({ "status": status, "store": store, "fanout": fanout });
    let mut response = (code, Json(body)).into_response();
    if code == StatusCode::SERVICE_UNAVAILABLE {
        response.headers_mut().insert(
            axum::http::header::RETRY_AFTER,
            axum::http::HeaderValue::from_static("1"),
        );
    }
    response
}

/// Shows how the store and the fan-out are: the same as `/health`
#[utoipa::path(get, path = "/healthz", tag = "observe", responses(HealthAnswers))]
pub async fn healthz(state: State<AppState>) -> Response {
    health(state).await
}

impl AppState {
    /// Why publishing cannot succeed.
    fn unready(&self) -> Option<&'static str> {
        match *self.phase.borrow() {
            Phase::Starting => Some("The service is starting: the store is not open yet."),
            Phase::Draining => Some(STOPPING),
            Phase::Serving => self.trouble(),
        }
    }

    /// What is wrong with the store, by the last probe and the last flush.
    fn trouble(&self) -> Option<&'static str> {
        let probed = match *self.health.borrow() {
            None => return Some("The store has not been reached yet."),
            Some(Ok(_)) => None,
            Some(Err(class)) => Some(class),
        };
        let flushed = self.ingest.last_error().filter(|class| {
            let is_of_the_store = matches!(
                class,
                ErrorClass::Resources | ErrorClass::ReadOnly | ErrorClass::Configuration
            );
            is_of_the_store || matches!(class, ErrorClass::NotSent)
        });
        probed.or(flushed).map(|class| match class {
            ErrorClass::ReadOnly => "The store takes no writes.",
            ErrorClass::Resources => "The store is full or short of something.",
            ErrorClass::Configuration => "The store refuses this service: its password, its privileges or the schema.",
            _ => "The store cannot be reached.",
        })
    }
}
