//! The relay: publishes what was committed, and repairs what was not published.
//!
//! As long as the fan-out keeps up it takes batches from memory ([`HandoffQueue`], the fast path), in the order in which writers
//! handed them over, each in one pipeline, and marks them in groups. When the fan-out fails, or falls behind, it steps aside:
//! the handover is closed, the leases are given back, and nothing piles up in memory. It then claims the oldest unpublished
//! batches by lease, reads them back in portions, publishes and marks them (the repair path), with growing waits while the
//! fan-out is away. Once the fan-out has taken something the fast path resumes, and the rest of the backlog goes beside it, a
//! little at a time. On the way it looks each second for batches that others have left: a replica that died, a writer whose
//! reply was lost.
//!
//! Whatever happens, a batch is marked after the fan-out has acknowledged it: a crash makes it be published again, with the
//! same cursors, and never be forgotten. No transaction of the store is open while the fan-out is waited for.

mod backlog;
mod catch_up;
mod commit_ledger;
mod publish;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub use self::backlog::watch_backlog;
use self::catch_up::{CLAIMS_MAX, Pass, REPAIR_INTERVAL};
pub use self::commit_ledger::prune_commit_ledger;
use crate::event::Cursor;
use crate::metrics::Metrics;
use crate::sink::{HandoffQueue, OutboxLease, Sink, SinkError, SinkErrorKind};
use crate::store::backoff::Backoff;
use crate::store::{Outbox, StoreError};

/// How long a published batch may wait for its mark, so that many are marked together.
const MARK_INTERVAL: Duration = Duration::from_millis(100);
/// So many are marked without waiting.
const MARKS_MAX: usize = 256;
/// Marks that the store does not take are kept up to this number; the batches of older ones are published once more.
const MARKS_KEPT: usize = 100_000;

/// How long a stopping relay goes on publishing before it leaves the rest to others.
const LAST_PASS: Duration = Duration::from_secs(5);

/// What a relay is made of.
pub struct Settings {
    /// Where the outbox is.
    pub store: Arc<dyn Outbox>,
    /// Where events are published.
    pub fanout: Arc<dyn Sink>,
    /// Where what was committed is taken over. It must owe `debt`.
    pub handoff: Arc<HandoffQueue>,
    /// The leases of this process.
    pub debt: OutboxLease,
    /// Is told what is wrong with the fan-out.
    pub trouble: watch::Sender<Option<SinkErrorKind>>,
    /// The figures of this process.
    pub metrics: Arc<Metrics>,
}

/// The relay of a process.
pub struct Relay {
    store: Arc<dyn Outbox>,
    fanout: Arc<dyn Sink>,
    handoff: Arc<HandoffQueue>,
    debt: OutboxLease,
    trouble: watch::Sender<Option<SinkErrorKind>>,
    metrics: Arc<Metrics>,
    backoff: Backoff,
    /// Published, and not marked yet.
    unmarked: VecDeque<i64>,
    /// Since when the first of them waits.
    unmarked_since: Instant,
    /// Under a lease of ours and not to be published from memory: the leases are to be given back.
    orphans: Vec<i64>,
    /// How far the last batch has come that was published in part. It stays when that is published: nobody asks again.
    reached: Option<Cursor>,
    repair_at: Instant,
    /// Whether the outbox holds more than the last pass has published.
    is_behind: bool,
    /// How many batches a pass claims.
    claims: u32,
    /// When the fan-out was last seen to be there.
    answered_at: Instant,
    stop: CancellationToken,
}

/// What the relay waits for before its next step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wait {
    /// Nothing.
    Not,
    /// Something handed over, for no longer than to this time.
    Arrival(Instant),
    /// A better time.
    Backoff,
}

/// Why a pass ended early.
enum Stopped {
    Sink(SinkError),
    Store(StoreError),
}

impl From<SinkError> for Stopped {
    fn from(error: SinkError) -> Self {
        Stopped::Sink(error)
    }
}

impl From<StoreError> for Stopped {
    fn from(error: StoreError) -> Self {
        Stopped::Store(error)
    }
}

