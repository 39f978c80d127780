//! The queue between requests and writers, and its limit on events.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use super::pending::PendingRequest;
use super::submission::{Answer, Submission, SubmitError};

/// The bytes of bodies after which a writer adds no more requests to its batch: a larger batch is no faster and costs memory
/// twice, here and on its way to the store. A single request may be larger.
const BATCH_BYTES: usize = 4 << 20;

/// While a batch is being committed, another writer starts the next one as soon as this fraction (one fifth) of a full batch is
/// waiting. Fewer events wait for the end of the commit, and are committed together. With 64 concurrent requests of one event
/// each, PostgreSQL then spends 28 µs on an event, against 58 µs with as many concurrent batches as there are writers (22 000
/// events/s instead of 14 500; two cores, `make bench`). Another run measured 24 µs, and 35, 31 and 28 µs with thresholds of
/// 16, 24 and 32 events instead of 100; none of them was faster.
const EVENTS_WORTH_A_WRITER: usize = 5;
/// The same for the bytes of a batch (one tenth).
const BYTES_WORTH_A_WRITER: usize = 10;

/// But requests hardly wait longer than this (twice as long, if another writer took the older ones meanwhile), so that a slow
/// commit does not delay them.
const PATIENCE: Duration = Duration::from_millis(2);

/// Requests that wait for a writer, in the order of their arrival.
#[derive(Debug)]
pub(super) struct Queue {
    state: Mutex<State>,
    ended: Notify,
    limits: Limits,
}

/// How many events the queue and a batch may have.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// In memory: queued, or being committed.
    pub(super) queue_events_max: usize,
    /// With this number a batch is full. A single request may have more.
    pub(super) batch_events: usize,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Arc<PendingRequest>>,
    /// The events and bytes of `waiting`, withdrawn requests included.
    waiting_events: usize,
    waiting_bytes: usize,
    /// The requests in memory, queued or being committed: their tickets, with their numbers of events.
    outstanding: BTreeMap<u64, usize>,
    events: usize,
    /// Writers that are committing.
    busy: usize,
    /// Wakes idle writers. The last one is woken first: it worked last, and its connection is the warmest.
    idle: Vec<oneshot::Sender<()>>,
    /// Whether an idle writer is waiting out [`PATIENCE`] for the oldest request.
    is_watched: bool,
    next_ticket: u64,
    is_closed: bool,
}

/// The queue is closed and empty: the writer may return.
pub(super) struct Closed;

/// The requests that a writer has claimed. The writer counts as busy until this is dropped.
pub(super) struct Claim<'q> {
    queue: &'q Queue,
    pub(super) requests: Vec<Arc<PendingRequest>>,
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        self.queue.lock().busy -= 1;
    }
}

