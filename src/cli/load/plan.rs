//! Which events are sent, and in which order: how many, which of them are duplicates, and of what.
//!
//! Everything follows from the seed, and nothing is held: the stream may be longer than memory.

use std::{iter::FusedIterator, num::NonZeroU64};

use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::{Rng, SeedableRng};

use crate::cli::error::UsageError;

/// What a run sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Plan {
    /// All events, duplicates included.
    pub(crate) events: u64,
    /// How many of them copy an earlier one.
    pub(crate) duplicates: u64,
    /// How many topics the events are spread over.
    pub(crate) topics: NonZeroU64,
    /// What all choices follow from.
    pub(crate) seed: u64,
    /// The timestamps of the events.
    pub(crate) times: Times,
}

/// The timestamps of events, in milliseconds since the epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Times {
    /// The timestamp of the event with number 0.
    pub(crate) first_ms: i64,
    /// The time between two events.
    pub(crate) step_ms: u64,
}

impl Times {
    /// From 2025-01-01T00:00:00Z. A seed means the same events at any time, so they cannot follow the clock.
    pub(crate) const FIXED: Self = Self {
        first_ms: 1_735_689_600_000,
        step_ms: 137,
    };

    /// One event per millisecond; the event with this number has this time.
    pub(crate) fn with(number: u64, time_ms: i64) -> Self {
        Self {
            first_ms: time_ms.saturating_sub_unsigned(number),
            step_ms: 1,
        }
    }
}

impl Plan {
    /// How many of the events are first copies.
    pub(crate) fn unique(&self) -> u64 {
        self.events - self.duplicates
    }

    /// The events in sending order.
    pub(crate) fn slots(&self) -> Slots {
        Slots {
            random: Random::new(self.seed),
            remaining: self.events,
            duplicates: self.duplicates,
            firsts: 0,
        }
    }
}

/// How many of `events` are duplicates: `events × rate`, rounded to the nearest.
/// It is an error when that would leave no first copy to be a duplicate of.
pub(crate) fn duplicates(events: u64, rate: f64) -> Result<u64, UsageError> {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "rounding is what is meant here, and the rate is below 1"
    )]
    let duplicates = (events as f64 * rate).round() as u64;
    if events > 0 && duplicates >= events {
        return Err(UsageError(format!(
            "with a duplicate rate of {rate} none of {events} events would be unique: raise --events or lower --duplicate-rate"
        )));
    }
    Ok(duplicates)
}

/// One place in the sending order. First copies are numbered from 0 in the order in which they are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Slot {
    /// The first copy with this number.
    First(u64),
    /// A duplicate of the first copy with this number, which is earlier in the order.
    Copy(u64),
}

/// The sending order. It is made by selection sampling (Knuth, The Art of Computer Programming, volume 2, section 3.4.2, Algorithm S): of `n` places still to come,
/// of which `k` must be duplicates, the next is one with probability `k / n`; so exactly the planned number are, each choice of places is equally likely, and
/// only the two counts are kept. The very first place has nothing to copy and takes no part.
#[derive(Debug, Clone)]
pub(crate) struct Slots {
    random: Random,
    remaining: u64,
    duplicates: u64,
    firsts: u64,
}

impl Iterator for Slots {
    type Item = Slot;

    fn next(&mut self) -> Option<Slot> {
        let places = NonZeroU64::new(self.remaining)?;
        self.remaining -= 1;
        if let Some(earlier) = NonZeroU64::new(self.firsts)
            && self.random.below(places) < self.duplicates
        {
            self.duplicates -= 1;
            return Some(Slot::Copy(self.random.below(earlier)));
        }
        self.firsts += 1;
        Some(Slot::First(self.firsts - 1))
    }
}

impl FusedIterator for Slots {}

/// Xoshiro256++ (Blackman and Vigna, "Scrambled linear pseudorandom number generators", 2021). A seed must mean the same events in
/// every version of this program, which the generators of the crate `rand` do not promise.
#[derive(Debug, Clone)]
pub(crate) struct Random(Xoshiro256PlusPlus);

impl Random {
    /// The generator that `seed` stands for.
    pub(crate) fn new(seed: u64) -> Self {
        Self(Xoshiro256PlusPlus::seed_from_u64(seed))
    }

    /// The generator of the event with this number, whatever was drawn before.
    pub(crate) fn of_event(seed: u64, number: u64) -> Self {
        Self::new(Self::new(seed).bits() ^ number)
    }

    /// The next 64 random bits.
    pub(crate) fn bits(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// A number below `bound`. The remainder favours small numbers by less than `bound / 2^64`, which no run is long enough to show.
    pub(crate) fn below(&mut self, bound: NonZeroU64) -> u64 {
        self.bits() % bound
    }
}

/// Plans for tests.
#[cfg(test)]
pub(crate) mod example {
    use super::*;

    /// A plan of one topic with seed 1.
    pub(crate) fn plan(events: u64, duplicates: u64) -> Plan {
        Plan {
            events,
            duplicates,
            topics: NonZeroU64::MIN,
            seed: 1,
            times: Times::FIXED,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::example::plan;
    use super::*;

    proptest! {
        #[test]
        fn exactly_the_planned_number_are_duplicates(
            (events, duplicates) in (1..2000_u64).prop_flat_map(|events| (Just(events), 0..events)),
            seed: u64,
        ) {
            let mut firsts = 0;
            let mut copies = 0;
            for slot in (Plan { seed, ..plan(events, duplicates) }).slots() {
                match slot {
                    Slot::First(number) => { prop_assert_eq!(number, firsts); firsts += 1; }
                    Slot::Copy(number) => { prop_assert!(number < firsts); copies += 1; }
                }
            }
            prop_assert_eq!((firsts, copies), (events - duplicates, duplicates));
        }
    }

    #[test]
    fn order_follows_from_the_seed() {
        let order = |seed| {
            Plan {
                seed,
                ..plan(1000, 300)
            }
            .slots()
            .collect::<Vec<_>>()
        };
        assert_eq!(order(7), order(7));
        assert_ne!(order(7), order(8));
    }

    #[test]
    fn duplicates_are_spread_over_the_whole_order() {
        let order: Vec<Slot> = plan(20_000, 6_000).slots().collect();
        for part in order.chunks(5_000) {
            let copies = part.iter().filter(|slot| matches!(slot, Slot::Copy(_))).count();
            assert!((1_300..1_700).contains(&copies), "{copies}");
        }
    }

    #[test]
    fn an_empty_plan_sends_nothing() {
        assert_eq!(plan(0, 0).slots().next(), None);
    }

    #[test]
    fn the_rate_is_rounded_to_the_nearest_event() {
        for (events, rate, expected) in [
            (20_000, 0.3, 6_000),
            (10, 0.15, 2),
            (10, 0.14, 1),
            (1, 0.3, 0),
            (0, 0.9, 0),
            (100, 0.0, 0),
        ] {
            assert_eq!(duplicates(events, rate).unwrap(), expected);
        }
    }

    #[test]
    fn a_plan_without_a_first_copy_is_an_error() {
        assert!(duplicates(1, 0.5).is_err());
        assert!(duplicates(10, 0.99).is_err());
    }
}
