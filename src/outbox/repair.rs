//! The repair path: what is unpublished and under nobody's lease is claimed, read back, and published.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use super::publish::PORTION_BYTES;
use super::{MARK_INTERVAL, Relay, Stopped};
use crate::event::Cursor;
use crate::store::{Lease, StoreError};

/// How often the outbox is looked at for what others have left.
pub(super) const REPAIR_INTERVAL: Duration = Duration::from_secs(1);
/// How many batches are claimed at once: many where they are small, for each costs a row and not a query.
const CLAIM_BATCHES: u32 = 256;

/// What a pass through the outbox has published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Pass {
    /// All that there was: so many batches.
    Whole(usize),
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
            let mut late = self.handover.left_out();
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
        let is_whole = claimed.len() < CLAIM_BATCHES as usize;
        let count = claimed.len();
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
        let is_whole = is_whole && left.is_empty();
        self.orphans.extend(left);
        Ok(if is_whole { Pass::Whole(count) } else { Pass::Partial })
    }

    async fn claim(&self) -> Result<Vec<i64>, StoreError> {
        let lease = Lease {
            owner: self.debt.owner,
            length: self.debt.lease,
        };
        self.store.claim_unpublished(lease, CLAIM_BATCHES).await
    }

    /// Publishes claimed batches, portion by portion, from the place `after` on. Answers with those that there was no time for;
    /// when it fails, what is left is to be given back.
    async fn publish_claimed(
        &mut self,
        claimed: Vec<i64>,
        mut after: Option<Cursor>,
        begun: Instant,
    ) -> Result<VecDeque<i64>, Stopped> {
        let mut left = VecDeque::from(claimed);
        while !left.is_empty() && self.has_time(begun) {
            let read = self.store.events_of(left.make_contiguous(), after, PORTION_BYTES).await;
            let published = match read {
                Ok(portion) => self.publish(&portion.events).await.map(|()| portion),
                Err(error) => Err(error.into()),
            };
            let portion = match published {
                Ok(portion) => portion,
                Err(stopped) => {
                    self.orphans.extend(left);
                    return Err(stopped);
                }
            };
            after = portion.events.last().map(|event| event.cursor).or(after);
            self.reached = after;
            let is_done = |batch: i64| portion.is_last || after.is_some_and(|after| batch < after.batch());
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
