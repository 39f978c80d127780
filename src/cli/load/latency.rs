//! How long the accepted requests took, in a fixed amount of memory however many there were.

use std::time::Duration;

/// Each power of two is cut into this many buckets, so a percentile is too high by at most 1/128, and never too low.
const STEPS: u64 = 1 << STEP_BITS;
const STEP_BITS: u32 = 7;

/// Enough buckets for every `u64`: the first `2 × STEPS` values have their own, then come 56 powers of two.
const BUCKETS: usize = 58 << STEP_BITS;

/// A histogram of microseconds whose buckets grow with the value, after the idea of Gil Tene's HdrHistogram.
#[derive(Debug, Clone)]
pub struct Latencies {
    counts: Vec<u64>,
    total: u64,
    max_us: u64,
}

impl Default for Latencies {
    fn default() -> Self {
        Self {
            counts: vec![0; BUCKETS],
            total: 0,
            max_us: 0,
        }
    }
}

impl Latencies {
    /// Counts one request.
    pub fn add(&mut self, latency: Duration) {
        let us = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        self.counts[bucket(us)] += 1;
        self.total += 1;
        self.max_us = self.max_us.max(us);
    }

    /// The latency that `percent` of the requests did not exceed (nearest rank), in milliseconds; 0 when there was none.
    #[must_use]
    pub fn percentile_ms(&self, percent: u64) -> f64 {
        let rank = (self.total * percent).div_ceil(100);
        let mut seen = 0;
        for (index, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= rank && seen > 0 {
                return milliseconds(highest(index).min(self.max_us));
            }
        }
        0.0
    }

    /// The longest latency, exactly, in milliseconds.
    #[must_use]
    pub fn max_ms(&self) -> f64 {
        milliseconds(self.max_us)
    }
}

fn milliseconds(us: u64) -> f64 {
    us as f64 / 1000.0
}

/// The bucket of a value: its highest eight bits, after the number of bits that were cut off below them.
fn bucket(us: u64) -> usize {
    let cut = (u64::BITS - us.leading_zeros()).saturating_sub(STEP_BITS + 1);
    usize::try_from(u64::from(cut) * STEPS + (us >> cut)).unwrap_or(BUCKETS - 1)
}

/// The highest value that falls into a bucket.
fn highest(index: usize) -> u64 {
    let index = index as u64;
    let cut = (index / STEPS).saturating_sub(1);
    let top = index - cut * STEPS;
    ((top + 1) << cut).wrapping_sub(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_value_lies_in_its_bucket_and_the_buckets_follow_each_other() {
        for shift in 0..64 {
            for value in [
                1_u64 << shift,
                (1 << shift) - 1,
                (1 << shift) + (1 << shift) / 3,
                u64::MAX >> shift,
            ] {
                let index = bucket(value);
                assert!(value <= highest(index), "{value}");
                assert!(index == 0 || value > highest(index - 1), "{value}");
                assert!(highest(index) - value <= value / 128, "{value}");
            }
        }
        assert!(bucket(u64::MAX) < BUCKETS);
    }

    #[test]
    fn percentiles_are_of_the_nearest_rank() {
        let mut latencies = Latencies::default();
        for ms in 1..=100 {
            latencies.add(Duration::from_millis(ms));
        }
        for percent in [50, 95, 99] {
            let (found, exact) = (latencies.percentile_ms(percent), percent as f64);
            assert!((exact..=exact * 1.008).contains(&found), "p{percent} {found}");
        }
        assert!((latencies.max_ms() - 100.0).abs() < f64::EPSILON);
    }

    #[test]
    fn one_request_is_every_percentile() {
        let mut latencies = Latencies::default();
        latencies.add(Duration::from_micros(1_234));
        assert!(
            [50, 95, 99]
                .iter()
                .all(|&percent| (latencies.percentile_ms(percent) - 1.234).abs() < f64::EPSILON)
        );
    }

    #[test]
    fn without_requests_everything_is_zero() {
        let latencies = Latencies::default();
        assert!(latencies.percentile_ms(99).abs() < f64::EPSILON && latencies.max_ms().abs() < f64::EPSILON);
    }
}