impl Relay {
    /// A relay that does nothing until it runs.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        let Settings {
            store,
            fanout,
            handoff,
            debt,
            trouble,
            metrics,
        } = settings;
        Self {
            store,
            fanout,
            handoff,
            debt,
            trouble,
            metrics,
            backoff: Backoff::default(),
            unmarked: VecDeque::new(),
            unmarked_since: Instant::now(),
            orphans: Vec::new(),
            reached: None,
            repair_at: Instant::now(),
            is_behind: false,
            claims: CLAIMS_MAX,
            answered_at: Instant::now(),
            stop: CancellationToken::new(),
        }
    }

    /// Publishes until `stop`, which must come after the last batch was handed over; then makes a last pass and gives all
    /// leases back.
    pub async fn run(mut self, stop: CancellationToken) {
        self.stop = stop.clone();
        while !stop.is_cancelled() {
            let wait = self.step().await;
            let waiting = async {
                match wait {
                    Wait::Not => {}
                    Wait::Arrival(latest) => {
                        // Late is as good: then there is something else to do.
                        tokio::time::timeout_at(latest, self.handoff.arrived()).await.ok();
                    }
                    Wait::Backoff => tokio::time::sleep(self.backoff.next_wait()).await,
                }
            };
            tokio::select! {
                () = stop.cancelled() => {}
                () = waiting => {}
            }
        }
        self.end().await;
    }

    async fn step(&mut self) -> Wait {
        if self.handoff.is_open() {
            self.keep_up().await
        } else {
            self.catch_up().await
        }
    }

    /// One step of the fast path: one batch from memory, or what is due beside it.
    async fn keep_up(&mut self) -> Wait {
        self.orphans.extend(self.handoff.left_out());
        if !self.orphans.is_empty() || self.repair_at <= Instant::now() {
            // What was left out is older than what is in the queue, and so comes first.
            let pass = async {
                // Where nothing is published, nothing else would show that the fan-out has gone.
                if self.answered_at.elapsed() >= REPAIR_INTERVAL {
                    self.connect().await?;
                }
                self.repair().await
            };
            match pass.await {
                Ok(Pass::Partial) => self.is_behind = true,
                Ok(Pass::Whole) => {
                    self.is_behind = false;
                    self.handoff.caught_up();
                }
                Err(stopped) => return self.step_aside(stopped).await,
            }
        }
        match self.handoff.take() {
            Some(committed) => match self.publish_committed(committed).await {
                Ok(()) => self.mark_if_due(MARK_INTERVAL).await,
                Err(stopped) => return self.step_aside(stopped).await,
            },
            None if self.is_behind => self.repair_at = Instant::now(),
            None => {
                self.mark_if_due(MARK_INTERVAL).await;
                let mark_at = self.unmarked_since + MARK_INTERVAL;
                let latest = if self.unmarked.is_empty() {
                    self.repair_at
                } else {
                    self.repair_at.min(mark_at)
                };
                return Wait::Arrival(latest);
            }
        }
        Wait::Not
    }

    /// One pass of the repair path, after what is still in the queue: that is older. If the fan-out takes it, it is there, and
    /// the handover opens again: what is left of the backlog goes beside the fast path, for while publishing goes on at full
    /// speed nothing but the fast path keeps up with it.
    async fn catch_up(&mut self) -> Wait {
        while let Some(committed) = self.handoff.take() {
            if let Err(stopped) = self.publish_committed(committed).await {
                return self.step_aside(stopped).await;
            }
        }
        self.orphans.extend(self.handoff.left_out());
        let pass = async {
            // Nothing is claimed for a fan-out that is not there.
            self.connect().await?;
            self.repair().await
        };
        match pass.await {
            Ok(_) => {
                self.handoff.open();
                // Whatever was committed between that pass and this moment is older than what comes to the queue now.
                self.repair_at = Instant::now();
                Wait::Not
            }
            Err(stopped) => self.step_aside(stopped).await,
        }
    }

    /// Whether there is still time for one more answer under a lease that began at `since`: a new connection and an answer take
    /// a third of it each, at most.
    fn has_time(&self, since: Instant) -> bool {
        since.elapsed() < self.debt.lease / 3 && !self.stop.is_cancelled()
    }

    /// Sees to it that the fan-out is there.
    async fn connect(&mut self) -> Result<(), Stopped> {
        self.fanout.connect().await?;
        self.answered_at = Instant::now();
        Ok(())
    }

    /// The fan-out has failed, or the store has: from here on nothing is kept in memory.
    async fn step_aside(&mut self, stopped: Stopped) -> Wait {
        self.handoff.give_up();
        while let Some(committed) = self.handoff.take() {
            self.handoff.done(committed.bytes);
            self.orphans.push(committed.batch);
        }
        match stopped {
            Stopped::Sink(error) => {
                let errors = &self.metrics.sink_errors;
                errors.with_label_values(&[error.kind.as_str()]).inc();
                if self.trouble.send_replace(Some(error.kind)) != Some(error.kind) {
                    tracing::warn!("the fan-out is down, events wait in the outbox: {error}");
                }
            }
            Stopped::Store(error) => {
                self.metrics.count_store_error(error.class.as_str());
                tracing::warn!(
                    error.class = error.class.as_str(),
                    "the outbox cannot be read: {}",
                    error.line()
                );
            }
        }
        if let Err(error) = self.settle().await {
            tracing::debug!(
                error.class = error.class.as_str(),
                "leases are given back later: {}",
                error.line()
            );
        }
        Wait::Backoff
    }

    /// The fan-out has taken something, or there is nothing for it.
    fn well(&mut self) {
        self.backoff.reset();
        if self.trouble.send_replace(None).is_some() {
            tracing::info!("the fan-out is back");
        }
    }

    fn note_published(&mut self, batch: i64) {
        if self.unmarked.is_empty() {
            self.unmarked_since = Instant::now();
        }
        if self.unmarked.len() >= MARKS_KEPT {
            self.unmarked.pop_front();
        }
        self.unmarked.push_back(batch);
    }

    /// Marks what is published, if there is much of it or the first waits for longer than `patience`. A store that does not
    /// take the marks gets them with the next ones.
    async fn mark_if_due(&mut self, patience: Duration) {
        let is_due = self.unmarked.len() >= MARKS_MAX || self.unmarked_since.elapsed() >= patience;
        if self.unmarked.is_empty() || !is_due {
            return;
        }
        if let Err(error) = self.mark().await {
            self.metrics.count_store_error(error.class.as_str());
            tracing::warn!(
                error.class = error.class.as_str(),
                "published batches are marked later: {}",
                error.line()
            );
            self.unmarked_since = Instant::now();
        }
    }

    async fn mark(&mut self) -> Result<(), StoreError> {
        if self.unmarked.is_empty() {
            return Ok(());
        }
        self.store
            .mark_published(self.debt.owner, self.unmarked.make_contiguous())
            .await?;
        self.unmarked.clear();
        Ok(())
    }

    /// Brings the store up to date: what is published, and what others may have.
    async fn settle(&mut self) -> Result<(), StoreError> {
        self.mark().await?;
        if !self.orphans.is_empty() {
            self.store.release(self.debt.owner, Some(&self.orphans)).await?;
            self.orphans.clear();
        }
        Ok(())
    }

    /// Goes on as ever while there is something to publish, the fan-out takes it and there is time; leaves nothing that a lease
    /// makes others wait for.
    async fn end(mut self) {
        let begun = Instant::now();
        // A pass that has begun hears of the stop; this is what comes after it.
        self.stop = CancellationToken::new();
        let mut goes_on = self.trouble.borrow().is_none();
        while goes_on && begun.elapsed() < LAST_PASS {
            goes_on = self.step().await == Wait::Not;
        }
        self.handoff.give_up();
        let mut ended = self.mark().await;
        if ended.is_ok() {
            ended = self.store.release(self.debt.owner, None).await.map(drop);
        }
        if let Err(error) = ended {
            tracing::warn!(
                error.class = error.class.as_str(),
                "others wait for the leases of this process: {}",
                error.line()
            );
        }
    }
}
