//! The watcher: reads newly stable events into the ring buffer.

use std::time::Duration;

use tokio::time::Instant;

use super::hub::{Shared, Subscribers};
use super::ring::Ring;
use crate::store::backoff::Backoff;
use crate::store::{Filter, Scan, ScanError, StoreError, Turn};

/// How long after a commit of this process the watcher reads: by then more have come, and most are stable.
const GATHER: Duration = Duration::from_millis(10);
/// How often it reads without an announced commit: other replicas commit, too, and events become stable.
const READ_INTERVAL: Duration = Duration::from_millis(50);

/// How much the watcher reads at a time.
const READ_EVENTS: u32 = 1000;
pub(super) const READ_BYTES: usize = 1 << 20;
/// While requests wait for a writer, the watcher delivers this number of bytes at a time to all subscribers together (each gets
/// a copy), which takes a core about five milliseconds,
const BUSY_BYTES: usize = 5 << 20;
/// and then pauses for twenty times as long;
const BUSY_PAUSE: Duration = Duration::from_millis(100);
/// but not when it has been behind for longer than this.
const BUSY_LAG_MAX: Duration = Duration::from_secs(5);

impl Subscribers {
    /// Keeps the ring buffer up to date while there are subscribers, until the stop.
    pub async fn watch(self) {
        let shared = &*self.0;
        let mut backoff = Backoff::default();
        // Since when there were more events than were read.
        let mut behind_since = None;
        while !shared.stop.is_cancelled() {
            if self.subscribers() == 0 {
                *shared.ring() = Ring::default();
                let arrived = shared.arrived.notified();
                shared.stop.run_until_cancelled(arrived).await;
                continue;
            }
            let may_lag = behind_since.is_none_or(|since: Instant| since.elapsed() < BUSY_LAG_MAX);
            let limit = self.busy_limit().filter(|_| may_lag);
            match shared.read(limit.unwrap_or(READ_BYTES)).await {
                Ok(is_last) => {
                    backoff.reset();
                    behind_since = if is_last {
                        None
                    } else {
                        behind_since.or(Some(Instant::now()))
                    };
                    if limit.is_some() {
                        let pause = tokio::time::sleep(BUSY_PAUSE);
                        shared.stop.run_until_cancelled(pause).await;
                    } else if is_last {
                        shared.until_next_read().await;
                    }
                }
                Err(error) => {
                    let wait = backoff.next_wait();
                    tracing::warn!(
                        error.class = error.class.as_str(),
                        retry_in = ?wait,
                        "failed to read new events for the subscribers, retrying: {}",
                        error.line()
                    );
                    shared.stop.run_until_cancelled(tokio::time::sleep(wait)).await;
                }
            }
        }
        shared.changed.send_replace(());
    }

    /// How many bytes to deliver at a time while requests wait for a writer. `None` while they do not, or while the subscribers
    /// are too few to matter.
    pub(super) fn busy_limit(&self) -> Option<usize> {
        let bytes = BUSY_BYTES / self.subscribers().max(1);
        (bytes < READ_BYTES && (self.0.is_busy)()).then_some(bytes)
    }
}

impl Shared {
    /// Reads the events that have become stable since the last read, at most this number of bytes. Returns whether these were
    /// all.
    pub(super) async fn read(&self, bytes_max: usize) -> Result<bool, StoreError> {
        let end = self.ring().end();
        let Some(after) = end else {
            // The ring buffer begins at the last stable position; older events are read from the store.
            let last_stable = self.store.stability().await?.last_stable;
            self.ring().begin(last_stable);
            self.changed.send_replace(());
            return Ok(true);
        };
        let scan = Scan {
            filter: Filter::default(),
            after,
            limit: READ_EVENTS,
            bytes_max,
            turn: Turn::Service,
        };
        let page = match self.store.scan(&scan).await {
            Ok(page) => page,
            // Another log, or an older copy of it: the subscribers find out from the store.
            Err(ScanError::UnknownCursor) => {
                *self.ring() = Ring::default();
                return Ok(false);
            }
            Err(ScanError::Store(error)) => return Err(error),
        };
        let is_last = page.is_last;
        if page.is_truncated {
            // Each subscriber that has not read these events is told so when it reads the store.
            self.ring().begin(page.next);
            self.changed.send_replace(());
            return Ok(is_last);
        }
        if !page.events.is_empty() || page.next > after {
            self.ring().extend(&page);
            self.changed.send_replace(());
        }
        Ok(is_last)
    }

    /// Waits until the next read is due.
    async fn until_next_read(&self) {
        let announced = async {
            self.handoff.committed().await;
            tokio::time::sleep(GATHER).await;
        };
        tokio::select! {
            () = announced => {}
            () = tokio::time::sleep(READ_INTERVAL) => {}
            () = self.stop.cancelled() => {}
        }
    }
}
