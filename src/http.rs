//! The edge: the route table, what handlers share, and the layers around them.

mod body;
mod dashboard;
pub mod docs;
pub mod error;
mod events;
pub mod listener;
mod measure;
mod metrics;
mod observe;
mod prefer;
mod probe;
mod publish;
mod request_id;
mod stats;
mod stream;

use std::ops::Deref;
use std::sync::Arc;

use axum::Router;
use axum::middleware::from_fn_with_state;
use axum::response::IntoResponse;
use axum::routing::{get, post};
use tokio::sync::watch;
use tower_http::catch_panic::CatchPanicLayer;

use self::error::ApiError;
use self::stats::SharedStats;
use crate::config::HttpConfig;
use crate::ingest::Ingest;
use crate::metrics::Metrics;
use crate::sink::SinkErrorKind;
use crate::store::{ErrorClass, EventReader, Stability};
use crate::subscribers::Subscribers;

/// What handlers share. Cheap to clone, as is done several times for each request: with a count for each part, two cores passed
/// ten counters to and fro. This, a layer less, no zeroed buffers and ids without a system call together took 27.4 µs of the
/// service's time for a single event instead of 31.9. (Nearly half is the kernel's, most of that for writing the answer: perf.)
#[derive(Clone)]
pub struct AppState(Arc<Shared>);

/// See [`AppState`].
pub struct Shared {
    store: Arc<dyn EventReader>,
    ingest: Ingest,
    metrics: Arc<Metrics>,
    limits: HttpConfig,
    phase: watch::Receiver<Phase>,
    health: watch::Receiver<Health>,
    stats: SharedStats,
    live: Subscribers,
    fanout: FanoutState,
}

/// What [`AppState::new`] is made of.
pub struct Parts {
    /// Where events are read.
    pub store: Arc<dyn EventReader>,
    /// Where they are submitted.
    pub ingest: Ingest,
    /// The figures of this process.
    pub metrics: Arc<Metrics>,
    /// The limits of a request.
    pub limits: HttpConfig,
    /// Where the process stands in its life.
    pub phase: watch::Receiver<Phase>,
    /// What the last probe of the store found.
    pub health: watch::Receiver<Health>,
    /// Where followers are.
    pub live: Subscribers,
    /// How the fan-out is.
    pub fanout: FanoutState,
}

/// Where the fan-out leads, and how it is.
#[derive(Debug, Clone)]
pub struct FanoutState {
    /// `redis`, or `process` where it leads nowhere else.
    pub kind: &'static str,
    /// What is wrong with it.
    pub trouble: watch::Receiver<Option<SinkErrorKind>>,
}

/// Where the process stands in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// It listens, and waits for the store.
    Starting,
    /// It serves.
    Serving,
    /// It still serves, but says that it will not for long.
    Draining,
}

/// What the last probe of the store found. `None` before the first.
pub type Health = Option<Result<Stability, ErrorClass>>;

impl AppState {
    /// The state of a service.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        let Parts {
            store,
            ingest,
            metrics,
            limits,
            phase,
            health,
            live,
            fanout,
        } = parts;
        Self(Arc::new(Shared {
            stats: SharedStats::new(store.clone()),
            store,
            ingest,
            metrics,
            limits,
            phase,
            health,
            live,
            fanout,
        }))
    }

    /// Fails while the store was not opened yet: there is nothing to read or write.
    fn check_started(&self) -> Result<(), ApiError> {
        match *self.phase.borrow() {
            Phase::Starting => Err(ApiError::STARTING),
            Phase::Serving | Phase::Draining => Ok(()),
        }
    }
}

impl Deref for AppState {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.0
    }
}

/// Every route.
pub fn routes(state: AppState) -> Router {
    Router::new()
        .route("/", get(dashboard::root))
        .route("/dashboard", get(dashboard::page))
        .route("/dashboard/{file}", get(dashboard::file))
        .route("/publish", post(publish::publish))
        .route("/events", get(events::list))
        .route("/events/stream", get(stream::follow))
        .route("/stats", get(stats::show))
        .route("/stats/history", get(stats::history))
        .route("/health", get(probe::health))
        .route("/healthz", get(probe::healthz))
        .route("/livez", get(probe::livez))
        .route("/readyz", get(probe::readyz))
        .route("/metrics", get(metrics::show))
        .route("/_flush", post(publish::flush))
        .route("/openapi.json", get(docs::openapi))
        .route("/docs", get(docs::enter))
        .route("/docs/", get(docs::page))
        .route("/docs/{*file}", get(docs::asset))
        .fallback(async || ApiError::NotFound)
        .method_not_allowed_fallback(async || ApiError::MethodNotAllowed)
        .layer(CatchPanicLayer::custom(|_| ApiError::Internal.into_response()))
        .layer(from_fn_with_state(state.metrics.clone(), observe::observe))
        .with_state(state)
}
