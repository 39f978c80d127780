//! The task that removes what has expired.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::archive::Archive;
use super::lease::under_lease;
use super::policy::Policy;
use crate::config::RetentionConfig;
use crate::event::Timestamp;
use crate::metrics::Metrics;
use crate::store::{ErrorClass, Expiry, Partition, Store, StoreError};

/// By how much the store's clock may run ahead of this process between two passes, and for how long it is doubted then.
const CLOCK_JUMP: Duration = Duration::from_secs(3600);

/// Identities are looked through so many times in the time for which they are kept, but at least once a day.
const FORGET_PARTS: u32 = 20;
const FORGET_INTERVAL_MAX: Duration = Duration::from_secs(24 * 3600);

/// How many conflicts go in one step.
const STEP: u32 = 1000;

/// A partition from which nothing could be removed is left alone for this many times as long as the attempt took.
const REST_FACTOR: u32 = 20;
/// At most so long.
const REST_MAX: Duration = Duration::from_secs(3600);

/// Removes what has expired, at intervals.
pub struct Keeper {
    store: Arc<dyn Store>,
    metrics: Arc<Metrics>,
    policy: Policy,
    config: RetentionConfig,
    archive: Option<Archive>,
    /// Partitions that are left alone until then.
    resting: HashMap<i64, Instant>,
    /// When identities are looked through next.
    forget_at: Instant,
    /// The store's clock at the last pass, and the time of this process then.
    last_pass: Option<(Timestamp, Instant)>,
    /// Nothing expires before this time of the process, because the store's clock has jumped ahead.
    believed_from: Instant,
}

impl Keeper {
    /// Removes from `store` what these settings say, after it was written to `archive`.
    pub fn new(
        store: Arc<dyn Store>,
        metrics: Arc<Metrics>,
        config: RetentionConfig,
        archive: Option<Archive>,
    ) -> Self {
        Self {
            store,
            metrics,
            policy: Policy::new(&config),
            config,
            archive,
            resting: HashMap::new(),
            forget_at: Instant::now(),
            last_pass: None,
            believed_from: Instant::now(),
        }
    }

    /// Passes at intervals until `stop`; a pass that has begun is cut off then, which loses nothing.
    pub async fn run(mut self, stop: CancellationToken) {
        let interval = self.policy.interval();
        let passes = async {
            loop {
                tokio::time::sleep(interval).await;
                if let Err(error) = self.pass().await {
                    tracing::warn!(
                        error.class = error.class.as_str(),
                        "failed to remove what has expired, retrying: {}",
                        error.line()
                    );
                }
            }
        };
        stop.run_until_cancelled(passes).await;
    }

    /// One pass, unless another process is at it.
    pub async fn pass(&mut self) -> Result<(), StoreError> {
        let store = self.store.clone();
        under_lease(&*store, self.work()).await?.unwrap_or(Ok(()))?;
        // On every replica, whichever has done the work: a gauge must not keep what it was when the work was here.
        self.observe(&store.partitions().await?);
        Ok(())
    }

    async fn work(&mut self) -> Result<(), StoreError> {
        let mut partitions = self.end_partition().await?;
        let now = self.store.clock().await?;
        if !self.believes(now) {
            return Ok(());
        }
        for partition in &partitions {
            if let Some(expiry) = self.policy.by_age(partition, now) {
                self.expire(partition, expiry).await?;
            }
        }
        if self.policy.excess(&partitions) > 0 {
            partitions = self.store.partitions().await?;
        }
        let mut excess = self.policy.excess(&partitions);
        for partition in &partitions {
            if excess == 0 {
                break;
            }
            if let Some(expiry) = self.policy.by_size(partition, now)
                && self.expire(partition, expiry).await?
            {
                excess = self.policy.excess(&self.store.partitions().await?);
            }
        }
        self.forget(now).await
    }

