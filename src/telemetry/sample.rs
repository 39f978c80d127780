//! How many lines of a kind are logged, however often what they report happens.

use std::sync::Mutex;
use std::time::{Duration, Instant};

/// The time for which lines are counted.
const INTERVAL: Duration = Duration::from_secs(1);

/// Lets so many lines a second through, and counts the others.
#[derive(Debug)]
pub(crate) struct Sample {
    max: u32,
    state: Mutex<Option<State>>,
}

#[derive(Debug)]
struct State {
    begun: Instant,
    lines: u32,
    left_out: u64,
}

impl Sample {
    /// Lets `max` lines a second through.
    pub(crate) const fn new(max: u32) -> Self {
        Self {
            max,
            state: Mutex::new(None),
        }
    }

    /// Whether a line may be logged; if so, how many were left out before it.
    pub(crate) fn admit(&self) -> Option<u64> {
        self.admit_at(Instant::now())
    }

    fn admit_at(&self, now: Instant) -> Option<u64> {
        let mut state = self.state.lock().expect("nothing panics while it counts");
        let state = state.get_or_insert(State {
            begun: now,
            lines: 0,
            left_out: 0,
        });
        if now.duration_since(state.begun) >= INTERVAL {
            state.begun = now;
            state.lines = 0;
        }
        if state.lines == self.max {
            state.left_out += 1;
            return None;
        }
        state.lines += 1;
        Some(std::mem::take(&mut state.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_lines_a_second_are_let_through_and_the_others_counted() {
        let (sample, begun) = (Sample::new(2), Instant::now());
        let admit = |milliseconds| sample.admit_at(begun + Duration::from_millis(milliseconds));
        assert_eq!(
            [admit(0), admit(1), admit(2), admit(999)],
            [Some(0), Some(0), None, None]
        );
        assert_eq!([admit(1001), admit(1500), admit(1600)], [Some(2), Some(0), None]);
        assert_eq!([admit(2002), admit(9000)], [Some(1), Some(0)]);
    }
}
