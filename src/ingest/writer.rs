//! A writer: claims the waiting requests, commits their events as one batch, and answers every request with its own outcomes.

mod commit;
mod connection;
mod in_doubt;
mod outcomes;
mod poison;
mod result;

use std::sync::Arc;

use tokio::time::Instant;

use self::outcomes::outcomes;
use self::result::CommitFailure;
use super::heavy::in_place;
use super::pending::PendingRequest;
use super::shared::Shared;
use super::submission::{Answer, SubmitError};
use crate::store::backoff::Backoff;
use crate::store::{Appender, Batch, EventWriter};

/// The digests of more events keep a processor busy for long.
const EVENTS_HEAVY: usize = 1000;

/// One of the writers of an ingest.
pub struct Writer {
    writer_id: u32,
    store: Arc<dyn EventWriter>,
    shared: Arc<Shared>,
    /// The connection, unless it broke.
    appender: Option<Box<dyn Appender>>,
    /// When the connection was last known to work.
    used_at: Instant,
    /// How many connections were known to have broken then.
    broken_connections: u64,
    backoff: Backoff,
}

/// What became of claimed requests after a group commit.
enum GroupOutcome {
    /// Every request was answered.
    Answered,
    /// The store rejects an event of these requests, which are still claimed.
    Poison(Vec<Arc<PendingRequest>>),
    /// Certainly nothing was stored; the requests may withdraw until they are claimed again.
    NotStored(Vec<Arc<PendingRequest>>),
}

impl Writer {
    pub(super) fn new(writer_id: u32, store: Arc<dyn EventWriter>, shared: Arc<Shared>) -> Self {
        Self {
            writer_id,
            store,
            shared,
            appender: None,
            used_at: Instant::now(),
            broken_connections: 0,
            backoff: Backoff::default(),
        }
    }

    /// Commits until the ingest is closed and the queue is empty.
    ///
    /// It claims nothing before it has a connection: requests that wait while the store is away can still be answered that
    /// nothing was stored.
    pub async fn run(mut self) {
        let shared = self.shared.clone();
        self.connect().await;
        while shared.queue.arrival().await.is_ok() {
            self.connect().await;
            let mut claim = shared.queue.claim();
            self.commit(std::mem::take(&mut claim.requests)).await;
        }
    }

    /// Commits claimed requests until each is answered, or has withdrawn between two attempts.
    async fn commit(&mut self, requests: Vec<Arc<PendingRequest>>) {
        let mut groups = vec![requests];
        while let Some(requests) = groups.pop() {
            match self.commit_group(requests).await {
                GroupOutcome::Answered => {}
                GroupOutcome::Poison(mut requests) if requests.len() > 1 => {
                    // Bisect by request: the others must not suffer.
                    let rest = requests.split_off(requests.len() / 2);
                    groups.extend([rest, requests]);
                }
                // The search for poison events takes long, so all other requests are stored first.
                GroupOutcome::Poison(requests) if !groups.is_empty() => groups.insert(0, requests),
                GroupOutcome::Poison(requests) => {
                    for request in requests {
                        groups.extend(self.commit_without_poison(request).await);
                    }
                }
                GroupOutcome::NotStored(requests) => {
                    // While the store is away, every request of every group may withdraw.
                    groups.iter().flatten().for_each(|request| request.unclaim());
                    groups.push(requests);
                    tokio::time::sleep(self.backoff.next_wait()).await;
                    self.connect().await;
                    groups = groups.into_iter().map(|requests| self.claim_again(requests)).collect();
                }
            }
        }
    }

    /// Commits the events of claimed requests as one batch, and answers the requests if the outcome is final.
    async fn commit_group(&mut self, requests: Vec<Arc<PendingRequest>>) -> GroupOutcome {
        if requests.is_empty() {
            return GroupOutcome::Answered;
        }
        let mut events = Vec::with_capacity(requests.iter().map(|request| request.event_count).sum());
        for request in &requests {
            events.append(&mut request.take_events());
        }
        let (batch, row_of) = if events.len() > EVENTS_HEAVY {
            in_place(|| Batch::new(events))
        } else {
            Batch::new(events)
        };
        match self.commit_batch(&batch, &requests).await {
            Ok(committed) => {
                let mut outcomes = outcomes(&batch, &row_of, &committed.appended).into_iter();
                self.hand_off(batch, &committed, &requests);
                for request in requests {
                    let own = outcomes.by_ref().take(request.event_count).collect();
                    self.answer(&request, Ok(own));
                }
                GroupOutcome::Answered
            }
            Err(CommitFailure::Unknown) => {
                for request in requests {
                    if request.deadline.is_none() {
                        // An asynchronous request was answered before, so its events are counted here.
                        self.shared.count_failed(&SubmitError::Unknown, request.event_count);
                    }
                    self.answer(&request, Err(SubmitError::Unknown));
                }
                GroupOutcome::Answered
            }
            Err(failure) => {
                let mut events = batch.into_events().into_iter();
                for request in &requests {
                    request.put_back(events.by_ref().take(request.event_count).collect());
                }
                if failure == CommitFailure::Poison {
                    return GroupOutcome::Poison(requests);
                }
                requests.iter().for_each(|request| request.unclaim());
                GroupOutcome::NotStored(requests)
            }
        }
    }

    /// Claims requests once more, without those that have withdrawn meanwhile. A request whose deadline has passed was answered
    /// while it was claimed, and is dropped: nothing of it was stored.
    fn claim_again(&self, mut requests: Vec<Arc<PendingRequest>>) -> Vec<Arc<PendingRequest>> {
        requests.retain(|request| {
            let is_claimed = request.claim();
            if is_claimed && request.is_late() {
                self.answer(request, Err(SubmitError::TooLate));
                return false;
            }
            is_claimed
        });
        requests
    }

    /// Ends a claimed request. Its room is free before the client can see the answer.
    fn answer(&self, request: &PendingRequest, answer: Answer) {
        let client = request.end();
        self.shared.queue.ended(request.ticket);
        if client.is_some_and(|client| client.send(answer).is_err()) {
            tracing::debug!("a request went away before its answer");
        }
    }
}
