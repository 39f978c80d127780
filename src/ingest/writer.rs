//! A writer: takes what is waiting, commits it as one batch, and answers every request with its own verdicts.

mod in_doubt;
mod outcomes;
mod poison;
mod steps;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::Instant;

use self::in_doubt::{Doubt, Failure};
use self::outcomes::{commit_of, verdicts};
use super::pending::{Answer, Seat, Taken, Work};
use super::queue::Seated;
use super::{Shared, SubmitError};
use crate::event::{StoredEvent, Trace};
use crate::sink::Committed;
use crate::store::backoff::Backoff;
use crate::store::{
    Appended, Appender, Batch, ErrorClass, EventWriter, GroupCommit, Lease, LogPosition, Outcome, StoreError,
};

/// How long one attempt to commit may take before its outcome counts as unknown and it is sent again elsewhere.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(5);

/// A connection that was idle for longer, or that was there when another one broke, is asked whether it still works before
/// it is used: one round trip, which a service under load never makes.
const IDLE_TRUSTED: Duration = Duration::from_secs(1);
/// How long that may take.
const PING_TIMEOUT: Duration = Duration::from_secs(1);

/// One of the writers of an ingest.
pub struct Writer {
    writer_id: u32,
    store: Arc<dyn EventWriter>,
    shared: Arc<Shared>,
    appender: Option<Box<dyn Appender>>,
    /// When the connection was last known to work.
    used: Instant,
    /// The number of breaks that were known then.
    breaks: u64,
    backoff: Backoff,
}

/// What to do with a group after an attempt.
enum Step {
    /// Every request was answered.
    Done,
    /// The store refuses something in it.
    Refused(Vec<Seated>),
    /// Surely nothing was stored; the work is back in its seats.
    Again(Vec<Arc<Seat>>),
}

/// A flush that was committed, and the lease that it was committed under.
#[derive(Debug)]
struct Flushed {
    appended: Appended,
    /// When the flush began.
    since: Instant,
    /// Whether the lease kept others away from the commit on.
    is_leased: bool,
}

impl Writer {
    pub(super) fn new(writer_id: u32, store: Arc<dyn EventWriter>, shared: Arc<Shared>) -> Self {
        Self {
            writer_id,
            store,
            shared,
            appender: None,
            used: Instant::now(),
            breaks: 0,
            backoff: Backoff::default(),
        }
    }

    /// Commits until the ingest is closed and the queue is empty.
    ///
    /// Nothing is taken out of the queue before there is a connection for it: what waits while the store is gone can still
    /// be told that nothing was stored.
    pub async fn run(mut self) {
        let shared = self.shared.clone();
        self.connect().await;
        while shared.queue.arrival().await.is_ok() {
            self.connect().await;
            let mut taking = shared.queue.take();
            self.commit(std::mem::take(&mut taking.group)).await;
        }
    }

    /// Sees to it that there is a connection that works, for as long as that takes; gives up only when the ingest is closed
    /// and nobody waits any more.
    async fn connect(&mut self) {
        if let Some(mut appender) = self.appender.take() {
            if self.is_trusted() || appender.ping(PING_TIMEOUT).await.is_ok() {
                self.keep(appender);
                return;
            }
            tracing::debug!("a connection died while it was idle");
        }
        // Another writer may have one: what this one was woken for need not wait.
        self.shared.queue.call_another();
        loop {
            match self.store.appender(self.writer_id).await {
                Ok(appender) => {
                    self.keep(appender);
                    return;
                }
                Err(error) => self.report(&error),
            }
            tokio::select! {
                () = tokio::time::sleep(self.backoff.next_wait()) => {}
                () = self.shared.queue.drained() => return,
            }
        }
    }

    /// Sees a group through: to its verdicts, or to the refusal of those that cannot be stored.
    async fn commit(&mut self, group: Vec<Seated>) {
        let mut groups = vec![group];
        while let Some(group) = groups.pop() {
            match self.flush(group).await {
                Step::Done => {}
                Step::Refused(mut group) if group.len() > 1 => {
                    // Bisect by request: the others must not suffer.
                    let rest = group.split_off(group.len() / 2);
                    groups.extend([rest, group]);
                }
                // The search for its culprits takes long, so all the others are stored first.
                Step::Refused(group) if !groups.is_empty() => groups.insert(0, group),
                Step::Refused(group) => groups.extend(self.without_culprits(group).await),
                Step::Again(seats) => {
                    // Back to their seats with all of them: while the store is gone each may give up.
                    let seats: Vec<Vec<Arc<Seat>>> = groups
                        .drain(..)
                        .map(|group| group.into_iter().map(put_back).collect())
                        .chain([seats])
                        .collect();
                    tokio::time::sleep(self.backoff.next_wait()).await;
                    self.connect().await;
                    groups.extend(seats.into_iter().map(|seats| self.retake(seats)));
                }
            }
        }
    }

