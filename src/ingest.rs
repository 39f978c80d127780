//! Ingest: requests queue their events and wait; writers commit them in groups.
//!
//! A request owns nothing that could cancel a group commit: it submits and waits for the outcomes. If its client goes away,
//! its events are stored all the same. Whether a request may still be answered "nothing was stored" depends on its
//! [`pending::PendingRequest`]: it can withdraw its events while no commit of them is under way; once a writer has claimed
//! them, only the writer knows the outcome.
//!
//! There is no linger timer: when nothing is being committed, an idle writer takes the waiting requests at once. While it
//! commits, the next batch gathers, and another writer takes that when it is large enough, or has waited long enough.

mod budget;
mod heavy;
mod lane;
mod limits;
mod pending;
mod pressure;
mod queue;
mod shared;
mod submission;
mod writer;

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

pub(crate) use self::budget::{Budget, Reservation};
pub(crate) use self::heavy::in_turn;
use self::shared::Shared;
use self::submission::Answer;
pub(crate) use self::submission::{EventOutcome, Handling, Submission, SubmitError};
pub(crate) use self::writer::Writer;
use crate::config::IngestConfig;
use crate::metrics::Metrics;
use crate::sink::HandoffQueue;
use crate::store::{ErrorClass, EventWriter};

/// The handle by which events are submitted. Cheap to clone.
#[derive(Clone)]
pub struct Ingest {
    shared: Arc<Shared>,
}

impl Ingest {
    /// Makes an ingest and its writers, which do nothing until [`Writer::run`]. They put what they commit into `handoff`.
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
        let shared = Arc::new(Shared::new(settings, (writers, store.batch_events()), metrics, handoff));
        let writers = (0..writers)
            .map(|writer_id| Writer::new(writer_id, store.clone(), shared.clone()))
            .collect();
        (Self { shared }, writers)
    }

    /// The budget of bytes: a body reserves from it as it arrives.
    pub fn bytes(&self) -> &Arc<Budget> {
        &self.shared.bytes
    }

    /// Submits events and waits for their outcomes, in the order of the events, until the request deadline.
    ///
    /// Dropping the future after its first poll does not keep the events from being stored.
    pub async fn submit(&self, submission: Submission) -> Result<Vec<EventOutcome>, SubmitError> {
        let events = submission.events.len();
        let answer = self.submit_and_wait(submission).await;
        answer.inspect_err(|error| self.shared.count_failed(error, events))
    }

    async fn submit_and_wait(&self, submission: Submission) -> Answer {
        let deadline = Instant::now() + self.shared.settings.request_deadline;
        let (request, answer) = self.shared.queue.push(submission, Some(deadline))?;
        let (mut answer, mut late) = (answer, pin!(tokio::time::sleep_until(deadline)));
        loop {
            tokio::select! {
                answer = &mut answer => return answer.unwrap_or(Err(SubmitError::Unknown)),
                () = &mut late => break,
                // To wait for a store that takes no writes would be in vain.
                () = self.shared.read_only.notified() => {
                    if self.shared.queue.withdraw(&request) {
                        return Err(SubmitError::ReadOnly);
                    }
                }
            }
        }
        if self.shared.queue.withdraw(&request) {
            return Err(SubmitError::TooLate);
        }
        // A disk or a server that hangs makes no attempt fail: the deadline is the only sign of it.
        self.shared.set_last_error(Some(ErrorClass::NotSent));
        Err(SubmitError::Unknown)
    }

    /// Queues events without waiting: they are valid and queued, not yet durable. They have no deadline.
    ///
    /// # Errors
    /// [`SubmitError::Full`] or [`SubmitError::Stopping`].
    pub fn submit_and_forget(&self, submission: Submission) -> Result<(), SubmitError> {
        let events = submission.events.len();
        let pushed = self.shared.queue.push(submission, None).map(drop);
        pushed.inspect_err(|error| self.shared.count_failed(error, events))
    }

    /// Waits until all events that were accepted before the call are committed, and published or left to the outbox, for no
    /// longer than the request deadline. Returns the number of events that it waited for.
    ///
    /// # Errors
    /// [`SubmitError::TooLate`] after the deadline.
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

    /// Makes the writers check their connections before they use them again: a connection to the store broke elsewhere.
    pub fn suspect_connections(&self) {
        self.shared.note_broken_connection();
    }

    /// Events in memory: queued, or being committed.
    pub fn queued(&self) -> usize {
        self.shared.queue.events()
    }

    /// Whether requests wait because all writers are busy.
    pub fn is_busy(&self) -> bool {
        self.shared.queue.is_starved()
    }

    /// For how long every small request has been refused for want of room; `None`: there is room.
    pub fn refuses_for(&self) -> Option<Duration> {
        let pressures = [&self.shared.bytes.pressure, &self.shared.queue.pressure];
        pressures.into_iter().filter_map(|pressure| pressure.lasts()).max()
    }

    /// The most events in memory.
    pub fn capacity(&self) -> usize {
        self.shared.settings.queue_events_max
    }

    /// Why the last group commit failed, if that was a moment ago and none has succeeded since.
    pub fn last_error(&self) -> Option<ErrorClass> {
        self.shared.last_error()
    }
}

#[cfg(test)]
mod tests;
