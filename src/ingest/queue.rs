//! The queue between requests and writers, its budget of events, and who waits for what.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use super::pending::{Answer, Seat, Taken, Work};
use super::{Submission, SubmitError};

/// The bytes of bodies after which a writer gathers no more: a larger batch is no faster and costs memory twice, here and on
/// its way to the store. A single request may be larger.
const BATCH_BYTES: usize = 4 << 20;

/// While a batch is being committed, another writer begins the next one as soon as so large a part of a full batch waits. Less
/// waits for the end of the commit, and goes together: of 64 requests at a time with one event each, PostgreSQL's work for an
/// event is 28 µs so, and 58 µs with as many batches at a time as there are writers (22 000 events/s instead of 14 500; two
/// cores, `make bench`). In another run it was 24 µs, and 35, 31 and 28 with 16, 24 and 32 events
/// instead of 100, none of them faster.
const EVENTS_WORTH_A_WRITER: usize = 5;
/// The same of its bytes.
const BYTES_WORTH_A_WRITER: usize = 10;

/// But hardly longer than this (twice as long, if who waited before went elsewhere), so that a commit that takes long holds up nobody.
const PATIENCE: Duration = Duration::from_millis(2);

/// Requests that wait for a writer, in the order of their arrival.
#[derive(Debug)]
pub(super) struct Queue {
    state: Mutex<State>,
    ended: Notify,
    limits: Limits,
}

/// How many events the queue and a batch have.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// In memory: queued, or in a flush.
    pub(super) queue_events_max: usize,
    /// With so many a batch is full. A single request may have more.
    pub(super) batch_events: usize,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Waiting>,
    /// What those that wait have brought, also of such as have given up.
    waiting_events: usize,
    waiting_bytes: usize,
    /// What is in memory: tickets of requests that are queued or in a flush, with their number of events.
    outstanding: BTreeMap<u64, usize>,
    events: usize,
    /// Writers that have taken some.
    busy: usize,
    /// How writers that have nothing to do are called. The last one is called first: it has worked last, and its connection is
    /// the warmest.
    idle: Vec<oneshot::Sender<()>>,
    /// Whether one of them has an eye on those that wait.
    is_watched: bool,
    next_ticket: u64,
    is_closed: bool,
}

/// A request that waits for a writer, and what it has brought.
#[derive(Debug)]
struct Waiting {
    ticket: u64,
    events: usize,
    bytes: usize,
    seat: Arc<Seat>,
}

/// The queue is closed and empty: the writer may return.
pub(super) struct Closed;

/// What a writer has taken. It is busy until this is dropped.
pub(super) struct Taking<'q> {
    queue: &'q Queue,
    /// The requests.
    pub(super) group: Vec<Seated>,
}

impl Drop for Taking<'_> {
    fn drop(&mut self) {
        self.queue.lock().busy -= 1;
    }
}

/// A request in a writer's hands.
pub(super) type Seated = (Arc<Seat>, Box<Work>);

