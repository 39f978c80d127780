//! What the handlers share.

use std::ops::Deref;
use std::sync::Arc;

use tokio::sync::watch;

use super::error::ApiError;
use super::new_topics::NewTopics;
use super::room::Answers;
use super::shared_stats::SharedStats;
use crate::config::HttpConfig;
use crate::ingest::Ingest;
use crate::metrics::Metrics;
use crate::principals::Principals;
use crate::sink::SinkErrorKind;
use crate::store::{ErrorClass, EventReader, KeyStore, Stability};
use crate::subscribers::Subscribers;

/// The state of the service, shared by all handlers. Cheap to clone, because it is cloned several times for each request: with a
/// reference count for each part, two cores passed ten counters to and fro. This, a layer less, no zeroed buffers and ids without
/// a system call together reduced the service's time for a single event from 31.9 µs to 27.4 µs. (Nearly half of that is spent in
/// the kernel, mostly to write the answer.)
#[derive(Clone)]
pub struct AppState(Arc<Shared>);

/// The parts of [`AppState`].
pub struct Shared {
    pub(super) store: Arc<dyn EventReader>,
    pub(super) keys: Arc<dyn KeyStore>,
    pub(super) principals: Principals,
    pub(super) ingest: Ingest,
    pub(super) metrics: Arc<Metrics>,
    pub(super) limits: HttpConfig,
    pub(super) phase: watch::Receiver<Phase>,
    pub(super) health: watch::Receiver<Health>,
    pub(super) stats: SharedStats,
    pub(super) new_topics: NewTopics,
    /// The room of answers to reading.
    pub(super) answers: Answers,
    /// The room of what compresses them, which no answer waits for.
    pub(super) encoders: Answers,
    /// The room of answers to publishing, which no reader takes.
    pub(super) results: Answers,
    /// The room of figures, which nobody else takes.
    pub(super) figures: Answers,
    pub(super) subscribers: Subscribers,
    pub(super) sink: SinkState,
}

/// The arguments of [`AppState::new`].
pub struct Parts {
    /// The store, for reading.
    pub store: Arc<dyn EventReader>,
    /// The store, for keys.
    pub keys: Arc<dyn KeyStore>,
    /// Who may do what.
    pub principals: Principals,
    /// The queue of events to store.
    pub ingest: Ingest,
    /// The metrics of this process.
    pub metrics: Arc<Metrics>,
    /// The limits of a request.
    pub limits: HttpConfig,
    /// The phase of the process.
    pub phase: watch::Receiver<Phase>,
    /// The result of the last probe of the store.
    pub health: watch::Receiver<Health>,
    /// The live stream.
    pub subscribers: Subscribers,
    /// The state of the sink.
    pub sink: SinkState,
}

/// The sink, as `/stats` and `/health` show it.
#[derive(Debug, Clone)]
pub struct SinkState {
    /// `redis`, or `process` without a sink.
    pub kind: &'static str,
    /// The current error of the sink.
    pub error: watch::Receiver<Option<SinkErrorKind>>,
}

/// The phase of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// It listens and waits for the store.
    Starting,
    /// It serves.
    Serving,
    /// It still serves, but reports that it is about to stop.
    Draining,
}

/// The result of the last probe of the store. `None` before the first one.
pub type Health = Option<Result<Stability, ErrorClass>>;

impl AppState {
    /// The state of a service.
    pub fn new(parts: Parts) -> Self {
        let Parts {
            store,
            keys,
            principals,
            ingest,
            metrics,
            limits,
            phase,
            health,
            subscribers,
            sink,
        } = parts;
        Self(Arc::new(Shared {
            stats: SharedStats::new(store.clone()),
            new_topics: NewTopics::new(store.clone(), metrics.clone(), limits.new_topics_per_minute),
            answers: Answers::new(limits.answer_bytes_max / 8 * 5),
            encoders: Answers::new(limits.answer_bytes_max / 8),
            results: Answers::new(limits.answer_bytes_max / 8),
            figures: Answers::new(limits.answer_bytes_max / 8),
            store,
            keys,
            principals,
            ingest,
            metrics,
            limits,
            phase,
            health,
            subscribers,
            sink,
        }))
    }

    /// Fails until the store is open.
    pub(super) fn check_started(&self) -> Result<(), ApiError> {
        match *self.phase.borrow() {
            Phase::Starting => Err(ApiError::STARTING),
            Phase::Serving | Phase::Draining => Ok(()),
        }
    }

    /// Fails also while the store is known to take no writes: to wait for it would be in vain.
    pub(super) fn check_writable(&self) -> Result<(), ApiError> {
        self.check_started()?;
        match *self.health.borrow() {
            Some(Err(ErrorClass::ReadOnly)) => Err(ApiError::READ_ONLY),
            _ => Ok(()),
        }
    }
}

impl Deref for AppState {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.0
    }
}
