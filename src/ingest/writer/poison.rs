//! What the store refuses of a request: the search for it, and what becomes of the rest.

use std::sync::Arc;

use uuid::Uuid;

use super::in_doubt::Failure;
use super::{ATTEMPT_TIMEOUT, Writer, put_back, verdicts};
use crate::event::Event;
use crate::ingest::pending::{Seat, Work};
use crate::ingest::queue::Seated;
use crate::ingest::{EventOutcome, Handling, SubmitError};
use crate::metrics::OutcomeLabel;
use crate::store::{Batch, ErrorClass, GroupCommit, StoreError};

/// How many rehearsals the search for events that the store refuses may cost; what is not cleared by then is refused.
const REHEARSALS_MAX: u32 = 256;

impl Writer {
    /// Finds the events of a single request that the store refuses. A strict request is refused for them; what is left of a
    /// lenient one comes back, to be stored.
    pub(super) async fn without_culprits(&mut self, mut group: Vec<Seated>) -> Option<Vec<Seated>> {
        let (seat, mut work) = group.pop()?;
        let culprits = match self.culprits(&work.events).await {
            Ok(culprits) if !culprits.is_empty() => culprits,
            // Nothing is refused any more, or the store went away in the middle of the search: from the beginning, while
            // the request may still give up.
            other => {
                if let Err(error) = other {
                    self.report(&error);
                }
                let seat = put_back((seat, work));
                tokio::time::sleep(self.backoff.next_wait()).await;
                return Some(self.retake(vec![seat]));
            }
        };
        self.count_refused(culprits.len());
        match work.handling {
            Handling::Lenient if culprits.len() < work.events.len() => {
                self.store_the_rest(seat, work, &culprits).await;
                None
            }
            Handling::Strict | Handling::Lenient => {
                let answer = Err(SubmitError::Refused(culprits));
                work.events.clear();
                self.answer(*work, answer);
                None
            }
        }
    }

    /// Stores what the store does not refuse of a lenient request, as one flush, and answers for all of it.
    async fn store_the_rest(&mut self, seat: Arc<Seat>, mut work: Box<Work>, culprits: &[usize]) {
        let all = std::mem::take(&mut work.events);
        let is_culprit = |index: &usize| culprits.binary_search(index).is_ok();
        let total = all.len();
        let good: Vec<Event> = all
            .into_iter()
            .enumerate()
            .filter(|(index, _)| !is_culprit(index))
            .map(|(_, e)| e)
            .collect();
        let (batch, row_of) = Batch::new(good);
        let group = [(seat, work)];
        let result = loop {
            match self.append(&batch, &group).await {
                Err(Failure::Definite) if !group[0].1.is_late() => tokio::time::sleep(self.backoff.next_wait()).await,
                result => break result,
            }
        };
        let answer = match result {
            Ok(flushed) => {
                let mut verdicts = verdicts(&batch, &row_of, &flushed.appended).into_iter();
                let count = batch.len();
                self.hand_over(batch, &flushed, &group, &[count]);
                let verdict = |index| {
                    if is_culprit(&index) {
                        Some(EventOutcome::Refused)
                    } else {
                        verdicts.next()
                    }
                };
                Ok((0..total).filter_map(verdict).collect())
            }
            Err(Failure::Unknown) => Err(SubmitError::Unknown),
            Err(Failure::Definite) => Err(SubmitError::TooLate),
            Err(Failure::Refused) => Err(SubmitError::Refused((0..total).collect())),
        };
        let [(_, work)] = group;
        self.answer(*work, answer);
    }

    /// The indices of the events that the store refuses, by rehearsing halves and halves of halves.
    async fn culprits(&mut self, events: &[Event]) -> Result<Vec<usize>, StoreError> {
        let mut culprits = Vec::new();
        let mut ranges = vec![(0, events.len())];
        let mut rehearsals = 0;
        while let Some((start, end)) = ranges.pop() {
            rehearsals += 1;
            if rehearsals <= REHEARSALS_MAX && self.is_accepted(&events[start..end]).await? {
                continue;
            }
            if end - start == 1 || rehearsals > REHEARSALS_MAX {
                culprits.extend(start..end);
            } else {
                let middle = start.midpoint(end);
                ranges.extend([(middle, end), (start, middle)]);
            }
        }
        culprits.sort_unstable();
        Ok(culprits)
    }

    async fn is_accepted(&mut self, events: &[Event]) -> Result<bool, StoreError> {
        let (batch, _) = Batch::new(events.to_vec());
        let mut appender = self.appender().await?;
        let result = appender
            .dry_run(
                &GroupCommit {
                    id: Uuid::new_v4(),
                    batch: &batch,
                    lease: None,
                },
                ATTEMPT_TIMEOUT,
            )
            .await;
        self.keep_unless_broken(appender, &result);
        match result {
            Ok(()) => Ok(true),
            Err(error) if error.class == ErrorClass::Data => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Counts events that the store refused, and says so: nobody may be waiting to hear it.
    fn count_refused(&self, events: usize) {
        self.shared
            .metrics
            .events_of(OutcomeLabel::Rejected)
            .inc_by(events as u64);
        tracing::warn!(events, "the store refused events");
    }
}
