//! The queue between requests and writers, its budget of events, and who waits for what.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use super::seat::{Answer, Seat, Taken, Work};
use super::{Submission, SubmitError};

/// The bytes of text after which a writer gathers no more: a larger batch is no faster and costs memory twice, here and on
/// its way to the store. A single request may be larger.
const BATCH_BYTES: usize = 4 << 20;

/// Requests that wait for a writer, in the order of their arrival.
#[derive(Debug)]
pub(super) struct Queue {
    state: Mutex<State>,
    arrived: Notify,
    ended: Notify,
    events_max: usize,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Arc<Seat>>,
    /// What is in memory: tickets of requests that are queued or in a flush, with their number of events.
    outstanding: BTreeMap<u64, usize>,
    events: usize,
    next_ticket: u64,
    is_closed: bool,
}

/// The queue is closed and empty: the writer may return.
pub(super) struct Closed;

/// A request in a writer's hands.
pub(super) type Seated = (Arc<Seat>, Box<Work>);

impl Queue {
    pub(super) fn new(events_max: usize) -> Self {
        Self {
            state: Mutex::default(),
            arrived: Notify::new(),
            ended: Notify::new(),
            events_max,
        }
    }

    /// Takes a request in, or refuses it at once.
    pub(super) fn push(
        &self,
        submission: Submission,
        deadline: Option<Instant>,
    ) -> Result<(Arc<Seat>, oneshot::Receiver<Answer>), SubmitError> {
        let (answer, receiver) = oneshot::channel();
        let Submission {
            events,
            reservation,
            handling,
            trace,
        } = submission;
        let waiting_since = trace.as_ref().map(|_| Instant::now());
        let mut state = self.lock();
        if state.is_closed {
            return Err(SubmitError::Stopping);
        }
        if state.events + events.len() > self.events_max {
            return Err(SubmitError::Full);
        }
        let ticket = state.next_ticket;
        state.next_ticket += 1;
        state.events += events.len();
        state.outstanding.insert(ticket, events.len());
        let seat = Arc::new(Seat::new(Work {
            ticket,
            events,
            handling,
            reservation,
            deadline,
            answer,
            trace,
            waiting_since,
        }));
        state.waiting.push_back(seat.clone());
        drop(state);
        self.arrived.notify_one();
        Ok((seat, receiver))
    }

    /// Waits until something is waiting for a writer.
    pub(super) async fn arrival(&self) -> Result<(), Closed> {
        loop {
            let arrived = self.arrived.notified();
            let mut arrived = std::pin::pin!(arrived);
            arrived.as_mut().enable();
            {
                let state = self.lock();
                if !state.waiting.is_empty() {
                    return Ok(());
                }
                if state.is_closed {
                    // The next writer is to hear it, too.
                    self.arrived.notify_one();
                    return Err(Closed);
                }
            }
            arrived.await;
        }
    }

    /// Takes what is waiting, up to `events_max` events; wakes another writer for what is left. Requests that gave up
    /// meanwhile are passed over, and another writer may have been faster, so it may be nothing.
    pub(super) fn take(&self, events_max: usize) -> Vec<Seated> {
        let mut state = self.lock();
        let group = state.gather(events_max);
        if !state.waiting.is_empty() {
            self.arrived.notify_one();
        }
        group
    }

    /// Whether requests wait for a writer.
    pub(super) fn is_waiting(&self) -> bool {
        !self.lock().waiting.is_empty()
    }

    /// Wakes another writer: the caller was woken for something that it cannot take now.
    pub(super) fn wake_another(&self) {
        self.arrived.notify_one();
    }

    /// Waits until the queue is closed and every request has ended.
    pub(super) async fn drained(&self) {
        loop {
            let ended = self.ended.notified();
            let mut ended = std::pin::pin!(ended);
            ended.as_mut().enable();
            {
                let state = self.lock();
                if state.is_closed && state.outstanding.is_empty() {
                    return;
                }
            }
            ended.await;
        }
    }

    /// A request's flush has ended, or it was never begun: its room is free.
    pub(super) fn ended(&self, ticket: u64) {
        let mut state = self.lock();
        if let Some(events) = state.outstanding.remove(&ticket) {
            state.events -= events;
        }
        drop(state);
        self.ended.notify_waiters();
    }

    /// A request gave up and took its work out of its seat. Empty seats at the front go with it, so that a queue that no
    /// writer serves does not grow.
    pub(super) fn withdraw(&self, work: Box<Work>) {
        let ticket = work.ticket;
        drop(work);
        let mut state = self.lock();
        while state.waiting.front().is_some_and(|seat| seat.len() == 0) {
            state.waiting.pop_front();
        }
        drop(state);
        self.ended(ticket);
    }

    /// The ticket below which everything was accepted by now, and the number of events that are outstanding.
    pub(super) fn accepted(&self) -> (u64, usize) {
        let state = self.lock();
        (state.next_ticket, state.events)
    }

    /// Waits until every request below `ticket` has ended.
    pub(super) async fn finished(&self, ticket: u64) {
        loop {
            let ended = self.ended.notified();
            let mut ended = std::pin::pin!(ended);
            ended.as_mut().enable();
            if self
                .lock()
                .outstanding
                .first_key_value()
                .is_none_or(|(oldest, _)| *oldest >= ticket)
            {
                return;
            }
            ended.await;
        }
    }

    pub(super) fn events(&self) -> usize {
        self.lock().events
    }

    /// Seats in the queue, empty ones included.
    #[cfg(test)]
    pub(super) fn waiting(&self) -> usize {
        self.lock().waiting.len()
    }

    pub(super) fn close(&self) {
        self.lock().is_closed = true;
        self.arrived.notify_one();
        self.ended.notify_waiters();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics while it holds the queue")
    }
}

impl State {
    fn gather(&mut self, events_max: usize) -> Vec<Seated> {
        let (mut group, mut events, mut bytes) = (Vec::new(), 0, 0);
        while let Some(seat) = self.waiting.front() {
            let is_first = group.is_empty();
            if !is_first && (events + seat.len() > events_max || bytes >= BATCH_BYTES) {
                break;
            }
            let Some(seat) = self.waiting.pop_front() else { break };
            if let Taken::Work(work) = seat.take() {
                events += work.events.len();
                bytes += work.reservation.bytes();
                group.push((seat, work));
            }
        }
        group
    }
}