    /// Whether the store's clock is to be believed. One that jumps ahead by more than an hour would let everything expire at once; it is
    /// believed if it has not been set back an hour later.
    fn believes(&mut self, now: Timestamp) -> bool {
        let here = Instant::now();
        if let Some((then, at)) = self.last_pass.replace((now, here)) {
            let passed = i64::try_from((here - at + CLOCK_JUMP).as_micros()).unwrap_or(i64::MAX);
            if now.micros().saturating_sub(then.micros()) > passed {
                tracing::warn!(
                    "the clock of the store has jumped ahead from {then} to {now}: nothing expires for an hour"
                );
                self.believed_from = here + CLOCK_JUMP;
            } else if now < then {
                // It was set back.
                self.believed_from = here;
            }
        }
        here >= self.believed_from
    }

    /// Ends the current partition if it is old or large enough, and lists all.
    async fn end_partition(&self) -> Result<Vec<Partition>, StoreError> {
        let partitions = self.store.partitions().await?;
        let length = self.policy.length(partitions.len());
        let is_too_large = partitions
            .last()
            .is_some_and(|current| self.policy.is_too_large(current));
        let older_than = if is_too_large { Duration::ZERO } else { length };
        if !self.store.begin_partition(older_than).await? {
            return Ok(partitions);
        }
        self.store.partitions().await
    }

    /// Archives and removes. Returns whether something was removed.
    async fn expire(&mut self, partition: &Partition, expiry: Expiry) -> Result<bool, StoreError> {
        let first = partition.first_batch;
        let is_resting = self.resting.get(&first).is_some_and(|until| Instant::now() < *until);
        if partition.is_open || is_resting {
            return Ok(false);
        }
        let begun = Instant::now();
        if let Some(archive) = &self.archive
            && let Err(error) = archive.keep(&*self.store, partition).await
        {
            self.metrics.archive_errors.inc();
            tracing::warn!(
                partition.first = first,
                "failed to archive a partition that has expired, keeping it: {error}"
            );
            self.rest(first, begun.elapsed());
            return Ok(false);
        }
        let expired = match self.store.expire(&expiry).await {
            // Long reads are in the way, or something else that concerns this partition: the others go on.
            Err(error) if error.class == ErrorClass::Contention || error.class.is_ambiguous() => {
                tracing::warn!(
                    partition.first = first,
                    error.class = error.class.as_str(),
                    "failed to remove events of a partition that have expired, retrying later: {}",
                    error.line()
                );
                self.rest(first, begun.elapsed());
                return Ok(false);
            }
            expired => expired?,
        };
        self.metrics.expired_events.inc_by(expired.removed);
        if expired.removed > 0 {
            tracing::info!(
                partition.first = first,
                events.removed = expired.removed,
                events.held_back = expired.held_back,
                "removed events that have expired"
            );
        }
        if expired.held_back > 0 || expired.is_open {
            self.rest(first, begun.elapsed());
        }
        Ok(expired.removed > 0)
    }

    fn rest(&mut self, partition: i64, took: Duration) {
        self.resting.retain(|_, until| Instant::now() < *until);
        let rest = took.saturating_mul(REST_FACTOR).min(REST_MAX);
        self.resting.insert(partition, Instant::now() + rest);
    }

    /// Forgets identities and conflicts.
    async fn forget(&mut self, now: Timestamp) -> Result<(), StoreError> {
        let before = |age: Duration| {
            let age = i64::try_from(age.as_micros()).ok()?;
            Timestamp::from_micros(now.micros().checked_sub(age)?)
        };
        if let Some(age) = self.config.retain_identities.0
            && let Some(before) = before(age)
            && Instant::now() >= self.forget_at
        {
            let forgotten = self.store.forget_identities(before).await?;
            self.metrics.forgotten_identities.inc_by(forgotten);
            self.forget_at = Instant::now() + (age / FORGET_PARTS).min(FORGET_INTERVAL_MAX);
        }
        if let Some(before) = before(self.config.retain_conflicts) {
            while self.store.prune_conflicts(before, STEP).await? == u64::from(STEP) {}
        }
        Ok(())
    }

    fn observe(&self, partitions: &[Partition]) {
        let signed = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        self.metrics.partitions.set(signed(partitions.len() as u64));
        self.metrics
            .partition_bytes
            .set(signed(partitions.iter().map(|partition| partition.bytes).sum()));
        self.metrics
            .held_back_events
            .set(signed(partitions.iter().map(|partition| partition.held_back).sum()));
    }
}
