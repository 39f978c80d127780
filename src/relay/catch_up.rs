//! The catch-up path: claims unpublished batches that are under no lease, reads them back, and publishes them.

use std::collections::VecDeque;

use tokio::time::Instant;

use super::Relay;
use super::error::RelayError;
use super::pass::{BACKLOG_PASS_INTERVAL, CLAIMS_MAX, CLAIMS_MIN, PASS_INTERVAL, PASS_LENGTH, Pass};
use super::publish::PORTION_BYTES;
use crate::event::Cursor;
use crate::metrics::PublishPath;
use crate::store::{Lease, StoreError};

impl Relay {
    /// One pass: claims unpublished batches, reads them back and publishes them.
    pub(super) async fn pass(&mut self) -> Result<Pass, RelayError> {
        self.next_pass_at = Instant::now() + PASS_INTERVAL;
        self.update_outbox().await?;
        let begun = Instant::now();
        let mut claimed = self.claim_with_skipped().await?;
        claimed.sort_unstable();
        let is_whole = claimed.len() < self.claim_limit as usize;
        // One of them may have been published in part.
        let resume_after = self.resume_after.filter(|cursor| claimed.contains(&cursor.batch()));
        let rest = match resume_after {
            Some(cursor) => claimed.split_off(claimed.partition_point(|batch| *batch < cursor.batch())),
            None => Vec::new(),
        };
        let mut left = self.publish_claimed(claimed, None, begun).await;
        if matches!(&left, Ok(left) if left.is_empty()) {
            left = self.publish_claimed(rest, resume_after, begun).await;
        } else {
            self.to_release.extend(rest);
        }
        let left = left?;
        self.try_mark().await;
        self.sink_works();
        // Adapts the number of claims to what fits into a pass: batches that are claimed and not published are claimed again.
        self.claim_limit = match left.len() {
            0 => (self.claim_limit * 2).min(CLAIMS_MAX),
            _ => (self.claim_limit / 2).max(CLAIMS_MIN),
        };
        if is_whole && left.is_empty() {
            return Ok(Pass::Whole);
        }
        self.to_release.extend(left);
        self.update_outbox().await?;
        self.next_pass_at = Instant::now() + BACKLOG_PASS_INTERVAL;
        Ok(Pass::Partial)
    }

    /// Claims batches; again as long as the handoff queue skipped others meanwhile, which may be older than the claimed ones.
    async fn claim_with_skipped(&mut self) -> Result<Vec<i64>, StoreError> {
        let mut claimed = self.claim().await?;
        loop {
            let mut skipped = self.handoff.take_skipped();
            skipped.retain(|batch| !claimed.contains(batch));
            if skipped.is_empty() {
                return Ok(claimed);
            }
            self.to_release.extend(skipped);
            let more = match self.update_outbox().await {
                Ok(()) => self.claim().await,
                Err(error) => Err(error),
            };
            match more {
                Ok(more) => claimed.extend(more),
                Err(error) => {
                    self.to_release.extend(claimed);
                    return Err(error);
                }
            }
        }
    }

    async fn claim(&self) -> Result<Vec<i64>, StoreError> {
        let lease = Lease {
            owner: self.lease.owner,
            length: self.lease.length,
        };
        self.store.claim_unpublished(lease, self.claim_limit).await
    }

    /// Publishes claimed batches, portion by portion, from the event after `after` on. Returns the batches that there was no time
    /// for; on an error the leases of the remaining ones are to be released.
    async fn publish_claimed(
        &mut self,
        claimed: Vec<i64>,
        mut after: Option<Cursor>,
        begun: Instant,
    ) -> Result<VecDeque<i64>, RelayError> {
        let store = self.store.clone();
        let read = |batches: Vec<i64>, after| {
            let store = store.clone();
            async move { store.events_of(&batches, after, PORTION_BYTES).await }
        };
        let mut left = VecDeque::from(claimed);
        let mut next = None;
        // At least one portion, however slow the store is.
        let mut is_first = true;
        while !left.is_empty() && self.has_time(begun) && (is_first || begun.elapsed() < PASS_LENGTH) {
            is_first = false;
            let portion = match next.take() {
                Some(portion) => portion,
                None => read(left.iter().copied().collect(), after).await,
            };
            let published = match portion {
                Ok(portion) => {
                    let last = portion.events.last().map(|event| event.cursor).or(after);
                    // The next portion is read while this one is published: under full load the backlog must shrink.
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
                Err(error) => {
                    self.to_release.extend(left);
                    return Err(error);
                }
            };
            self.resume_after = after;
            let is_done = |batch: i64| is_last || after.is_some_and(|after| batch < after.batch());
            while left.front().is_some_and(|batch| is_done(*batch)) {
                left.pop_front()
                    .into_iter()
                    .for_each(|batch| self.note_published(batch));
            }
            self.mark_if_due().await;
        }
        Ok(left)
    }
}
