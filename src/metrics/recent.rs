//! Recent group commits: their latencies, and the events of each second.

use std::time::Duration;

use super::history::History;

/// The percentiles are those of this number of the latest group commits.
const LATENCIES: usize = 1024;

/// A successful group commit: its events by outcome, and its latency.
#[derive(Debug, Clone, Copy)]
pub struct Commit {
    /// New events.
    pub stored: u64,
    /// Duplicates with the same payload.
    pub duplicates: u64,
    /// Duplicates with another payload.
    pub conflicts: u64,
    /// The time of the successful attempt.
    pub latency: Duration,
}

impl Commit {
    /// The number of events.
    pub(super) fn received(&self) -> u64 {
        self.stored + self.duplicates + self.conflicts
    }
}

#[derive(Debug, Default)]
pub(super) struct Recent {
    pub(super) latencies: Latencies,
    pub(super) history: History,
}

impl Recent {
    /// Records a group commit in the second `now`.
    pub(super) fn add(&mut self, now: u64, commit: Commit) {
        self.history.add(now, commit.received(), commit.stored);
        self.latencies.add(commit.latency);
    }
}

/// The latencies of the latest group commits, in no order.
#[derive(Debug, Default, Clone)]
pub(super) struct Latencies {
    latest: Vec<Duration>,
    /// The index of the oldest, once the vector is full.
    oldest: usize,
}

impl Latencies {
    fn add(&mut self, latency: Duration) {
        if self.latest.len() < LATENCIES {
            self.latest.push(latency);
        } else {
            self.latest[self.oldest] = latency;
            self.oldest = (self.oldest + 1) % LATENCIES;
        }
    }

    /// The 50th and 99th percentile by nearest rank; zero when there are no latencies.
    pub(super) fn percentiles(mut self) -> (Duration, Duration) {
        self.latest.sort_unstable();
        let rank = |percent: usize| {
            let index = (self.latest.len() * percent).div_ceil(100).saturating_sub(1);
            self.latest.get(index).copied().unwrap_or_default()
        };
        (rank(50), rank(99))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_the_latest_commits_only() {
        let mut latencies = Latencies::default();
        for milliseconds in (1..=100).chain(std::iter::repeat_n(7, LATENCIES)) {
            latencies.add(Duration::from_millis(milliseconds));
        }
        let seven = Duration::from_millis(7);
        assert_eq!(latencies.percentiles(), (seven, seven));
    }
}
