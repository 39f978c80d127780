//! Ingest: requests hand their events over and wait; writers commit them in groups.
//!
//! A request owns nothing that could cancel a flush: it submits and waits for its verdicts, and if it goes away its events
//! are stored all the same. Whether a request may still be answered "nothing was stored" is told by who owns its events:
//! while they lie in its [`seat::Seat`] no commit was tried, and the request can take them back; once a writer has them the
//! outcome is the writer's to tell.
//!
//! There is no linger timer: when nothing is being committed, a free writer takes what is waiting at once. While one commits, the
//! next batch gathers, and another writer comes for it when it is large enough, or has waited for long enough.

mod budget;
mod pending;
mod queue;
mod writer;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

pub use self::budget::{Budget, Reservation};
use self::pending::Taken;
use self::queue::{Limits, Queue};
pub use self::writer::Writer;
use crate::config::IngestConfig;
use crate::event::{Event, Trace};
use crate::metrics::{Metrics, OutcomeLabel};
use crate::sink::HandoffQueue;
use crate::store::{ErrorClass, EventWriter, LogPosition, Outcome};

/// The handle by which events are submitted. Cheap to clone.
#[derive(Clone)]
pub struct Ingest {
    shared: Arc<Shared>,
}

struct Shared {
    settings: IngestConfig,
    queue: Queue,
    bytes: Arc<Budget>,
    metrics: Arc<Metrics>,
    handoff: Arc<HandoffQueue>,
    trouble: std::sync::Mutex<Option<(ErrorClass, Instant)>>,
    /// How often a connection to the store was seen to break: the others may be broken as well.
    breaks: AtomicU64,
}

/// The events of one request, on their way to the store.
#[derive(Debug)]
pub struct Submission {
    /// In the order of the request; at least one.
    pub events: Vec<Event>,
    /// The memory that they are accounted with; given back when their flush has ended.
    pub reservation: Reservation,
    /// What happens when the store refuses some of them.
    pub handling: Handling,
    /// The trace of the request, if it is traced.
    pub trace: Option<Trace>,
}

/// What happens to the rest of a request when the store refuses some of its events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Handling {
    /// Nothing of the request is stored.
    Strict,
    /// The others are stored.
    Lenient,
}

/// What became of one event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventOutcome {
    /// It was new.
    Stored(LogPosition),
    /// Its identity was there; the place is the first copy's, `None` when that was pruned.
    Duplicate(Option<LogPosition>),
    /// Its identity was there with another payload.
    Conflict(Option<LogPosition>),
    /// The store would not take it (lenient requests only).
    Refused,
}

/// Why a request was not stored, or may not have been.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SubmitError {
    /// The budget is spent. Nothing was stored.
    #[error("the queue is full")]
    Full,
    /// The process is about to end. Nothing was stored.
    #[error("the service is stopping")]
    Stopping,
    /// The deadline passed before a commit was tried, or all tries surely failed. Nothing was stored.
    #[error("the store did not take the events in time")]
    TooLate,
    /// A commit was tried and its outcome is not known.
    #[error("the outcome of the commit is unknown")]
    Unknown,
    /// The store would not take these events of the request (indices in `Submission::events`). Nothing was stored.
    #[error("the store refused {} of the events", .0.len())]
    Refused(Vec<usize>),
}

/// How long a store that could not take a flush counts as unable to, without a flush that shows the contrary.
const TROUBLE_LASTS: Duration = Duration::from_secs(5);

impl Ingest {
    /// An ingest with its writers, which do nothing until they run ([`Writer::run`]). What they commit they leave at `handoff`.
    #[must_use]
    pub fn new(
        settings: IngestConfig,
        store: Arc<dyn EventWriter>,
        metrics: Arc<Metrics>,
        handoff: Arc<HandoffQueue>,
    ) -> (Self, Vec<Writer>) {
        for class in ErrorClass::ALL {
            metrics.store_errors.with_label_values(&[class.as_str()]);
        }
        let writers = settings.writers.min(store.writers_max());
        let shared = Arc::new(Shared {
            queue: Queue::new(Limits {
                queue_events_max: settings.queue_events_max,
                batch_events: store.batch_events(),
            }),
            bytes: Budget::new(settings.queue_bytes_max),
            metrics,
            handoff,
            settings,
            trouble: std::sync::Mutex::default(),
            breaks: AtomicU64::default(),
        });
        let writers = (0..writers)
            .map(|writer_id| Writer::new(writer_id, store.clone(), shared.clone()))
            .collect();
        (Self { shared }, writers)
    }

    /// The budget of bytes, from which a body takes as it arrives.
    #[must_use]
    pub fn bytes(&self) -> &Arc<Budget> {
        &self.shared.bytes
    }

