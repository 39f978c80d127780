//! Where writers leave what they have committed, and the relay takes it: the fast path's queue.
//!
//! It never makes a writer wait. It is open as long as the relay keeps up: what does not fit any more, or comes while it is
//! closed, is left to the store's outbox, from where the relay reads it back. Closed, new batches are committed without a
//! lease that lasts, so that whoever repairs may have them at once.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use uuid::Uuid;

use crate::event::StoredEvent;

/// The most memory that events take on their way to the fan-out, in bytes as the budget of ingest counts them. Beyond it the
/// fan-out is behind, and the repair path reads them back in small portions.
const BYTES_MAX: usize = 16 << 20;

/// A batch whose flush was committed.
#[derive(Debug)]
pub struct Committed {
    /// Its number.
    pub batch: i64,
    /// What it stored, in its order; at least one event.
    pub events: Vec<StoredEvent>,
    /// What the events keep in memory, the bodies that they came in included.
    pub bytes: usize,
    /// When its flush began: its lease lasts from some time after.
    pub since: Instant,
    /// Whether it is under a lease that lasts: it was committed while the handover was open.
    pub is_leased: bool,
}

/// What a flush owes to a fan-out: who publishes it, and how long others leave it alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutboxLease {
    /// The token of this process.
    pub owner: Uuid,
    /// From the commit.
    pub lease: Duration,
}

/// The queue between the writers and the relay.
#[derive(Debug)]
pub struct HandoffQueue {
    /// Nothing where no fan-out leaves the process.
    debt: Option<OutboxLease>,
    queue: Mutex<Queue>,
    /// Something was committed, by whatever way it is published.
    committed: Notify,
    /// The relay has something to do.
    arrived: Notify,
    /// How many batches were handed over, and how many of these are settled with: published, or left to the outbox.
    progress: watch::Sender<Progress>,
}

#[derive(Debug, Default)]
struct Queue {
    is_open: bool,
    batches: VecDeque<Committed>,
    bytes: usize,
    /// Not taken into the queue: the relay gives back the leases on them and looks into the outbox.
    left_out: Vec<i64>,
}

/// What somebody who waits for the queue looks at. It is changed while the queue is locked, and looked at while it is not: so
/// it holds all that is needed, and nobody ever waits for both locks at once.
#[derive(Debug, Clone, Copy, Default)]
struct Progress {
    handed_over: u64,
    done: u64,
    /// The relay knows of nothing older in the outbox than what is in the queue.
    is_caught_up: bool,
    /// The fan-out is away: what is in the outbox is not waited for.
    is_away: bool,
}

impl HandoffQueue {
    /// A handover to a relay; `None`: the fan-out stays inside the process, and nothing is owed. It begins closed.
    #[must_use]
    pub fn new(debt: Option<OutboxLease>) -> Self {
        Self {
            debt,
            queue: Mutex::default(),
            committed: Notify::new(),
            arrived: Notify::new(),
            progress: watch::Sender::default(),
        }
    }

    /// What a flush that begins now owes.
    #[must_use]
    pub fn debt(&self) -> Option<OutboxLease> {
        let debt = self.debt?;
        let lease = if self.lock().is_open {
            debt.lease
        } else {
            Duration::ZERO
        };
        Some(OutboxLease { lease, ..debt })
    }

    /// Hands a committed batch over, without waiting, and announces it to the followers of this process.
    pub fn push(&self, committed: Committed) {
        self.committed.notify_one();
        if self.debt.is_none() {
            return;
        }
        {
            let mut queue = self.lock();
            let is_open = queue.is_open;
            if is_open && committed.is_leased && queue.bytes + committed.bytes <= BYTES_MAX {
                self.progress.send_modify(|progress| progress.handed_over += 1);
                queue.bytes += committed.bytes;
                queue.batches.push_back(committed);
            } else if is_open || committed.is_leased {
                // One without a lease may have been claimed by anybody, and closed the relay looks into the outbox anyway. One
                // that does not fit closes the queue, for those that come after it would overtake it.
                queue.is_open = is_open && !committed.is_leased;
                queue.left_out.push(committed.batch);
                self.progress.send_modify(|progress| progress.is_caught_up = false);
            }
        }
        self.arrived.notify_one();
    }

