//! Poison events: finds the events of a request that the store rejects, and decides about the rest of the request.

use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use super::Writer;
use super::outcomes::outcomes;
use super::result::CommitFailure;
use crate::event::Event;
use crate::ingest::pending::PendingRequest;
use crate::ingest::submission::{EventOutcome, Handling, SubmitError};
use crate::metrics::OutcomeLabel;
use crate::store::{Batch, ErrorClass, GroupCommit, StoreError};

/// How many dry runs the search for poison events may cost; events that are not cleared by then are rejected.
const DRY_RUNS_MAX: u32 = 256;

impl Writer {
    /// Finds the poison events of a claimed request and answers it: a strict request is rejected; of a lenient one the other
    /// events are stored. Without an answer the request comes back, claimed, to be committed again.
    pub(super) async fn commit_without_poison(
        &mut self,
        request: Arc<PendingRequest>,
    ) -> Option<Vec<Arc<PendingRequest>>> {
        let mut events = request.take_events();
        let poison = match self.find_poison(&events).await {
            Ok(poison) if !poison.is_empty() => poison,
            // The store rejects nothing any more, or it failed during the search: start again, and meanwhile let the request
            // withdraw.
            other => {
                if let Err(error) = other {
                    self.shared.report(&error);
                }
                request.put_back(events);
                request.unclaim();
                tokio::time::sleep(self.backoff.next_wait()).await;
                return Some(self.claim_again(vec![request]));
            }
        };
        self.count_rejected(poison.len());
        let answer = if request.handling == Handling::Lenient && poison.len() < events.len() {
            self.store_the_others(&request, events, &poison).await
        } else {
            events.clear();
            Err(SubmitError::Refused(poison))
        };
        self.answer(&request, answer);
        None
    }

    /// Stores the events of a lenient request that are not poison, in one group commit.
    async fn store_the_others(
        &mut self,
        request: &Arc<PendingRequest>,
        events: Vec<Event>,
        poison: &[usize],
    ) -> Result<Vec<EventOutcome>, SubmitError> {
        let is_poison = |index: &usize| poison.binary_search(index).is_ok();
        let total = events.len();
        let good: Vec<Event> = events
            .into_iter()
            .enumerate()
            .filter(|(index, _)| !is_poison(index))
            .map(|(_, event)| event)
            .collect();
        let (batch, row_of) = Batch::new(good);
        let requests = std::slice::from_ref(request);
        let result = loop {
            match self.commit_batch(&batch, requests).await {
                Err(CommitFailure::NotStored) if !request.is_late() => {
                    tokio::time::sleep(self.backoff.next_wait()).await;
                }
                result => break result,
            }
        };
        match result {
            Ok(committed) => {
                let mut outcomes = outcomes(&batch, &row_of, &committed.appended).into_iter();
                self.hand_off(batch, &committed, requests);
                let outcome = |index| {
                    if is_poison(&index) {
                        Some(EventOutcome::Refused)
                    } else {
                        outcomes.next()
                    }
                };
                Ok((0..total).filter_map(outcome).collect())
            }
            Err(CommitFailure::Unknown) => Err(SubmitError::Unknown),
            Err(CommitFailure::NotStored) => Err(SubmitError::TooLate),
            Err(CommitFailure::Poison) => Err(SubmitError::Refused((0..total).collect())),
        }
    }

    /// The indices of the poison events, found by bisection with dry runs.
    async fn find_poison(&mut self, events: &[Event]) -> Result<Vec<usize>, StoreError> {
        let mut poison = Vec::new();
        let mut ranges = vec![(0, events.len())];
        let mut dry_runs = 0;
        while let Some((start, end)) = ranges.pop() {
            dry_runs += 1;
            if dry_runs <= DRY_RUNS_MAX && self.is_accepted(&events[start..end]).await? {
                continue;
            }
            if end - start == 1 || dry_runs > DRY_RUNS_MAX {
                poison.extend(start..end);
            } else {
                let middle = start.midpoint(end);
                ranges.extend([(middle, end), (start, middle)]);
            }
        }
        poison.sort_unstable();
        Ok(poison)
    }

    /// Whether a dry run takes these events.
    async fn is_accepted(&mut self, events: &[Event]) -> Result<bool, StoreError> {
        let (batch, _) = Batch::new(events.to_vec());
        let commit = GroupCommit {
            id: Uuid::new_v4(),
            batch: &batch,
            lease: None,
            lock_limit: Duration::MAX,
        };
        match self.dry_run(&commit).await {
            Ok(()) => Ok(true),
            Err(error) if error.class == ErrorClass::Data => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Counts events that the store rejected, and logs them: an asynchronous request has no other answer.
    fn count_rejected(&self, events: usize) {
        self.shared
            .metrics
            .events_of(OutcomeLabel::Rejected)
            .inc_by(events as u64);
        tracing::warn!(events, "the store rejected events of a request: they were not stored");
    }
}
