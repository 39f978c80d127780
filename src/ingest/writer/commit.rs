//! One group commit: its attempts under one id, its trace, and what follows a success.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::Writer;
use super::in_doubt::InDoubtCommit;
use super::outcomes::commit_of;
use super::result::{CommitFailure, CommittedBatch};
use crate::event::{StoredEvent, Trace};
use crate::ingest::pending::PendingRequest;
use crate::sink::Committed;
use crate::store::{Batch, ErrorClass, GroupCommit, Lease, LogPosition, Outcome};
use crate::telemetry::Step;

/// So long before its deadline a request has its turn back from a commit that has not begun.
const BEFORE_DEADLINE: Duration = Duration::from_millis(200);

impl Writer {
    /// Commits a batch; the traces of its requests and the metrics record it.
    pub(super) async fn commit_batch(
        &mut self,
        batch: &Batch,
        requests: &[Arc<PendingRequest>],
    ) -> Result<CommittedBatch, CommitFailure> {
        let begun = Instant::now();
        let mut attempts = 0;
        let result = self.attempts(&mut attempts, batch, requests).await;
        let traces: Vec<&Trace> = requests.iter().filter_map(|request| request.trace.as_ref()).collect();
        if !traces.is_empty() {
            step(begun, attempts, &result)
                .with("store", self.store.name())
                .count("batch.events", batch.len())
                .count("batch.requests", requests.len())
                .end(traces);
        }
        if let Err(failure) = &result {
            self.shared.metrics.group_commits_of(failure.outcome()).inc();
        }
        result
    }

    /// Attempts under one id, which are counted, until the batch is known to be committed, is known not to be, or is given up.
    async fn attempts(
        &mut self,
        count: &mut usize,
        batch: &Batch,
        requests: &[Arc<PendingRequest>],
    ) -> Result<CommittedBatch, CommitFailure> {
        let lease = self.shared.handoff.lease().map(|lease| Lease {
            owner: lease.owner,
            length: lease.length,
        });
        let since = Instant::now();
        let commit = GroupCommit {
            // Without a system call.
            id: uuid::Builder::from_random_bytes(rand::random()).into_uuid(),
            batch,
            lease,
            lock_limit: lock_limit(requests),
        };
        let mut in_doubt = InDoubtCommit::default();
        loop {
            let begun = Instant::now();
            *count += 1;
            self.shared.metrics.group_commit_attempts.inc();
            match self.attempt(&commit).await {
                Ok(appended) => {
                    let counts = commit_of(batch, &appended, begun.elapsed());
                    self.shared.metrics.record_commit(counts);
                    self.shared.set_last_error(None);
                    self.backoff.reset();
                    return Ok(CommittedBatch {
                        appended,
                        since,
                        is_leased: lease.is_some_and(|lease| !lease.length.is_zero()),
                    });
                }
                // This resolves an in-doubt commit, too: had an attempt committed, this one had found its row in the ledger.
                Err(error) if error.class == ErrorClass::Data => {
                    self.shared.metrics.count_store_error(error.class.as_str());
                    return Err(CommitFailure::Poison);
                }
                Err(error) => {
                    self.shared.report(&error);
                    in_doubt.note(error.class);
                    if !in_doubt.is_ambiguous() {
                        return Err(CommitFailure::NotStored);
                    }
                    if in_doubt.is_over(requests) {
                        tracing::error!(
                            batch.len = batch.len(),
                            "giving up on a group commit whose outcome is unknown: its events may or may not be stored"
                        );
                        return Err(CommitFailure::Unknown);
                    }
                    tokio::time::sleep(self.backoff.next_wait()).await;
                }
            }
        }
    }

    /// Puts the stored events into the handoff queue. This comes before the requests are answered: an event that is published
    /// after an answer must also come later in the sink.
    ///
    /// `batch` holds the events of all requests in their order. For a single request it may hold fewer, without those that the
    /// store rejected.
    pub(super) fn hand_off(&self, batch: Batch, committed: &CommittedBatch, requests: &[Arc<PendingRequest>]) {
        let appended = &committed.appended;
        let mut positions = vec![None; batch.len()];
        for (row, outcome) in batch.rows().iter().zip(&appended.outcomes) {
            if let Outcome::Stored(position) = outcome {
                positions[row.position as usize] = Some(*position);
            }
        }
        let traces = requests
            .iter()
            .flat_map(|request| std::iter::repeat_n(&request.trace, request.event_count));
        let stored = |((event, position), trace): ((_, Option<LogPosition>), &Option<Trace>)| {
            position.map(|position| StoredEvent {
                event,
                received_at: position.received_at,
                cursor: position.cursor,
                trace: trace.clone(),
            })
        };
        let with_positions = batch.into_events().into_iter().zip(positions);
        let events: Vec<StoredEvent> = with_positions.zip(traces).filter_map(stored).collect();
        if !events.is_empty() {
            self.shared.handoff.push(Committed {
                batch: appended.batch,
                events,
                bytes: requests.iter().map(|request| request.bytes).sum(),
                since: committed.since,
                is_leased: committed.is_leased,
            });
        }
    }
}

/// How long a commit of these requests may wait for the lock of the store: until a moment before the first of them must be answered, so
/// that the answer can be that nothing was stored.
fn lock_limit(requests: &[Arc<PendingRequest>]) -> Duration {
    let deadline = requests.iter().filter_map(|request| request.deadline).min();
    deadline.map_or(Duration::MAX, |deadline| {
        deadline
            .saturating_duration_since(Instant::now())
            .saturating_sub(BEFORE_DEADLINE)
    })
}

/// The group commit as a step in the traces of its requests: it began at `begun` and took this many attempts.
fn step(begun: Instant, attempts: usize, result: &Result<CommittedBatch, CommitFailure>) -> Step {
    let step = Step::new("ingest.commit", begun).count("attempts", attempts);
    match result {
        Ok(committed) => step.with("batch", committed.appended.batch),
        Err(CommitFailure::Unknown) => step.failed("the outcome is unknown"),
        Err(CommitFailure::NotStored) => step.failed("nothing was stored"),
        Err(CommitFailure::Poison) => step.failed("the store rejected events"),
    }
}
