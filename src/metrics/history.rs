//! The events of each of the last seconds.
//!
//! Seconds are numbered by a monotonic clock that was set by the wall clock once, when the process started: so they follow each
//! other without a gap or a repetition, however the wall clock is changed meanwhile.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The most seconds that are kept: a quarter of an hour.
pub(crate) const SECONDS_MAX: u64 = 900;

/// One slot for each completed second, and one for the current second.
const SLOTS: usize = 901;

/// The events of one second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Second {
    /// When it began, in seconds since 1970.
    pub at: i64,
    /// Events received.
    pub received: u64,
    /// Events stored, of those received.
    pub unique_processed: u64,
}

/// Numbers the seconds of UTC: the process started in second 0.
#[derive(Debug)]
pub(super) struct Clock {
    started: Instant,
    /// The wall clock at that moment, since 1970.
    wall: Duration,
}

impl Clock {
    #[expect(
        clippy::disallowed_methods,
        reason = "a chart needs the time of day: it is read once, and the clock is monotonic from there"
    )]
    pub(super) fn start() -> Self {
        Self {
            started: Instant::now(),
            wall: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default(),
        }
    }

    /// When the process started.
    pub(super) fn started(&self) -> Instant {
        self.started
    }

    /// The wall clock at that moment, since 1970.
    pub(super) fn wall(&self) -> Duration {
        self.wall
    }

    /// The number of the current second.
    pub(super) fn second(&self) -> u64 {
        let into_its_second = Duration::from_nanos(self.wall.subsec_nanos().into());
        (into_its_second + self.started.elapsed()).as_secs()
    }

    /// When a second began, in seconds since 1970.
    fn at(&self, second: u64) -> i64 {
        i64::try_from(self.wall.as_secs() + second).unwrap_or(i64::MAX)
    }
}

/// The last seconds, each in the slot of its number modulo the length.
#[derive(Debug)]
pub(super) struct History {
    slots: Box<[Slot]>,
    /// The current second.
    now: u64,
}

#[derive(Debug, Clone, Copy, Default)]
struct Slot {
    received: u64,
    unique: u64,
}

impl Default for History {
    fn default() -> Self {
        Self {
            slots: vec![Slot::default(); SLOTS].into(),
            now: 0,
        }
    }
}

impl History {
    /// Adds events to the second `now`.
    pub(super) fn add(&mut self, now: u64, received: u64, unique: u64) {
        self.turn_to(now);
        let slot = &mut self.slots[index(self.now)];
        slot.received += received;
        slot.unique += unique;
    }

    /// The last `seconds` completed seconds at the second `now`, the oldest first; fewer in a younger process.
    pub(super) fn last(&mut self, clock: &Clock, now: u64, seconds: u64) -> Vec<Second> {
        self.turn_to(now);
        let first = self.now.saturating_sub(seconds.min(SECONDS_MAX));
        let second = |number| {
            let slot = self.slots[index(number)];
            Second {
                at: clock.at(number),
                received: slot.received,
                unique_processed: slot.unique,
            }
        };
        (first..self.now).map(second).collect()
    }

    /// Empties the slots of the seconds that have begun since the last call. A caller whose `now` has been overtaken counts in
    /// the later second.
    fn turn_to(&mut self, now: u64) {
        for begun in (self.now + 1..=now).rev().take(SLOTS) {
            self.slots[index(begun)] = Slot::default();
        }
        self.now = self.now.max(now);
    }
}

fn index(second: u64) -> usize {
    usize::try_from(second % SLOTS as u64).expect("a slot is below 901")
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLOCK_AT: Duration = Duration::from_millis(1_700_000_000_250);

    fn clock() -> Clock {
        Clock {
            started: Instant::now(),
            wall: CLOCK_AT,
        }
    }

    /// `(at - the first second, received, unique)` of each.
    fn values(history: &mut History, now: u64, seconds: u64) -> Vec<(i64, u64, u64)> {
        let seconds = history.last(&clock(), now, seconds);
        seconds
            .iter()
            .map(|second| (second.at - 1_700_000_000, second.received, second.unique_processed))
            .collect()
    }

    #[test]
    fn returns_seconds_without_events() {
        let mut history = History::default();
        history.add(0, 5, 3);
        history.add(2, 1, 1);
        history.add(2, 2, 0);
        assert_eq!(values(&mut history, 2, 900), [(0, 5, 3), (1, 0, 0)]);
        assert_eq!(values(&mut history, 3, 900), [(0, 5, 3), (1, 0, 0), (2, 3, 1)]);
        assert_eq!(values(&mut history, 3, 2), [(1, 0, 0), (2, 3, 1)]);
    }

    #[test]
    fn is_empty_in_the_first_second() {
        assert_eq!(values(&mut History::default(), 0, 900), []);
    }

    #[test]
    fn drops_seconds_beyond_a_quarter_hour() {
        let mut history = History::default();
        history.add(10, 7, 7);
        assert_eq!(values(&mut history, 910, 5000)[0], (10, 7, 7));
        let later = values(&mut history, 911, 5000);
        assert_eq!((later.len(), later[0]), (900, (11, 0, 0)));
        let much_later = values(&mut history, 50_000, 5000);
        assert!(much_later.iter().all(|(_, received, _)| *received == 0));
    }

    #[test]
    fn counts_an_overtaken_commit() {
        let mut history = History::default();
        history.add(4, 1, 1);
        history.add(3, 2, 2);
        assert_eq!(values(&mut history, 5, 2), [(3, 0, 0), (4, 3, 3)]);
    }

    #[test]
    fn begins_with_the_wall_clock_second() {
        let clock = Clock {
            started: Instant::now() - Duration::from_millis(750),
            ..clock()
        };
        assert_eq!(clock.second(), 1);
        assert_eq!(clock.at(clock.second()), 1_700_000_001);
    }
}