    /// Tries to commit one group under one flush id, as often as its outcome is in doubt.
    async fn flush(&mut self, mut group: Vec<Seated>) -> Step {
        if group.is_empty() {
            return Step::Done;
        }
        let mut counts = Vec::with_capacity(group.len());
        let mut events = Vec::with_capacity(group.iter().map(|(_, work)| work.events.len()).sum());
        for (_, work) in &mut group {
            counts.push(work.events.len());
            events.append(&mut work.events);
            steps::waited(work);
        }
        let (batch, row_of) = Batch::new(events);
        match self.append(&batch, &group).await {
            Ok(flushed) => {
                let mut verdicts = verdicts(&batch, &row_of, &flushed.appended).into_iter();
                self.hand_over(batch, &flushed, &group, &counts);
                for ((_, work), count) in group.into_iter().zip(counts) {
                    self.answer(*work, Ok(verdicts.by_ref().take(count).collect()));
                }
                Step::Done
            }
            Err(Failure::Unknown) => {
                for ((_, work), count) in group.into_iter().zip(counts) {
                    if work.deadline.is_none() {
                        // It was answered 202: nobody else counts it.
                        self.shared.count_failed(&SubmitError::Unknown, count);
                    }
                    self.answer(*work, Err(SubmitError::Unknown));
                }
                Step::Done
            }
            Err(failure) => {
                let mut events = batch.into_events().into_iter();
                for ((_, work), count) in group.iter_mut().zip(counts) {
                    work.events = events.by_ref().take(count).collect();
                }
                if failure == Failure::Refused {
                    return Step::Refused(group);
                }
                Step::Again(group.into_iter().map(put_back).collect())
            }
        }
    }

    /// One flush, which the traces of its requests show, and the metrics.
    async fn append(&mut self, batch: &Batch, group: &[Seated]) -> Result<Flushed, Failure> {
        let begun = Instant::now();
        let mut attempts = 0;
        let result = self.append_in(&mut attempts, batch, group).await;
        let traces: Vec<&Trace> = group.iter().filter_map(|(_, work)| work.trace.as_ref()).collect();
        if !traces.is_empty() {
            steps::commit(begun, attempts, &result)
                .with("store", self.store.name())
                .count("batch.events", batch.len())
                .count("batch.requests", group.len())
                .end(traces);
        }
        if let Err(failure) = &result {
            self.shared.metrics.group_commits_of(failure.end()).inc();
        }
        result
    }

    /// Attempts under one id, which are counted, until the flush is known to have been committed, or known not to have been, or
    /// given up.
    async fn append_in(&mut self, attempts: &mut usize, batch: &Batch, group: &[Seated]) -> Result<Flushed, Failure> {
        let lease = self.shared.handoff.debt().map(|debt| Lease {
            owner: debt.owner,
            length: debt.lease,
        });
        let since = Instant::now();
        let flush = GroupCommit {
            // Without a system call.
            id: uuid::Builder::from_random_bytes(rand::random()).into_uuid(),
            batch,
            lease,
        };
        let mut doubt = Doubt::default();
        loop {
            let begun = Instant::now();
            *attempts += 1;
            self.shared.metrics.group_commit_attempts.inc();
            match self.attempt(&flush).await {
                Ok(appended) => {
                    let commit = commit_of(batch, &appended, begun.elapsed());
                    self.shared.metrics.record_commit(commit);
                    self.shared.set_trouble(None);
                    self.backoff.reset();
                    return Ok(Flushed {
                        appended,
                        since,
                        is_leased: lease.is_some_and(|lease| !lease.length.is_zero()),
                    });
                }
                // A refusal settles a doubt, too: had the first attempt committed, this one had met its ledger row.
                Err(error) if error.class == ErrorClass::Data => {
                    self.shared.metrics.count_store_error(error.class.as_str());
                    return Err(Failure::Refused);
                }
                Err(error) => {
                    self.report(&error);
                    doubt.note(error.class);
                    if !doubt.is_ambiguous() {
                        return Err(Failure::Definite);
                    }
                    if doubt.is_over(group) {
                        tracing::error!(
                            batch.len = batch.len(),
                            "the outcome of a flush stays unknown: given up"
                        );
                        return Err(Failure::Unknown);
                    }
                    tokio::time::sleep(self.backoff.next_wait()).await;
                }
            }
        }
    }