    /// Submits events and waits for their verdicts, in the events' order, until the request deadline.
    ///
    /// Dropping the future changes nothing for the events once it was polled.
    ///
    /// # Errors
    /// [`SubmitError`]: whether nothing was stored, or what is unknown.
    pub async fn submit(&self, submission: Submission) -> Result<Vec<EventOutcome>, SubmitError> {
        let events = submission.events.len();
        let answer = self.submit_and_wait(submission).await;
        answer.inspect_err(|error| self.shared.count_failed(error, events))
    }

    async fn submit_and_wait(&self, submission: Submission) -> Result<Vec<EventOutcome>, SubmitError> {
        let deadline = Instant::now() + self.shared.settings.request_deadline;
        let (seat, answer) = self.shared.queue.push(submission, Some(deadline))?;
        match tokio::time::timeout_at(deadline, answer).await {
            Ok(answer) => answer.unwrap_or(Err(SubmitError::Unknown)),
            Err(_) => match seat.take() {
                Taken::Work(work) => {
                    self.shared.queue.withdraw(work);
                    Err(SubmitError::TooLate)
                }
                Taken::Gone => {
                    // A disk or a server that hangs lets no attempt fail: that the deadline passed is all there is to see.
                    self.shared.set_trouble(Some(ErrorClass::NotSent));
                    Err(SubmitError::Unknown)
                }
            },
        }
    }

    /// Hands events over without waiting: they are valid and queued, not yet durable. No deadline ends them.
    ///
    /// # Errors
    /// [`SubmitError::Full`] or [`SubmitError::Stopping`].
    pub fn submit_and_forget(&self, submission: Submission) -> Result<(), SubmitError> {
        let events = submission.events.len();
        let pushed = self.shared.queue.push(submission, None).map(drop);
        pushed.inspect_err(|error| self.shared.count_failed(error, events))
    }

    /// Waits until all that was accepted before the call is committed, and published or left to the outbox, for no longer than
    /// the request deadline.
    ///
    /// # Errors
    /// [`SubmitError::TooLate`] when that could not be done in time. Else the number of events that it waited for.
    pub async fn flush(&self) -> Result<usize, SubmitError> {
        let (ticket, events) = self.shared.queue.accepted();
        let flushed = async {
            self.shared.queue.finished(ticket).await;
            self.shared.handoff.flushed().await;
        };
        let limit = self.shared.settings.request_deadline;
        tokio::time::timeout(limit, flushed)
            .await
            .map_err(|_| SubmitError::TooLate)?;
        Ok(events)
    }

    /// Takes no more submissions. The writers commit what is queued and return.
    pub fn close(&self) {
        self.shared.queue.close();
    }

    /// A connection to the store broke elsewhere: writers look after theirs before they use them again.
    pub fn suspect_connections(&self) {
        self.shared.breaks.fetch_add(1, Ordering::Relaxed);
    }

    /// Events in memory: queued, or in a flush.
    #[must_use]
    pub fn queued(&self) -> usize {
        self.shared.queue.events()
    }

    /// Whether requests wait because all writers are busy.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        self.shared.queue.is_starved()
    }

    /// The most events in memory.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.shared.settings.queue_events_max
    }

    /// Why the last flush could not be committed, if none could since, and it was a moment ago.
    #[must_use]
    pub fn trouble(&self) -> Option<ErrorClass> {
        let trouble = *self
            .shared
            .trouble
            .lock()
            .expect("nothing panics while it holds the trouble");
        trouble
            .filter(|(_, since)| since.elapsed() < TROUBLE_LASTS)
            .map(|(class, _)| class)
    }
}

impl Shared {
    /// Counts the events of a request that is answered with this error. What the store refused was counted when it did.
    fn count_failed(&self, error: &SubmitError, events: usize) {
        let fate = match error {
            SubmitError::Full | SubmitError::Stopping | SubmitError::TooLate => OutcomeLabel::Unavailable,
            SubmitError::Unknown => OutcomeLabel::Unknown,
            SubmitError::Refused(_) => return,
        };
        self.metrics.events_of(fate).inc_by(events as u64);
    }

    fn set_trouble(&self, class: Option<ErrorClass>) {
        *self.trouble.lock().expect("nothing panics while it holds the trouble") =
            class.map(|class| (class, Instant::now()));
    }
}

impl From<Outcome> for EventOutcome {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Stored(place) => EventOutcome::Stored(place),
            Outcome::Duplicate(first) => EventOutcome::Duplicate(first),
            Outcome::Conflict(first) => EventOutcome::Conflict(first),
        }
    }
}

#[cfg(test)]
mod tests;
