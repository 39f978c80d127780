//! What this process counts, in memory: one documented field for each series. Recorded for each flush, never for each event.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The figures of this process since it started.
#[derive(Debug)]
pub struct Metrics {
    /// When the process started.
    pub started: Instant,
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
const RATE_SECONDS: usize = 10;

#[derive(Debug)]
struct Recent {
    latencies: Vec<Duration>,
    next_latency: usize,
    /// Events of each of the last seconds, by the second's number modulo the length.
    events: [u64; RATE_SECONDS + 1],
    second: u64,
}

impl Default for Metrics {
    fn default() -> Self {
        let recent = Recent {
            latencies: Vec::new(),
            next_latency: 0,
            events: [0; RATE_SECONDS + 1],
            second: 0,
        };
        Self {
            started: Instant::now(),
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
        let second = self.started.elapsed().as_secs();
        let mut recent = self.lock();
        recent.turn_to(second);
        recent.events[slot(second)] += received;
        if recent.latencies.len() < LATENCIES {
            recent.latencies.push(latency);
        } else {
            let next = recent.next_latency;
            recent.latencies[next] = latency;
            recent.next_latency = (next + 1) % LATENCIES;
        }
    }

    /// Events received per second, the mean of the last ten whole seconds (of fewer in a younger process).
    #[must_use]
    pub fn events_per_second(&self) -> f64 {
        let second = self.started.elapsed().as_secs();
        let mut recent = self.lock();
        recent.turn_to(second);
        let whole: u64 = recent.events.iter().sum::<u64>() - recent.events[slot(second)];
        let seconds = second.clamp(1, RATE_SECONDS as u64);
        whole as f64 / seconds as f64
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

impl Recent {
    /// Empties the slots of the seconds that have passed since the last call.
    fn turn_to(&mut self, second: u64) {
        for passed in (self.second + 1..=second).rev().take(self.events.len()) {
            self.events[slot(passed)] = 0;
        }
        self.second = second;
    }
}

fn slot(second: u64) -> usize {
    usize::try_from(second % (RATE_SECONDS as u64 + 1)).expect("a slot is below 11")
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

    #[test]
    fn a_second_that_has_passed_leaves_the_rate_after_ten() {
        let mut recent = Recent {
            latencies: Vec::new(),
            next_latency: 0,
            events: [0; 11],
            second: 0,
        };
        recent.events[slot(0)] = 7;
        recent.turn_to(10);
        assert_eq!(recent.events.iter().sum::<u64>(), 7);
        recent.turn_to(11);
        assert_eq!(recent.events.iter().sum::<u64>(), 0);
        recent.events[slot(11)] = 3;
        recent.turn_to(500);
        assert_eq!(recent.events.iter().sum::<u64>(), 0);
    }
}