    /// Waits until something was committed since the last call.
    pub async fn committed(&self) {
        self.committed.notified().await;
    }

    /// Waits until there may be something for the relay to do. It must look again after that.
    pub async fn arrived(&self) {
        self.arrived.notified().await;
    }

    /// The next batch of the queue, unless something was left out meanwhile: that is older, and comes first. Its memory counts
    /// until [`HandoffQueue::done`].
    #[must_use]
    pub fn take(&self) -> Option<Committed> {
        let mut queue = self.lock();
        if queue.is_open && !queue.left_out.is_empty() {
            return None;
        }
        queue.batches.pop_front()
    }

    /// A batch that was taken is settled with: it was published, or is left to the outbox.
    pub fn done(&self, bytes: usize) {
        self.lock().bytes -= bytes;
        self.progress.send_modify(|progress| progress.done += 1);
    }

    /// Takes batches from now on.
    pub fn open(&self) {
        self.lock().is_open = true;
        self.progress.send_modify(|progress| progress.is_away = false);
    }

    /// The relay has published all that it found in the outbox since the last call of [`HandoffQueue::left_out`].
    pub fn caught_up(&self) {
        let queue = self.lock();
        let is_caught_up = queue.is_open && queue.left_out.is_empty();
        self.progress
            .send_modify(|progress| progress.is_caught_up = is_caught_up);
    }

    /// Takes no more batches, and nobody waits for what is in the outbox: the fan-out is away. What is in the queue stays.
    pub fn give_up(&self) {
        self.lock().is_open = false;
        self.progress.send_modify(|progress| {
            progress.is_caught_up = false;
            progress.is_away = true;
        });
    }

