//! The relay: publishes committed batches to the sink, and catches up with those that were left in the outbox.
//!
//! As long as the sink keeps up, the relay takes batches from the handoff queue in memory (the *fast path*, [`HandoffQueue`]),
//! in the order in which the writers queued them, publishes each in one pipeline, and marks them as published in groups. When
//! the sink fails, or falls behind, the relay falls back to the *catch-up path*: the queue is closed, the leases are released,
//! and nothing accumulates in memory. It then claims the oldest unpublished batches by lease, reads them back in portions,
//! publishes and marks them, with growing waits while the sink is down. Once the sink has taken something the fast path
//! resumes, and the rest of the backlog is published beside it, a little at a time. Once a second the relay also looks for
//! batches that others have left: a replica that died, or a writer whose reply from the store was lost.
//!
//! A batch is marked only after the sink has acknowledged it: after a crash it is published again, with the same cursors, and
//! never lost. No transaction of the store is open while the relay waits for the sink.

mod amount;
mod backlog;
mod catch_up;
mod commit_ledger;
mod error;
mod marks;
mod pass;
mod publish;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::amount::Amount;
pub(crate) use self::backlog::watch_backlog;
pub(crate) use self::commit_ledger::prune_commit_ledger;
use self::error::RelayError;
use self::pass::{CLAIMS_MAX, PASS_INTERVAL, Pass};
use crate::event::Cursor;
use crate::metrics::Metrics;
use crate::sink::{HandoffQueue, OutboxLease, Sink, SinkErrorKind};
use crate::store::Outbox;
use crate::store::backoff::Backoff;

/// How long a stopping relay goes on publishing before it leaves the rest to other replicas.
const SHUTDOWN_PASSES: Duration = Duration::from_secs(5);

/// The parts of a relay.
pub struct Settings {
    /// Where the outbox is.
    pub store: Arc<dyn Outbox>,
    /// Where events are published.
    pub sink: Arc<dyn Sink>,
    /// Where writers put committed batches, under `lease`.
    pub handoff: Arc<HandoffQueue>,
    /// The leases of this process.
    pub lease: OutboxLease,
    /// Receives what is wrong with the sink.
    pub sink_error: watch::Sender<Option<SinkErrorKind>>,
    /// The metrics of this process.
    pub metrics: Arc<Metrics>,
}

/// The relay of a process.
pub struct Relay {
    store: Arc<dyn Outbox>,
    sink: Arc<dyn Sink>,
    handoff: Arc<HandoffQueue>,
    lease: OutboxLease,
    sink_error: watch::Sender<Option<SinkErrorKind>>,
    metrics: Arc<Metrics>,
    backoff: Backoff,
    /// Batches that are published and not marked yet.
    unmarked: VecDeque<i64>,
    /// Since when the first of them waits for its mark.
    unmarked_since: Instant,
    /// Batches that are left to the outbox: their leases are to be released.
    to_release: Vec<i64>,
    /// The last published event of a batch that was published in part. It stays after the batch is published: then no claimed
    /// batch matches it.
    resume_after: Option<Cursor>,
    next_pass_at: Instant,
    /// Whether the outbox holds more than the last pass has published.
    has_backlog: bool,
    /// How many batches a pass claims.
    claim_limit: u32,
    /// When the sink last answered.
    sink_answered_at: Instant,
    amount: Amount,
    stop: CancellationToken,
}

/// What the relay waits for before its next step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wait {
    None,
    /// A batch in the handoff queue, until this time at the latest.
    Arrival(Instant),
    /// The next wait of the backoff.
    Backoff,
}

impl Relay {
    /// A relay that does nothing until it runs.
    pub fn new(settings: Settings) -> Self {
        let Settings {
            store,
            sink,
            handoff,
            lease,
            sink_error,
            metrics,
        } = settings;
        Self {
            store,
            sink,
            handoff,
            lease,
            sink_error,
            metrics,
            backoff: Backoff::default(),
            unmarked: VecDeque::new(),
            unmarked_since: Instant::now(),
            to_release: Vec::new(),
            resume_after: None,
            next_pass_at: Instant::now(),
            has_backlog: false,
            claim_limit: CLAIMS_MAX,
            sink_answered_at: Instant::now(),
            amount: Amount::default(),
            stop: CancellationToken::new(),
        }
    }

