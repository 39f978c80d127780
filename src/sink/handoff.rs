//! The handoff queue: writers put committed batches in, the relay takes them out and publishes them.
//!
//! It never makes a writer wait. It is open as long as the relay keeps up: a batch that does not fit, or comes while the queue is
//! closed, is left to the store's outbox, from where the relay reads it back. While the queue is closed, batches are committed
//! under a lease of no length, so that any relay may claim them at once.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use uuid::Uuid;

use crate::event::StoredEvent;

/// The most memory of events on their way to the sink, in bytes as the budget of ingest counts them. Beyond it the relay is
/// behind, and the catch-up path reads them back in small portions.
const BYTES_MAX: usize = 16 << 20;

/// A committed batch.
#[derive(Debug)]
pub struct Committed {
    /// The number of the batch in the log.
    pub batch: i64,
    /// The stored events in their order; at least one.
    pub events: Vec<StoredEvent>,
    /// The memory that the events occupy, with the bodies that they came in.
    pub bytes: usize,
    /// When its group commit began: its lease was granted later.
    pub since: Instant,
    /// Whether its lease has a length: it was committed while the queue was open.
    pub is_leased: bool,
}

/// The lease that a batch of the outbox is committed under: which process publishes it, and how long the others leave it alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutboxLease {
    /// The token of this process.
    pub owner: Uuid,
    /// From the commit on.
    pub length: Duration,
}

/// The queue between the writers and the relay.
#[derive(Debug)]
pub struct HandoffQueue {
    /// `None` without a relay: then nothing is queued.
    lease: Option<OutboxLease>,
    queue: Mutex<Queue>,
    /// Notified after each commit, with or without a relay.
    committed: Notify,
    /// Notified when the relay has something to do.
    arrived: Notify,
    progress: watch::Sender<Progress>,
}

#[derive(Debug, Default)]
struct Queue {
    is_open: bool,
    batches: VecDeque<Committed>,
    bytes: usize,
    /// Batches that were not queued: the relay releases their leases and looks into the outbox.
    skipped: Vec<i64>,
}

/// What [`HandoffQueue::flushed`] waits for. It is changed while the queue is locked, and read while it is not, so it holds all
/// that is needed and no task ever waits for both locks at once.
#[derive(Debug, Clone, Copy, Default)]
struct Progress {
    /// How many batches were queued.
    queued: u64,
    /// How many of these were published, or left to the outbox.
    done: u64,
    /// The relay knows of no batch in the outbox that is older than those in the queue.
    is_caught_up: bool,
    /// The sink is down: `flushed` does not wait for the outbox.
    is_down: bool,
}

impl HandoffQueue {
    /// A queue to a relay whose batches are leased like this; `None`: there is no relay. It begins closed.
    pub fn new(lease: Option<OutboxLease>) -> Self {
        Self {
            lease,
            queue: Mutex::default(),
            committed: Notify::new(),
            arrived: Notify::new(),
            progress: watch::Sender::default(),
        }
    }

    /// The lease of a group commit that begins now; of no length while the queue is closed. `None` without a relay.
    pub fn lease(&self) -> Option<OutboxLease> {
        let lease = self.lease?;
        let length = if self.lock().is_open {
            lease.length
        } else {
            Duration::ZERO
        };
        Some(OutboxLease { length, ..lease })
    }

    /// Queues a committed batch for the relay, without waiting, and announces it to the subscribers of this process.
    pub fn push(&self, committed: Committed) {
        self.committed.notify_one();
        if self.lease.is_none() {
            return;
        }
        {
            let mut queue = self.lock();
            let is_open = queue.is_open;
            if is_open && committed.is_leased && queue.bytes + committed.bytes <= BYTES_MAX {
                self.progress.send_modify(|progress| progress.queued += 1);
                queue.bytes += committed.bytes;
                queue.batches.push_back(committed);
            } else if is_open || committed.is_leased {
                // A batch without a lease may have been claimed by another relay; while the queue is closed the relay looks
                // into the outbox anyway. A batch that does not fit closes the queue, for later ones would overtake it.
                queue.is_open = is_open && !committed.is_leased;
                queue.skipped.push(committed.batch);
                self.progress.send_modify(|progress| progress.is_caught_up = false);
            }
        }
        self.arrived.notify_one();
    }

    /// Waits until something was committed since the last call.
    pub async fn committed(&self) {
        self.committed.notified().await;
    }

    /// Waits until the relay may have something to do. It must look again after that.
    pub async fn arrived(&self) {
        self.arrived.notified().await;
    }

    /// Takes the next batch of the queue. `None` also while the queue is open and batches were skipped: those are older, and come
    /// first. The memory of the batch counts until [`HandoffQueue::done`].
    pub fn take(&self) -> Option<Committed> {
        let mut queue = self.lock();
        if queue.is_open && !queue.skipped.is_empty() {
            return None;
        }
        queue.batches.pop_front()
    }

    /// A batch that was taken is published, or left to the outbox.
    pub fn done(&self, bytes: usize) {
        self.lock().bytes -= bytes;
        self.progress.send_modify(|progress| progress.done += 1);
    }

    /// Queues batches from now on.
    pub fn open(&self) {
        self.lock().is_open = true;
        self.progress.send_modify(|progress| progress.is_down = false);
    }

    /// The relay has published all that it found in the outbox since the last call of [`HandoffQueue::take_skipped`].
    pub fn caught_up(&self) {
        let queue = self.lock();
        let is_caught_up = queue.is_open && queue.skipped.is_empty();
        self.progress
            .send_modify(|progress| progress.is_caught_up = is_caught_up);
    }

    /// Queues no more batches, and ends all waits for the outbox: the sink is down. Batches in the queue stay there.
    pub fn give_up(&self) {
        self.lock().is_open = false;
        self.progress.send_modify(|progress| {
            progress.is_caught_up = false;
            progress.is_down = true;
        });
    }

    /// Whether it queues batches.
    pub fn is_open(&self) -> bool {
        self.lock().is_open
    }

    /// The batches that were not queued since the last call. They may be under a lease of this process, and are older than those
    /// in the queue.
    pub fn take_skipped(&self) -> Vec<i64> {
        std::mem::take(&mut self.lock().skipped)
    }

    /// Waits until all that was committed before the call is published, or is left to the outbox because the sink is down.
    pub async fn flushed(&self) {
        if self.lease.is_none() {
            return;
        }
        let mut progress = self.progress.subscribe();
        let queued = progress.borrow().queued;
        let flushed = progress.wait_for(|now| now.is_down || (now.is_caught_up && now.done >= queued));
        flushed.await.map(drop).expect("self owns the sender");
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Queue> {
        self.queue
            .lock()
            .expect("no code panics while it holds the lock of the queue")
    }
}

#[cfg(test)]
mod tests;
