//! The queue between requests and writers, and its limit on events.
//!
//! Small requests and large ones wait apart from each other, in a lane each, where clients take turns ([`Lane`]). A batch has requests of
//! one lane; where both wait they take turns, and while small requests come, one writer takes no large ones. So a client that sends one
//! event at a time waits for no client that sends ten thousand.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use super::lane::Lane;
use super::limits::{BATCH_BYTES, BYTES_WORTH_A_WRITER, EVENTS_WORTH_A_WRITER, Limits};
use super::pending::PendingRequest;
use super::pressure::Pressure;
use super::submission::{Answer, Submission, SubmitError};

/// But requests hardly wait longer than this (twice as long, if another writer took the older ones meanwhile), so that a slow
/// commit does not delay them.
const PATIENCE: Duration = Duration::from_millis(2);

/// For so long after a small request one writer is kept for the next ones.
const SMALL_REQUESTS_COME: Duration = Duration::from_secs(1);

/// Requests that wait for a writer.
#[derive(Debug)]
pub(super) struct Queue {
    state: Mutex<State>,
    ended: Notify,
    limits: Limits,
    pub(super) pressure: Pressure,
}

#[derive(Debug, Default)]
struct State {
    small: Lane,
    large: Lane,
    /// The requests in memory, queued or being committed: their tickets, with their numbers of events.
    outstanding: BTreeMap<u64, usize>,
    events: usize,
    /// Writers that are committing, and those of them that commit large requests.
    busy: u32,
    busy_with_large: u32,
    /// When the last small request came.
    small_came_at: Option<Instant>,
    /// Whether the last batch had small requests.
    was_small: bool,
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
    is_large: bool,
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        let mut state = self.queue.lock();
        state.busy -= 1;
        state.busy_with_large -= u32::from(self.is_large);
    }
}