    /// Whether it takes batches.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.lock().is_open
    }

    /// The batches that were left out since the last call: they may be under a lease of this process, and are older than what
    /// is in the queue.
    #[must_use]
    pub fn left_out(&self) -> Vec<i64> {
        std::mem::take(&mut self.lock().left_out)
    }

    /// Waits until all that was committed before the call is published, or is left to the outbox because the fan-out is away.
    pub async fn flushed(&self) {
        if self.debt.is_none() {
            return;
        }
        let mut progress = self.progress.subscribe();
        let asked = progress.borrow().handed_over;
        let flushed = progress.wait_for(|now| now.is_away || (now.is_caught_up && now.done >= asked));
        flushed.await.map(drop).expect("the sender lives as long as we do");
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Queue> {
        self.queue.lock().expect("nothing panics while it holds the queue")
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    const DEBT: OutboxLease = OutboxLease {
        owner: Uuid::nil(),
        lease: Duration::from_secs(30),
    };

    fn committed(batch: i64, bytes: usize) -> Committed {
        Committed {
            batch,
            events: Vec::new(),
            bytes,
            since: Instant::now(),
            is_leased: true,
        }
    }

    #[tokio::test]
    async fn what_does_not_fit_closes_the_queue_so_that_nothing_overtakes_it() {
        let handoff = HandoffQueue::new(Some(DEBT));
        handoff.open();
        assert_eq!(handoff.debt(), Some(DEBT));
        handoff.push(committed(1, BYTES_MAX));
        handoff.push(committed(2, 1));
        assert!(!handoff.is_open());
        handoff.push(committed(3, 0));
        assert_eq!(handoff.left_out(), [2, 3]);
        assert_eq!(handoff.left_out(), [0; 0]);
        assert_eq!(handoff.debt().unwrap().lease, Duration::ZERO);
        assert_eq!(handoff.take().unwrap().batch, 1);
        handoff.done(BYTES_MAX);
        handoff.open();
        handoff.push(committed(4, BYTES_MAX));
        assert!(handoff.is_open());
    }

    #[tokio::test]
    async fn what_was_committed_while_it_was_closed_is_looked_for_in_the_outbox() {
        let handoff = HandoffQueue::new(Some(DEBT));
        let unleased = |batch| Committed {
            is_leased: false,
            ..committed(batch, 1)
        };
        handoff.push(unleased(1));
        assert_eq!(
            handoff.left_out(),
            [0; 0],
            "closed, the relay looks into the outbox anyway"
        );
        handoff.open();
        handoff.push(unleased(2));
        handoff.push(committed(3, 1));
        assert!(handoff.take().is_none(), "what was left out is older");
        assert_eq!(handoff.left_out(), [2]);
        assert_eq!(handoff.take().unwrap().batch, 3);
    }

    /// Whether a flush that is asked for now is over at once.
    fn is_flushed(handoff: &HandoffQueue) -> bool {
        Box::pin(handoff.flushed()).now_or_never().is_some()
    }

    #[tokio::test]
    async fn a_flush_waits_for_what_was_handed_over_before_it_and_no_longer() {
        let handoff = HandoffQueue::new(Some(DEBT));
        handoff.open();
        handoff.caught_up();
        assert!(is_flushed(&handoff));
        handoff.push(committed(1, 1));
        let mut flushed = Box::pin(handoff.flushed());
        assert!(flushed.as_mut().now_or_never().is_none());
        handoff.push(committed(2, 1));
        assert!(handoff.take().is_some());
        handoff.done(1);
        flushed.await;
    }

    #[tokio::test]
    async fn a_flush_waits_for_what_is_in_the_outbox_unless_the_fan_out_is_away() {
        let handoff = HandoffQueue::new(Some(DEBT));
        assert!(!is_flushed(&handoff), "nobody has looked yet");
        handoff.open();
        handoff.caught_up();
        handoff.push(Committed {
            is_leased: false,
            ..committed(1, 1)
        });
        assert!(!is_flushed(&handoff));
        assert_eq!(handoff.left_out(), [1]);
        assert!(!is_flushed(&handoff), "it is about to be published");
        handoff.caught_up();
        assert!(is_flushed(&handoff));
        handoff.push(committed(2, BYTES_MAX + 1));
        assert_eq!(handoff.left_out(), [2]);
        handoff.caught_up();
        assert!(!is_flushed(&handoff), "it is behind");
        let mut flushed = Box::pin(handoff.flushed());
        assert!(flushed.as_mut().now_or_never().is_none());
        handoff.give_up();
        flushed.await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn who_waits_for_the_queue_and_who_fills_it_never_wait_for_each_other() {
        const BATCHES: i64 = 20_000;
        let handoff = std::sync::Arc::new(HandoffQueue::new(Some(DEBT)));
        handoff.open();
        handoff.caught_up();
        let mut both = tokio::task::JoinSet::new();
        let pushing = handoff.clone();
        both.spawn(async move {
            for batch in 0..BATCHES {
                pushing.push(committed(batch, 0));
                tokio::task::yield_now().await;
            }
        });
        let taking = handoff.clone();
        both.spawn(async move {
            let mut taken = 0;
            while taken < BATCHES {
                match taking.take() {
                    Some(committed) => {
                        taking.done(committed.bytes);
                        taken += 1;
                    }
                    None => taking.arrived().await,
                }
            }
        });
        while both.try_join_next().is_none() {
            handoff.flushed().await;
            tokio::task::yield_now().await;
        }
        both.join_all().await;
        handoff.flushed().await;
    }

    #[tokio::test]
    async fn without_a_relay_a_batch_is_announced_and_nothing_is_owed() {
        let handoff = HandoffQueue::new(None);
        handoff.push(committed(1, usize::MAX));
        handoff.committed().await;
        assert_eq!(handoff.debt(), None);
        assert_eq!(handoff.left_out(), [0; 0]);
        handoff.flushed().await;
    }
}
