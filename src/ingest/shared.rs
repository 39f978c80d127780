//! What the handle and the writers of one ingest share.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::budget::Budget;
use super::limits::Limits;
use super::queue::Queue;
use super::submission::SubmitError;
use crate::config::IngestConfig;
use crate::metrics::{Metrics, OutcomeLabel};
use crate::sink::HandoffQueue;
use crate::store::{ErrorClass, StoreError};

/// How long an error of the store counts as current when no group commit has succeeded since.
const ERROR_LASTS: Duration = Duration::from_secs(5);

pub(super) struct Shared {
    pub(super) settings: IngestConfig,
    pub(super) queue: Queue,
    pub(super) bytes: Arc<Budget>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) handoff: Arc<HandoffQueue>,
    /// The last error of a group commit since the last one that succeeded.
    last_error: Mutex<Option<(ErrorClass, Instant)>>,
    /// The store was found to take no writes.
    pub(super) read_only: Notify,
    /// How many connections to the store were seen to break: the others may be broken as well.
    broken_connections: AtomicU64,
}

impl Shared {
    pub(super) fn new(
        settings: IngestConfig,
        (writers, batch_events): (u32, usize),
        metrics: Arc<Metrics>,
        handoff: Arc<HandoffQueue>,
    ) -> Self {
        Self {
            queue: Queue::new(Limits {
                queue_events_max: settings.queue_events_max,
                batch_events,
                writers,
            }),
            bytes: Budget::new(settings.queue_bytes_max),
            metrics,
            handoff,
            settings,
            last_error: Mutex::default(),
            read_only: Notify::new(),
            broken_connections: AtomicU64::default(),
        }
    }

    /// Counts the events of a request that is answered with this error. Events that the store rejected were counted then.
    pub(super) fn count_failed(&self, error: &SubmitError, events: usize) {
        let outcome = match error {
            SubmitError::Full | SubmitError::Stopping | SubmitError::TooLate | SubmitError::ReadOnly => {
                OutcomeLabel::Unavailable
            }
            SubmitError::Unknown => OutcomeLabel::Unknown,
            SubmitError::Refused(_) => return,
        };
        self.metrics.events_of(outcome).inc_by(events as u64);
    }

    /// Counts and logs an error of the store, and remembers it for the health check.
    pub(super) fn report(&self, error: &StoreError) {
        self.set_last_error(Some(error.class));
        if error.class == ErrorClass::ReadOnly {
            self.read_only.notify_waiters();
        }
        self.metrics.count_store_error(error.class.as_str());
        if error.class.breaks_connection() {
            self.note_broken_connection();
        }
        let (class, line) = (error.class.as_str(), error.line());
        match error.class {
            ErrorClass::Configuration | ErrorClass::Unexpected => {
                tracing::error!(error.class = class, "failed to write to the store, retrying: {line}");
            }
            ErrorClass::LostRace | ErrorClass::StalePlan => {
                tracing::debug!(error.class = class, "failed to write to the store, retrying: {line}");
            }
            _ => tracing::warn!(error.class = class, "failed to write to the store, retrying: {line}"),
        }
    }

    /// `None`: a group commit has succeeded.
    pub(super) fn set_last_error(&self, class: Option<ErrorClass>) {
        let error = class.map(|class| (class, Instant::now()));
        *self.last_error.lock().expect("no code panics while it holds this lock") = error;
    }

    /// The class of the last error, if it is recent and no group commit has succeeded since.
    pub(super) fn last_error(&self) -> Option<ErrorClass> {
        let error = *self.last_error.lock().expect("no code panics while it holds this lock");
        error
            .filter(|(_, since)| since.elapsed() < ERROR_LASTS)
            .map(|(class, _)| class)
    }

    pub(super) fn note_broken_connection(&self) {
        self.broken_connections.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn broken_connections(&self) -> u64 {
        self.broken_connections.load(Ordering::Relaxed)
    }
}