impl Queue {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            state: Mutex::default(),
            ended: Notify::new(),
            limits,
        }
    }

    /// Queues a request, or rejects it at once.
    pub(super) fn push(
        &self,
        submission: Submission,
        deadline: Option<Instant>,
    ) -> Result<(Arc<PendingRequest>, oneshot::Receiver<Answer>), SubmitError> {
        let mut state = self.lock();
        if state.is_closed {
            return Err(SubmitError::Stopping);
        }
        if state.events + submission.events.len() > self.limits.queue_events_max {
            return Err(SubmitError::Full);
        }
        let (request, answer) = PendingRequest::new(state.next_ticket, submission, deadline);
        let request = Arc::new(request);
        state.next_ticket += 1;
        state.events += request.event_count;
        state.outstanding.insert(request.ticket, request.event_count);
        state.push_back(request.clone());
        state.wake_if_needed(self.limits);
        drop(state);
        Ok((request, answer))
    }

    /// Waits until the waiting requests are worth a writer, or have waited long enough.
    pub(super) async fn arrival(&self) -> Result<(), Closed> {
        loop {
            let (wake, mut woken) = oneshot::channel();
            let watched = {
                let mut state = self.lock();
                if state.waiting.is_empty() && state.is_closed {
                    return Err(Closed);
                }
                // After the close no writer is woken any more: all take what there is.
                if state.wants_writer(self.limits) || state.is_closed {
                    return Ok(());
                }
                state.idle.push(wake);
                state.watch()
            };
            let Some(oldest) = watched else {
                // The sender is never dropped without a message, for the queue outlives its writers.
                woken.await.ok();
                continue;
            };
            tokio::time::timeout(PATIENCE, &mut woken).await.ok();
            let mut state = self.lock();
            state.is_watched = false;
            // From here on a wake-up goes to a writer that still listens.
            woken.close();
            state.idle.retain(|wake| !wake.is_closed());
            if state.oldest().is_some_and(|ticket| ticket <= oldest) {
                return Ok(());
            }
        }
    }

    /// Claims the waiting requests, up to a full batch, and wakes another writer if the rest is worth one. Withdrawn requests are
    /// skipped, and another writer may have been faster, so there may be none.
    pub(super) fn claim(&self) -> Claim<'_> {
        let mut state = self.lock();
        let requests = state.claim_batch(self.limits.batch_events);
        state.busy += 1;
        state.wake_if_needed(self.limits);
        drop(state);
        Claim { queue: self, requests }
    }

    /// Whether requests wait while every writer is busy.
    pub(super) fn is_starved(&self) -> bool {
        let state = self.lock();
        !state.waiting.is_empty() && state.idle.is_empty()
    }

    /// Wakes another writer: the caller was woken for requests that it cannot take now.
    pub(super) fn wake_another(&self) {
        self.lock().wake_writer();
    }

    /// Waits until the queue is closed and every request has ended.
    pub(super) async fn drained(&self) {
        self.until(|state| state.is_closed && state.outstanding.is_empty())
            .await;
    }

    /// Frees the room of a request whose commit has ended, or never began.
    pub(super) fn ended(&self, ticket: u64) {
        let mut state = self.lock();
        if let Some(events) = state.outstanding.remove(&ticket) {
            state.events -= events;
        }
        drop(state);
        self.ended.notify_waiters();
    }

    /// Withdraws a request at its deadline. `false` if a writer has claimed it. Withdrawn requests at the front of the queue are
    /// removed, so that the queue does not grow while the store is away.
    pub(super) fn withdraw(&self, request: &PendingRequest) -> bool {
        if !request.withdraw() {
            return false;
        }
        let mut state = self.lock();
        while state.waiting.front().is_some_and(|front| front.is_withdrawn()) {
            state.pop_front();
        }
        drop(state);
        self.ended(request.ticket);
        true
    }

    /// The ticket below which every request was accepted by now, and the number of outstanding events.
    pub(super) fn accepted(&self) -> (u64, usize) {
        let state = self.lock();
        (state.next_ticket, state.events)
    }

    /// Waits until every request below `ticket` has ended.
    pub(super) async fn finished(&self, ticket: u64) {
        self.until(|state| {
            let oldest = state.outstanding.first_key_value();
            oldest.is_none_or(|(oldest, _)| *oldest >= ticket)
        })
        .await;
    }

    /// Waits until the state is as `holds` says; looks again whenever a request has ended.
    async fn until(&self, holds: impl Fn(&State) -> bool) {
        loop {
            let ended = self.ended.notified();
            let mut ended = std::pin::pin!(ended);
            ended.as_mut().enable();
            if holds(&self.lock()) {
                return;
            }
            ended.await;
        }
    }

    pub(super) fn events(&self) -> usize {
        self.lock().events
    }

    /// The length of the queue, withdrawn requests included.
    #[cfg(test)]
    pub(super) fn waiting(&self) -> usize {
        self.lock().waiting.len()
    }

    pub(super) fn close(&self) {
        let mut state = self.lock();
        state.is_closed = true;
        for wake in state.idle.drain(..) {
            // A writer that has stopped listening is about to look by itself.
            wake.send(()).ok();
        }
        drop(state);
        self.ended.notify_waiters();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state
            .lock()
            .expect("no code panics while it holds the lock of the queue")
    }
}

impl State {
    /// Whether the waiting requests are worth a writer: they are many, or no other writer is about to take them.
    fn wants_writer(&self, limits: Limits) -> bool {
        let is_much = self.waiting_events >= limits.batch_events / EVENTS_WORTH_A_WRITER
            || self.waiting_bytes >= BATCH_BYTES / BYTES_WORTH_A_WRITER;
        !self.waiting.is_empty() && (self.busy == 0 || is_much)
    }

    /// Wakes a writer if the waiting requests are worth one, or if none watches them.
    fn wake_if_needed(&mut self, limits: Limits) {
        if !self.waiting.is_empty() && (!self.is_watched || self.wants_writer(limits)) {
            self.wake_writer();
        }
    }

    fn wake_writer(&mut self) {
        while let Some(wake) = self.idle.pop() {
            if wake.send(()).is_ok() {
                return;
            }
        }
    }

    fn push_back(&mut self, request: Arc<PendingRequest>) {
        self.waiting_events += request.event_count;
        self.waiting_bytes += request.bytes;
        self.waiting.push_back(request);
    }

    fn pop_front(&mut self) -> Option<Arc<PendingRequest>> {
        let request = self.waiting.pop_front()?;
        self.waiting_events -= request.event_count;
        self.waiting_bytes -= request.bytes;
        Some(request)
    }

    /// The ticket of the oldest waiting request.
    fn oldest(&self) -> Option<u64> {
        self.waiting.front().map(|request| request.ticket)
    }

    /// Watches the waiting requests, unless another writer does. Returns the ticket of the oldest.
    fn watch(&mut self) -> Option<u64> {
        let oldest = self.oldest().filter(|_| !self.is_watched);
        self.is_watched |= oldest.is_some();
        oldest
    }

    /// Claims requests from the front until a batch is full.
    fn claim_batch(&mut self, batch_events: usize) -> Vec<Arc<PendingRequest>> {
        let (mut claimed, mut events, mut bytes) = (Vec::new(), 0, 0);
        while let Some(front) = self.waiting.front() {
            let is_full = events + front.event_count > batch_events || bytes >= BATCH_BYTES;
            if is_full && !claimed.is_empty() && !front.is_withdrawn() {
                break;
            }
            let Some(request) = self.pop_front() else { break };
            if request.claim() {
                events += request.event_count;
                bytes += request.bytes;
                claimed.push(request);
            }
        }
        claimed
    }
}
