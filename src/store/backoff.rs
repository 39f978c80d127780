//! How long to wait before the next attempt. The only file that uses the `backoff` crate.

use std::time::Duration;

use ::backoff::ExponentialBackoff;
use ::backoff::backoff::Backoff as _;

/// The first wait is at most twice this.
const FIRST: Duration = Duration::from_millis(25);
/// No wait is longer than twice this: with four writers and a probe a replica tries fewer than five times a second.
const LONGEST: Duration = Duration::from_millis(1500);

/// Endless growing waits with full jitter (each is random between zero and a bound that doubles): "Exponential Backoff And
/// Jitter", AWS Architecture Blog, 2015. Replicas that lost the same server then do not reconnect all at once.
#[derive(Debug)]
pub struct Backoff(ExponentialBackoff);

impl Default for Backoff {
    fn default() -> Self {
        Self(ExponentialBackoff {
            current_interval: FIRST,
            initial_interval: FIRST,
            randomization_factor: 1.0,
            multiplier: 2.0,
            max_interval: LONGEST,
            max_elapsed_time: None,
            ..ExponentialBackoff::default()
        })
    }
}

impl Backoff {
    /// The next wait.
    pub fn next_wait(&mut self) -> Duration {
        self.0.next_backoff().unwrap_or(LONGEST)
    }

    /// Begins again with a short wait, after a success.
    pub fn reset(&mut self) {
        self.0.reset();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_their_bound_and_never_end() {
        let mut backoff = Backoff::default();
        let waits: Vec<Duration> = (0..200).map(|_| backoff.next_wait()).collect();
        assert!(waits[0] <= 2 * FIRST);
        assert!(waits.iter().all(|wait| *wait <= 2 * LONGEST));
        assert!(
            waits.iter().any(|wait| *wait > LONGEST),
            "200 waits with full jitter pass the middle of the range"
        );
        backoff.reset();
        assert!(backoff.next_wait() <= 2 * FIRST);
    }
}