impl Queue {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            state: Mutex::default(),
            ended: Notify::new(),
            limits,
            pressure: Pressure::default(),
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
        let (events, max) = (submission.events.len(), self.limits.queue_events_max);
        let is_small = self.limits.is_small(events, submission.reservation.bytes());
        // Large requests leave an eighth to small ones, but for one that is alone.
        let left_to_small = if is_small || state.events == 0 { 0 } else { max / 8 };
        if state.events + events > max - left_to_small {
            if is_small {
                self.pressure.refuse();
            }
            return Err(SubmitError::Full);
        }
        if is_small {
            self.pressure.admit();
        }
        let (request, answer) = PendingRequest::new(state.next_ticket, submission, deadline);
        let request = Arc::new(request);
        state.next_ticket += 1;
        state.events += request.event_count;
        state.outstanding.insert(request.ticket, request.event_count);
        if is_small {
            state.small_came_at = Some(Instant::now());
            state.small.push_back(request.clone());
        } else {
            state.large.push_back(request.clone());
        }
        state.wake_if_needed(self.limits);
        drop(state);
        Ok((request, answer))
    }

    /// Waits until the waiting requests are worth a writer, or have waited long enough.
    pub(super) async fn arrival(&self) -> Result<(), Closed> {
        loop {
            let (wake, mut woken) = oneshot::channel();
            let (watched, large_wait) = {
                let mut state = self.lock();
                if state.is_empty() && state.is_closed {
                    return Err(Closed);
                }
                // After the close no writer is woken any more: all take what there is.
                if state.wants_writer(self.limits) || state.is_closed {
                    return Ok(());
                }
                state.idle.push(wake);
                (state.watch(self.limits), !state.large.is_empty())
            };
            let Some(oldest) = watched else {
                // The sender is never dropped without a message, for the queue outlives its writers. A writer that is kept for small
                // requests looks again when none may have come for a while.
                let longest = if large_wait { SMALL_REQUESTS_COME } else { Duration::MAX };
                tokio::time::timeout(longest, &mut woken).await.ok();
                woken.close();
                self.lock().idle.retain(|wake| !wake.is_closed());
                continue;
            };
            tokio::time::timeout(PATIENCE, &mut woken).await.ok();
            let mut state = self.lock();
            state.is_watched = false;
            // From here on a wake-up goes to a writer that still listens.
            woken.close();
            state.idle.retain(|wake| !wake.is_closed());
            if state.oldest(self.limits).is_some_and(|ticket| ticket <= oldest) {
                return Ok(());
            }
        }
    }

    /// Claims the waiting requests, up to a full batch, and wakes another writer if the rest is worth one. Withdrawn requests are
    /// skipped, and another writer may have been faster, so there may be none.
    pub(super) fn claim(&self) -> Claim<'_> {
        let mut state = self.lock();
        let is_large = state.takes_large(self.limits);
        state.was_small = !is_large;
        let lane = if is_large { &mut state.large } else { &mut state.small };
        let requests = lane.claim_batch(self.limits.batch_events);
        state.busy += 1;
        state.busy_with_large += u32::from(is_large);
        state.wake_if_needed(self.limits);
        drop(state);
        Claim {
            queue: self,
            requests,
            is_large,
        }
    }

    /// Whether requests wait, and no writer is idle that may take them.
    pub(super) fn is_starved(&self) -> bool {
        let state = self.lock();
        let is_kept = !state.large.is_empty() && !state.may_take_large(self.limits);
        is_kept || !state.is_empty() && state.idle.is_empty()
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

    /// Withdraws a request at its deadline. `false` if a writer has claimed it. Withdrawn requests at the front of its
    /// client's queue are removed, so that this does not grow while the store is away.
    pub(super) fn withdraw(&self, request: &PendingRequest) -> bool {
        if !request.withdraw() {
            return false;
        }
        let mut state = self.lock();
        state.small.forget_withdrawn(request.client);
        state.large.forget_withdrawn(request.client);
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
        let state = self.lock();
        state.small.len() + state.large.len()
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
    fn is_empty(&self) -> bool {
        self.small.is_empty() && self.large.is_empty()
    }

    /// Whether a writer may take large requests now: not the last one while small requests come.
    fn may_take_large(&self, limits: Limits) -> bool {
        let small_come = self.small_came_at.is_some_and(|at| at.elapsed() < SMALL_REQUESTS_COME);
        !small_come || self.is_closed || limits.writers < 2 || self.busy_with_large + 1 < limits.writers
    }

    /// Whether the next batch is one of large requests.
    fn takes_large(&self, limits: Limits) -> bool {
        let waits = !self.large.is_empty() && self.may_take_large(limits);
        waits && (self.small.is_empty() || self.was_small)
    }

    /// The lanes from which a writer may take requests now.
    fn open_lanes(&self, limits: Limits) -> impl Iterator<Item = &Lane> {
        let large = self.may_take_large(limits).then_some(&self.large);
        [Some(&self.small), large].into_iter().flatten()
    }

    /// Whether the waiting requests are worth a writer: they are many, or no other writer is about to take them.
    fn wants_writer(&self, limits: Limits) -> bool {
        let (mut events, mut bytes, mut waits) = (0, 0, false);
        for lane in self.open_lanes(limits) {
            events += lane.events;
            bytes += lane.bytes;
            waits |= !lane.is_empty();
        }
        let is_much =
            events >= limits.batch_events / EVENTS_WORTH_A_WRITER || bytes >= BATCH_BYTES / BYTES_WORTH_A_WRITER;
        waits && (self.busy == 0 || is_much)
    }

    /// Wakes a writer if the waiting requests are worth one, or if none watches them.
    fn wake_if_needed(&mut self, limits: Limits) {
        if !self.is_empty() && (!self.is_watched || self.wants_writer(limits)) {
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

    /// The ticket of the oldest request that a writer may take.
    fn oldest(&self, limits: Limits) -> Option<u64> {
        self.open_lanes(limits).filter_map(Lane::oldest).min()
    }

    /// Watches the waiting requests, unless another writer does. Returns the ticket of the oldest.
    fn watch(&mut self, limits: Limits) -> Option<u64> {
        let oldest = self.oldest(limits).filter(|_| !self.is_watched);
        self.is_watched |= oldest.is_some();
        oldest
    }
}
