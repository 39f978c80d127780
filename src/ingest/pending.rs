//! A request that waits for its events to be committed.

use std::sync::{Mutex, MutexGuard};

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::budget::Reservation;
use super::submission::{Answer, Client, Handling, Submission};
use crate::event::{Event, Trace};
use crate::telemetry::Step;

/// A request between its submission and its answer. The queue, the writer and the request itself share it.
///
/// Its [`Phase`] decides what the request may be answered at its deadline: while no commit is under way the request can withdraw
/// its events, so nothing was stored. While a writer has claimed it, only the writer knows the outcome.
#[derive(Debug)]
pub(super) struct PendingRequest {
    /// The number of the request in the order of arrival.
    pub(super) ticket: u64,
    /// Who has sent it.
    pub(super) client: Client,
    /// How many events the request submitted.
    pub(super) event_count: usize,
    /// The bytes that the request has reserved.
    pub(super) bytes: usize,
    pub(super) handling: Handling,
    /// `None`: the client was answered already (`respond-async`), and the request waits without a limit.
    pub(super) deadline: Option<Instant>,
    /// The trace of the request, if it is traced.
    pub(super) trace: Option<Trace>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    phase: Phase,
    /// The events, unless a writer has moved them into a batch.
    events: Vec<Event>,
    /// Released when the request has ended.
    reservation: Option<Reservation>,
    /// Who waits for the answer.
    waiter: Option<oneshot::Sender<Answer>>,
    /// When a traced request was queued, until a writer has taken it for the first time.
    queued_at: Option<Instant>,
}

/// Where a request stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// No commit of its events is under way: a writer may claim it, and the request may withdraw.
    Waiting,
    /// A writer is committing its events.
    Claimed,
    /// The request gave up before a commit, and its events are dropped.
    Withdrawn,
    /// The writer has answered.
    Answered,
}

impl PendingRequest {
    /// A request that waits, and the receiver of its answer.
    pub(super) fn new(
        ticket: u64,
        submission: Submission,
        deadline: Option<Instant>,
    ) -> (Self, oneshot::Receiver<Answer>) {
        let (waiter, answer) = oneshot::channel();
        let Submission {
            events,
            reservation,
            handling,
            trace,
            client,
        } = submission;
        let request = Self {
            ticket,
            client,
            event_count: events.len(),
            bytes: reservation.bytes(),
            handling,
            deadline,
            state: Mutex::new(State {
                phase: Phase::Waiting,
                events,
                reservation: Some(reservation),
                waiter: Some(waiter),
                queued_at: trace.as_ref().map(|_| Instant::now()),
            }),
            trace,
        };
        (request, answer)
    }

    /// Claims the request for a writer. `false` if it was withdrawn.
    pub(super) fn claim(&self) -> bool {
        let mut state = self.lock();
        let is_waiting = state.phase == Phase::Waiting;
        if is_waiting {
            state.phase = Phase::Claimed;
        }
        is_waiting
    }

    /// Gives the request up, and drops its events. `false` if a writer has claimed it: then the outcome is the writer's to tell.
    pub(super) fn withdraw(&self) -> bool {
        let mut state = self.lock();
        let is_waiting = state.phase == Phase::Waiting;
        if is_waiting {
            state.phase = Phase::Withdrawn;
            state.release();
        }
        is_waiting
    }

    /// Ends the writer's claim: the attempt to commit has certainly failed, and the request may withdraw again.
    pub(super) fn unclaim(&self) {
        let mut state = self.lock();
        debug_assert_eq!(state.phase, Phase::Claimed);
        state.phase = Phase::Waiting;
    }

    /// Moves the events out, into a batch.
    pub(super) fn take_events(&self) -> Vec<Event> {
        let mut state = self.lock();
        if let (Some(trace), Some(since)) = (&self.trace, state.queued_at.take()) {
            Step::new("ingest.wait", since).end([trace]);
        }
        std::mem::take(&mut state.events)
    }

    /// Puts the events back that [`PendingRequest::take_events`] moved out.
    pub(super) fn put_back(&self, events: Vec<Event>) {
        self.lock().events = events;
    }

    /// Ends a claimed request: releases its memory, and gives back the sender for its answer, once.
    pub(super) fn end(&self) -> Option<oneshot::Sender<Answer>> {
        let mut state = self.lock();
        state.phase = Phase::Answered;
        state.release();
        state.waiter.take()
    }

    /// Whether the request gave up before a commit.
    pub(super) fn is_withdrawn(&self) -> bool {
        self.lock().phase == Phase::Withdrawn
    }

    /// Whether the deadline has passed: the client is answered without the writer.
    pub(super) fn is_late(&self) -> bool {
        self.deadline.is_some_and(|deadline| deadline <= Instant::now())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state
            .lock()
            .expect("no code panics while it holds the lock of a request")
    }
}

impl State {
    /// Frees the memory of the events, and gives it back to the budget.
    fn release(&mut self) {
        self.events = Vec::new();
        self.reservation = None;
    }
}

#[cfg(test)]
mod tests {
    use super::super::budget::Budget;
    use super::*;

    fn request() -> (PendingRequest, oneshot::Receiver<Answer>, std::sync::Arc<Budget>) {
        let budget = Budget::new(100);
        let mut reservation = budget.reserve();
        reservation.grow(10).unwrap();
        let submission = Submission {
            events: Vec::new(),
            reservation,
            handling: Handling::Strict,
            trace: None,
            client: None,
        };
        let (request, answer) = PendingRequest::new(7, submission, None);
        (request, answer, budget)
    }

    #[test]
    fn withdraws_only_while_unclaimed() {
        let (request, _answer, budget) = request();
        assert!(request.claim());
        assert!(!request.withdraw() && !request.claim());
        request.unclaim();
        assert!(request.withdraw() && request.is_withdrawn());
        assert_eq!(budget.taken(), 0);
        assert!(!request.claim(), "a withdrawn request is never committed");
    }

    #[test]
    fn releases_memory_before_its_answer() {
        let (request, answer, budget) = request();
        assert!(request.claim());
        let client = request.end().unwrap();
        assert_eq!(budget.taken(), 0);
        client.send(Ok(Vec::new())).unwrap();
        assert_eq!(answer.blocking_recv().unwrap(), Ok(Vec::new()));
        assert!(request.end().is_none() && !request.withdraw());
    }
}