    /// Publishes until `stop`, which must come after the last batch was queued; then makes its last passes and releases all
    /// leases.
    pub async fn run(mut self, stop: CancellationToken) {
        self.stop = stop.clone();
        while !stop.is_cancelled() {
            let wait = self.step().await;
            let waiting = async {
                match wait {
                    Wait::None => {}
                    Wait::Arrival(latest) => {
                        // After the time-out another task is due.
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
        self.shut_down().await;
    }

    async fn step(&mut self) -> Wait {
        if self.handoff.is_open() {
            self.fast_path_step().await
        } else {
            self.catch_up_step().await
        }
    }

    /// One step of the fast path: one batch from memory, or a pass that is due beside it.
    async fn fast_path_step(&mut self) -> Wait {
        self.to_release.extend(self.handoff.take_skipped());
        if !self.to_release.is_empty() || self.next_pass_at <= Instant::now() {
            // A skipped batch is older than those in the queue, and so comes first.
            let pass = async {
                // Without traffic only this shows that the sink is down.
                if self.sink_answered_at.elapsed() >= PASS_INTERVAL {
                    self.connect().await?;
                }
                self.pass().await
            };
            match pass.await {
                Ok(Pass::Partial) => self.has_backlog = true,
                Ok(Pass::Whole) => {
                    self.has_backlog = false;
                    self.handoff.caught_up();
                }
                Err(error) => return self.fall_back(error).await,
            }
        }
        match self.handoff.take() {
            Some(committed) => match self.publish_committed(committed).await {
                Ok(()) => self.mark_if_due().await,
                Err(error) => return self.fall_back(error).await,
            },
            None if self.has_backlog => self.next_pass_at = Instant::now(),
            None => {
                self.mark_if_due().await;
                let mark_at = self.mark_due_at().unwrap_or(self.next_pass_at);
                return Wait::Arrival(self.next_pass_at.min(mark_at));
            }
        }
        Wait::None
    }

    /// One step of the catch-up path: first the batches that are still in the queue, which are older, then one pass through the
    /// outbox. If the sink takes that, the queue opens again. The rest of the backlog is published beside the fast path, for
    /// only the fast path keeps up with publishing at full speed.
    async fn catch_up_step(&mut self) -> Wait {
        while let Some(committed) = self.handoff.take() {
            if let Err(error) = self.publish_committed(committed).await {
                return self.fall_back(error).await;
            }
        }
        self.to_release.extend(self.handoff.take_skipped());
        let pass = async {
            // No batch is claimed for a sink that is down.
            self.connect().await?;
            self.pass().await
        };
        match pass.await {
            Ok(_) => {
                self.handoff.open();
                // A batch that was committed between the pass and this moment is older than those that are queued from now on.
                self.next_pass_at = Instant::now();
                Wait::None
            }
            Err(error) => self.fall_back(error).await,
        }
    }

    /// Whether there is time for one more answer of the sink under a lease that began at `since`: a new connection and an answer
    /// take at most a third of the lease each.
    fn has_time(&self, since: Instant) -> bool {
        since.elapsed() < self.lease.length / 3 && !self.stop.is_cancelled()
    }

    /// Makes sure of a connection to the sink.
    async fn connect(&mut self) -> Result<(), RelayError> {
        self.sink.connect().await?;
        self.sink_answered_at = Instant::now();
        Ok(())
    }

    /// Falls back to the catch-up path: the sink or the store has failed, and from here on no batch is kept in memory.
    async fn fall_back(&mut self, error: RelayError) -> Wait {
        self.handoff.give_up();
        while let Some(committed) = self.handoff.take() {
            self.handoff.done(committed.bytes);
            self.to_release.push(committed.batch);
        }
        match error {
            RelayError::Sink(error) => {
                let errors = &self.metrics.sink_errors;
                errors.with_label_values(&[error.kind.as_str()]).inc();
                if self.sink_error.send_replace(Some(error.kind)) != Some(error.kind) {
                    tracing::warn!("failed to publish, events wait in the outbox until the sink is back: {error}");
                }
            }
            RelayError::Store(error) => {
                self.metrics.count_store_error(error.class.as_str());
                tracing::warn!(
                    error.class = error.class.as_str(),
                    "failed to read or update the outbox, retrying: {}",
                    error.line()
                );
            }
        }
        if let Err(error) = self.update_outbox().await {
            tracing::debug!(
                error.class = error.class.as_str(),
                "failed to release the leases of batches, retrying: {}",
                error.line()
            );
        }
        Wait::Backoff
    }

    /// The sink has taken a pass, or the pass was empty.
    fn sink_works(&mut self) {
        self.backoff.reset();
        if self.sink_error.send_replace(None).is_some() {
            tracing::info!("the sink is back, publishing the events in the outbox");
        }
    }

    /// Goes on publishing while there are batches, the sink takes them and time is left; then releases all leases, so that no
    /// other replica waits for one.
    async fn shut_down(mut self) {
        let begun = Instant::now();
        // The old token ends a pass that has begun; the steps from here on come after the stop.
        self.stop = CancellationToken::new();
        let mut goes_on = self.sink_error.borrow().is_none();
        while goes_on && begun.elapsed() < SHUTDOWN_PASSES {
            goes_on = self.step().await == Wait::None;
        }
        self.handoff.give_up();
        let mut ended = self.mark().await;
        if ended.is_ok() {
            ended = self.store.release(self.lease.owner, None).await.map(drop);
        }
        if let Err(error) = ended {
            tracing::warn!(
                error.class = error.class.as_str(),
                "failed to release the leases of batches, other replicas publish them when the leases expire: {}",
                error.line()
            );
        }
    }
}
