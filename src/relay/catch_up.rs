//! The repair path: what is unpublished and under nobody's lease is claimed, read back, and published.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use super::publish::PORTION_BYTES;
use super::{MARK_INTERVAL, Relay, Stopped};
use crate::event::Cursor;
use crate::metrics::PublishPath;
use crate::store::{Lease, StoreError};

/// How often the outbox is looked at for what others have left.
pub(super) const REPAIR_INTERVAL: Duration = Duration::from_secs(1);
/// How many batches are claimed at once at most: many where they are small, for each costs a row and not a query.
pub(super) const CLAIMS_MAX: u32 = 256;
/// And at least.
const CLAIMS_MIN: u32 = 4;

/// How long a pass goes on before it leaves the rest to the next: what is handed over waits meanwhile.
const PASS: Duration = Duration::from_millis(50);
/// When the next one comes while there is always something handed over.
const PASS_INTERVAL: Duration = Duration::from_millis(150);

/// What a pass through the outbox has published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pass {
    /// All that there was.
    Whole,
    /// As much as it claims at once, or as its time allowed: there is more.
    Partial,
}

impl Relay {
    /// Claims what is unpublished, reads it back and publishes it.
    pub(super) async fn repair(&mut self) -> Result<Pass, Stopped> {
        self.repair_at = Instant::now() + REPAIR_INTERVAL;
        self.settle().await?;
        let begun = Instant::now();
        let mut claimed = self.claim().await?;
        loop {
            // Left out while we claimed, and so maybe older than what we have; or among what we have.
            let mut late = self.handoff.left_out();
            late.retain(|batch| !claimed.contains(batch));
            if late.is_empty() {
                break;
            }
            self.orphans.extend(late);
            let more = match self.settle().await {
                Ok(()) => self.claim().await,
                Err(error) => Err(error),
            };
            match more {
                Ok(more) => claimed.extend(more),
                Err(error) => {
                    self.orphans.extend(claimed);
                    return Err(error.into());
                }
            }
        }
        claimed.sort_unstable();
        let is_whole = claimed.len() < self.claims as usize;
        // One of them may have been published in part.
        let reached = self.reached.filter(|reached| claimed.contains(&reached.batch()));
        let rest = match reached {
            Some(reached) => claimed.split_off(claimed.partition_point(|batch| *batch < reached.batch())),
            None => Vec::new(),
        };
        let mut left = self.publish_claimed(claimed, None, begun).await;
        if matches!(&left, Ok(left) if left.is_empty()) {
            left = self.publish_claimed(rest, reached, begun).await;
        } else {
            self.orphans.extend(rest);
        }
        let left = left?;
        self.mark_if_due(Duration::ZERO).await;
        self.well();
        // As many as fit into a pass: what is claimed and not published is claimed again.
        self.claims = match left.len() {
            0 => (self.claims * 2).min(CLAIMS_MAX),
            _ => (self.claims / 2).max(CLAIMS_MIN),
        };
        if is_whole && left.is_empty() {
            return Ok(Pass::Whole);
        }
        self.orphans.extend(left);
        self.settle().await?;
        self.repair_at = Instant::now() + PASS_INTERVAL;
        Ok(Pass::Partial)
    }

    async fn claim(&self) -> Result<Vec<i64>, StoreError> {
        let lease = Lease {
            owner: self.debt.owner,
            length: self.debt.lease,
        };
        self.store.claim_unpublished(lease, self.claims).await
    }

    /// Publishes claimed batches, portion by portion, from the place `after` on. Answers with those that there was no time for;
    /// when it fails, what is left is to be given back.
    async fn publish_claimed(
        &mut self,
        claimed: Vec<i64>,
        mut after: Option<Cursor>,
        begun: Instant,
    ) -> Result<VecDeque<i64>, Stopped> {
        let store = self.store.clone();
        let read = |batches: Vec<i64>, after| {
            let store = store.clone();
            async move { store.events_of(&batches, after, PORTION_BYTES).await }
        };
        let mut left = VecDeque::from(claimed);
        let mut next = None;
        // At least one portion, however slow the store is.
        let mut is_first = true;
        while !left.is_empty() && self.has_time(begun) && (is_first || begun.elapsed() < PASS) {
            is_first = false;
            let portion = match next.take() {
                Some(portion) => portion,
                None => read(left.iter().copied().collect(), after).await,
            };
            let published = match portion {
                Ok(portion) => {
                    let last = portion.events.last().map(|event| event.cursor).or(after);
                    // The next one is read while this one is on its way: under full load the backlog must shrink.
                    let reading = async {
                        match portion.is_last {
                            true => None,
                            false => Some(read(left.iter().copied().collect(), last).await),
                        }
                    };
                    let (published, read) = tokio::join!(self.publish(&portion.events, PublishPath::CatchUp), reading);
                    next = read;
                    published.map(|()| (last, portion.is_last))
                }
                Err(error) => Err(error.into()),
            };
            let is_last = match published {
                Ok((last, is_last)) => {
                    after = last;
                    is_last
                }
                Err(stopped) => {
                    self.orphans.extend(left);
                    return Err(stopped);
                }
            };
            self.reached = after;
            let is_done = |batch: i64| is_last || after.is_some_and(|after| batch < after.batch());
            while left.front().is_some_and(|batch| is_done(*batch)) {
                left.pop_front()
                    .into_iter()
                    .for_each(|batch| self.note_published(batch));
            }
            self.mark_if_due(MARK_INTERVAL).await;
        }
        Ok(left)
    }
}
