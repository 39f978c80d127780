//! What this process counts, in memory: one documented field for each series. Recorded for each flush, never for each event.

pub mod history;

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use self::history::{Clock, History, Second};

/// The figures of this process since it started.
#[derive(Debug)]
pub struct Metrics {
    clock: Clock,
    /// Events received: committed by this process, duplicates included.
    pub received: AtomicU64,
    /// Events that this process stored.
    pub unique_processed: AtomicU64,
    /// Events that were duplicates.
    pub duplicate_dropped: AtomicU64,
    /// Invalid events that this process was sent.
    pub rejected: AtomicU64,
    recent: Mutex<Recent>,
}

/// How many of the last commits the percentiles are of.
const LATENCIES: usize = 1024;
/// Over how many seconds `events_per_second` is the mean.
const RATE_SECONDS: u64 = 10;

#[derive(Debug)]
struct Recent {
    latencies: Vec<Duration>,
    next_latency: usize,
    history: History,
}

impl Default for Metrics {
    fn default() -> Self {
        let recent = Recent {
            latencies: Vec::new(),
            next_latency: 0,
            history: History::new(),
        };
        Self {
            clock: Clock::start(),
            received: AtomicU64::default(),
            unique_processed: AtomicU64::default(),
            duplicate_dropped: AtomicU64::default(),
            rejected: AtomicU64::default(),
            recent: Mutex::new(recent),
        }
    }
}

impl Metrics {
    /// Records a flush that committed: its events, how many of them were stored, and how long the commit took.
    pub fn record_commit(&self, received: u64, unique: u64, latency: Duration) {
        self.received.fetch_add(received, Ordering::Relaxed);
        self.unique_processed.fetch_add(unique, Ordering::Relaxed);
        self.duplicate_dropped.fetch_add(received - unique, Ordering::Relaxed);
        let now = self.clock.second();
        let mut recent = self.lock();
        recent.history.add(now, received, unique);
        if recent.latencies.len() < LATENCIES {
            recent.latencies.push(latency);
        } else {
            let next = recent.next_latency;
            recent.latencies[next] = latency;
            recent.next_latency = (next + 1) % LATENCIES;
        }
    }

    /// When the process started.
    #[must_use]
    pub fn started(&self) -> Instant {
        self.clock.started()
    }

    /// Events received per second, the mean of the last ten seconds that are over (of fewer in a younger process).
    #[must_use]
    pub fn events_per_second(&self) -> f64 {
        let seconds = self.history(RATE_SECONDS);
        let events: u64 = seconds.iter().map(|second| second.received).sum();
        events as f64 / seconds.len().max(1) as f64
    }

    /// The last `seconds` that are over, the oldest first; no more than [`history::SECONDS_MAX`], and fewer in a younger process.
    #[must_use]
    pub fn history(&self, seconds: u64) -> Vec<Second> {
        let now = self.clock.second();
        self.lock().history.last(&self.clock, now, seconds)
    }

    /// The 50th and 99th percentile of the last commits' time (nearest rank); zero when there were none.
    #[must_use]
    pub fn commit_latency(&self) -> (Duration, Duration) {
        let mut latencies = self.lock().latencies.clone();
        latencies.sort_unstable();
        let rank = |percent: usize| latencies.get((latencies.len() * percent).div_ceil(100).saturating_sub(1));
        (
            rank(50).copied().unwrap_or_default(),
            rank(99).copied().unwrap_or_default(),
        )
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Recent> {
        self.recent.lock().expect("nothing panics while it holds the figures")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_by_nearest_rank() {
        let metrics = Metrics::default();
        assert_eq!(metrics.commit_latency(), (Duration::ZERO, Duration::ZERO));
        for milliseconds in 1..=100 {
            metrics.record_commit(1, 1, Duration::from_millis(milliseconds));
        }
        assert_eq!(
            metrics.commit_latency(),
            (Duration::from_millis(50), Duration::from_millis(99))
        );
    }
}
