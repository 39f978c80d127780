//! The probes, answered from memory: they cost the store nothing.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::docs::answers::observe::{HealthAnswers, LiveAnswers, ReadyAnswers};
use super::error::ApiError;
use super::guard::Asking;
use super::state::{AppState, Phase};
use crate::access::Scope;
use crate::api::health::{
    ComponentStatus, Health, HealthStatus, HealthStatusOnly, Probe, ProbeStatus, QueueHealth, SinkHealth, StoreHealth,
};
use crate::store::ErrorClass;

/// A visibility lag that is longer than this degrades the service: an open transaction holds back all cursor reads.
const VISIBILITY_LAG_SECONDS_MAX: f64 = 10.0;

/// A service that has refused every request for so long is not ready: another replica may have room.
const FULL_PATIENCE: Duration = Duration::from_secs(5);

/// Why it refuses them.
const NO_ROOM: &str = "There is no room for events: those of other clients wait for their commit.";

/// Check that the process runs
///
/// Does not depend on the store, so an outage of the store restarts no container.
#[utoipa::path(
    get,
    path = "/livez",
    operation_id = "getLiveness",
    tag = "observe",
    responses(LiveAnswers)
)]
pub(super) async fn livez() -> Json<Probe> {
    let status = ProbeStatus::Alive;
    Json(Probe { status })
}

/// Check that publishing can succeed
#[utoipa::path(
    get,
    path = "/readyz",
    operation_id = "getReadiness",
    tag = "observe",
    responses(ReadyAnswers)
)]
pub(super) async fn readyz(State(state): State<AppState>) -> Result<Json<Probe>, ApiError> {
    let status = ProbeStatus::Ready;
    match state.not_ready() {
        None => Ok(Json(Probe { status })),
        Some(error) => Err(error),
    }
}

/// Get the health of the store and the sink (Redis)
///
/// A sink that is down does not prevent publishing, so the status stays 200. Without the scope `read` there is only the `status`.
#[utoipa::path(
    get,
    path = "/health",
    operation_id = "getHealth",
    tag = "observe",
    responses(HealthAnswers)
)]
pub(super) async fn health(Asking(who): Asking, State(state): State<AppState>) -> Response {
    let stability = state.health.borrow().and_then(Result::ok);
    let unsettled_seconds = stability.map_or(0.0, |stability| stability.visibility_lag_seconds);
    let store_error = state.store_error();
    let sink_error = *state.sink.error.borrow();
    let is_full = state.ingest.refuses_for().is_some();
    let (code, status) = match store_error {
        Some(_) => (StatusCode::SERVICE_UNAVAILABLE, HealthStatus::Unhealthy),
        None if unsettled_seconds > VISIBILITY_LAG_SECONDS_MAX || sink_error.is_some() || is_full => {
            (StatusCode::OK, HealthStatus::Degraded)
        }
        None => (StatusCode::OK, HealthStatus::Healthy),
    };
    let health = Health {
        status,
        store: StoreHealth {
            kind: state.store.name().into(),
            status: component(store_error.is_none()),
            unsettled_seconds,
            reason: store_error.map(Into::into),
        },
        fanout: SinkHealth {
            kind: state.sink.kind.into(),
            status: component(sink_error.is_none()),
            reason: sink_error.map(|error| error.sentence().into()),
        },
        queue: QueueHealth {
            status: component(!is_full),
            reason: is_full.then(|| NO_ROOM.into()),
        },
    };
    let mut response = match who.is_some_and(|who| who.may(Scope::Read)) {
        true => (code, Json(health)).into_response(),
        false => (code, Json(HealthStatusOnly { status })).into_response(),
    };
    if code == StatusCode::SERVICE_UNAVAILABLE {
        response
            .headers_mut()
            .insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    }
    response
}

fn component(works: bool) -> ComponentStatus {
    if works {
        ComponentStatus::Up
    } else {
        ComponentStatus::Down
    }
}

/// Get the health of the store and the sink (Redis), under the other usual path
#[utoipa::path(
    get,
    path = "/healthz",
    operation_id = "getHealthz",
    tag = "observe",
    responses(HealthAnswers)
)]
pub(super) async fn healthz(asking: Asking, state: State<AppState>) -> Response {
    health(asking, state).await
}

impl AppState {
    /// Why publishing cannot succeed.
    fn not_ready(&self) -> Option<ApiError> {
        match *self.phase.borrow() {
            Phase::Starting => Some(ApiError::STARTING),
            Phase::Draining => Some(ApiError::STOPPING),
            Phase::Serving => match self.store_error() {
                Some(error) => Some(ApiError::Unavailable(error)),
                None => {
                    let refuses = self.ingest.refuses_for();
                    refuses
                        .filter(|time| *time >= FULL_PATIENCE)
                        .map(|_| ApiError::Unavailable(NO_ROOM))
                }
            },
        }
    }

    /// The error of the store, by the last probe and the last group commit.
    fn store_error(&self) -> Option<&'static str> {
        let probed = match *self.health.borrow() {
            None => return Some("The store has not been reached yet."),
            Some(Ok(_)) => None,
            Some(Err(class)) => Some(class),
        };
        let committed = self.ingest.last_error().filter(|class| {
            let is_of_the_store = matches!(
                class,
                ErrorClass::Resources | ErrorClass::ReadOnly | ErrorClass::Configuration
            );
            is_of_the_store || matches!(class, ErrorClass::NotSent)
        });
        probed.or(committed).map(|class| match class {
            ErrorClass::ReadOnly => "The store is read-only.",
            ErrorClass::Resources => "The store has run out of disk space, memory or connections.",
            ErrorClass::Configuration => {
                "The store rejects this service: check the password, the privileges and the schema."
            }
            _ => "The store cannot be reached.",
        })
    }
}