    /// Hands what was stored over to the fan-out. Before anybody is answered: what is published after an answer must come after
    /// it there, too. Of the events of the batch, each request of the group has brought as many as `counts` says.
    fn hand_over(&self, batch: Batch, flushed: &Flushed, group: &[Seated], counts: &[usize]) {
        let appended = &flushed.appended;
        let mut places = vec![None; batch.len()];
        for (row, outcome) in batch.rows().iter().zip(&appended.outcomes) {
            if let Outcome::Stored(place) = outcome {
                places[row.position as usize] = Some(*place);
            }
        }
        let traces = group
            .iter()
            .zip(counts)
            .flat_map(|((_, work), count)| std::iter::repeat_n(&work.trace, *count));
        let stored = |((event, place), trace): ((_, Option<LogPosition>), &Option<Trace>)| {
            place.map(|place| StoredEvent {
                event,
                received_at: place.received_at,
                cursor: place.cursor,
                trace: trace.clone(),
            })
        };
        let placed = batch.into_events().into_iter().zip(places);
        let events: Vec<StoredEvent> = placed.zip(traces).filter_map(stored).collect();
        if !events.is_empty() {
            self.shared.handoff.push(Committed {
                batch: appended.batch,
                events,
                bytes: group.iter().map(|(_, work)| work.reservation.bytes()).sum(),
                since: flushed.since,
                is_leased: flushed.is_leased,
            });
        }
    }

    /// One attempt on this writer's connection, opened where there is none.
    async fn attempt(&mut self, flush: &GroupCommit<'_>) -> Result<Appended, StoreError> {
        let mut appender = self.appender().await?;
        let result = appender.append(flush, ATTEMPT_TIMEOUT).await;
        self.keep_unless_broken(appender, &result);
        result
    }

    /// Whether the connection may be used without asking it: it worked a moment ago, and none has broken since.
    fn is_trusted(&self) -> bool {
        self.used.elapsed() < IDLE_TRUSTED && self.breaks == self.shared.breaks.load(Ordering::Relaxed)
    }

    async fn appender(&mut self) -> Result<Box<dyn Appender>, StoreError> {
        match self.appender.take() {
            Some(appender) => Ok(appender),
            None => self.store.appender(self.writer_id).await,
        }
    }

    /// Keeps the connection unless the error says that it is of no more use.
    fn keep_unless_broken<T>(&mut self, appender: Box<dyn Appender>, result: &Result<T, StoreError>) {
        if !matches!(result, Err(error) if error.class.breaks_connection()) {
            self.keep(appender);
        }
    }

    fn keep(&mut self, appender: Box<dyn Appender>) {
        self.appender = Some(appender);
        self.used = Instant::now();
        self.breaks = self.shared.breaks.load(Ordering::Relaxed);
    }

    fn report(&self, error: &StoreError) {
        self.shared.set_trouble(Some(error.class));
        self.shared.metrics.count_store_error(error.class.as_str());
        if error.class.breaks_connection() {
            self.shared.breaks.fetch_add(1, Ordering::Relaxed);
        }
        let (class, line) = (error.class.as_str(), error.line());
        match error.class {
            ErrorClass::Configuration | ErrorClass::Unexpected => tracing::error!(error.class = class, "{line}"),
            ErrorClass::LostRace | ErrorClass::StalePlan => tracing::debug!(error.class = class, "{line}"),
            _ => tracing::warn!(error.class = class, "{line}"),
        }
    }

    /// Takes the work out again, where the request has not given up meanwhile. Work whose request was answered at its deadline
    /// while it was in our hands is let go: nothing of it was stored.
    fn retake(&self, seats: Vec<Arc<Seat>>) -> Vec<Seated> {
        let mut group = Vec::with_capacity(seats.len());
        for seat in seats {
            match seat.take() {
                Taken::Work(work) if work.is_late() => self.answer(*work, Err(SubmitError::TooLate)),
                Taken::Work(work) => group.push((seat, work)),
                Taken::Gone => {}
            }
        }
        group
    }

    /// Ends a request: its room is free before its answer can be seen.
    fn answer(&self, work: Work, answer: Answer) {
        let ticket = work.ticket;
        let Work {
            answer: waiter,
            reservation,
            ..
        } = work;
        drop(reservation);
        self.shared.queue.ended(ticket);
        if waiter.send(answer).is_err() {
            tracing::debug!("a request has gone away before its answer");
        }
    }
}

impl Work {
    /// Whether the request's deadline has passed: it was answered without us.
    fn is_late(&self) -> bool {
        self.deadline.is_some_and(|deadline| deadline <= Instant::now())
    }
}

fn put_back((seat, work): Seated) -> Arc<Seat> {
    seat.put_back(work);
    seat
}