impl Queue {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            state: Mutex::default(),
            ended: Notify::new(),
            limits,
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
        if state.events + events.len() > self.limits.queue_events_max {
            return Err(SubmitError::Full);
        }
        let ticket = state.next_ticket;
        state.next_ticket += 1;
        state.events += events.len();
        state.outstanding.insert(ticket, events.len());
        let (events_brought, bytes_brought) = (events.len(), reservation.bytes());
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
        state.push_back(Waiting {
            ticket,
            events: events_brought,
            bytes: bytes_brought,
            seat: seat.clone(),
        });
        state.see_to_writer(self.limits);
        drop(state);
        Ok((seat, receiver))
    }

    /// Waits until what is waiting is worth a writer, or has waited for long enough.
    pub(super) async fn arrival(&self) -> Result<(), Closed> {
        loop {
            let (call, mut called) = oneshot::channel();
            let watched = {
                let mut state = self.lock();
                if state.waiting.is_empty() && state.is_closed {
                    return Err(Closed);
                }
                // Once it is closed nobody is called any more: all take what there is.
                if state.wants_writer(self.limits) || state.is_closed {
                    return Ok(());
                }
                state.idle.push(call);
                state.watch()
            };
            let Some(oldest) = watched else {
                // It is never dropped uncalled, for the queue lives as long as we do.
                called.await.ok();
                continue;
            };
            tokio::time::timeout(PATIENCE, &mut called).await.ok();
            let mut state = self.lock();
            state.is_watched = false;
            // From here on nobody else can take a call for us that is not listened to.
            called.close();
            state.idle.retain(|call| !call.is_closed());
            if state.oldest().is_some_and(|ticket| ticket <= oldest) {
                return Ok(());
            }
        }
    }

    /// Takes what is waiting, up to a full batch; calls another writer if what is left is worth one. Requests that gave up
    /// meanwhile are passed over, and another writer may have been faster, so it may be nothing.
    pub(super) fn take(&self) -> Taking<'_> {
        let mut state = self.lock();
        let group = state.gather(self.limits.batch_events);
        state.busy += 1;
        state.see_to_writer(self.limits);
        drop(state);
        Taking { queue: self, group }
    }

    /// Whether requests wait while every writer is busy.
    pub(super) fn is_starved(&self) -> bool {
        let state = self.lock();
        !state.waiting.is_empty() && state.idle.is_empty()
    }

    /// Calls another writer: the caller was called for something that it cannot take now.
    pub(super) fn call_another(&self) {
        self.lock().call_writer();
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
        while state.waiting.front().is_some_and(|waiting| waiting.seat.len() == 0) {
            state.pop_front();
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
        let mut state = self.lock();
        state.is_closed = true;
        for call in state.idle.drain(..) {
            // Who does not listen any more is about to look.
            call.send(()).ok();
        }
        drop(state);
        self.ended.notify_waiters();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics while it holds the queue")
    }
}

impl State {
    /// Whether what is waiting is worth a writer: nobody else is about to come for it, or it is much.
    fn wants_writer(&self, limits: Limits) -> bool {
        let is_much = self.waiting_events >= limits.batch_events / EVENTS_WORTH_A_WRITER
            || self.waiting_bytes >= BATCH_BYTES / BYTES_WORTH_A_WRITER;
        !self.waiting.is_empty() && (self.busy == 0 || is_much)
    }

    /// Calls a writer if what is waiting is worth one, or if nobody has an eye on it.
    fn see_to_writer(&mut self, limits: Limits) {
        if !self.waiting.is_empty() && (!self.is_watched || self.wants_writer(limits)) {
            self.call_writer();
        }
    }

    fn call_writer(&mut self) {
        while let Some(call) = self.idle.pop() {
            if call.send(()).is_ok() {
                return;
            }
        }
    }

    fn push_back(&mut self, waiting: Waiting) {
        self.waiting_events += waiting.events;
        self.waiting_bytes += waiting.bytes;
        self.waiting.push_back(waiting);
    }

    fn pop_front(&mut self) -> Option<Waiting> {
        let waiting = self.waiting.pop_front()?;
        self.waiting_events -= waiting.events;
        self.waiting_bytes -= waiting.bytes;
        Some(waiting)
    }

    fn oldest(&self) -> Option<u64> {
        self.waiting.front().map(|waiting| waiting.ticket)
    }

    /// Has an eye on those that wait, unless somebody has: answers with the oldest of them.
    fn watch(&mut self) -> Option<u64> {
        let oldest = self.oldest().filter(|_| !self.is_watched);
        self.is_watched |= oldest.is_some();
        oldest
    }

    fn gather(&mut self, batch_events: usize) -> Vec<Seated> {
        let (mut group, mut events, mut bytes) = (Vec::new(), 0, 0);
        while let Some(front) = self.waiting.front() {
            let is_first = group.is_empty();
            if !is_first && (events + front.seat.len() > batch_events || bytes >= BATCH_BYTES) {
                break;
            }
            let Some(Waiting { seat, .. }) = self.pop_front() else {
                break;
            };
            if let Taken::Work(work) = seat.take() {
                events += work.events.len();
                bytes += work.reservation.bytes();
                group.push((seat, work));
            }
        }
        group
    }
}
