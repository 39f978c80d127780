//! Which events are sent, and in which order: how many, which of them are duplicates, and of what.
//!
//! Everything follows from the seed, and nothing is held: the stream may be longer than memory.

use std::{iter::FusedIterator, num::NonZeroU64};

use crate::cli::UsageError;

/// What a run sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plan {
    /// All events, duplicates included.
    pub events: u64,
    /// How many of them copy an earlier one.
    pub duplicates: u64,
    /// How many topics the events are spread over.
    pub topics: NonZeroU64,
    /// What all choices follow from.
    pub seed: u64,
}

impl Plan {
    /// How many of the events are first copies.
    #[must_use]
    pub fn unique(&self) -> u64 {
        self.events - self.duplicates
    }

    /// The events in sending order.
    #[must_use]
    pub fn slots(&self) -> Slots {
        Slots {
            random: Random::new(self.seed),
            remaining: self.events,
            duplicates: self.duplicates,
            firsts: 0,
        }
    }
}

/// How many of `events` are duplicates: `events × rate`, rounded to the nearest.
///
/// # Errors
/// When that would leave no first copy to be a duplicate of.
pub fn duplicates(events: u64, rate: f64) -> Result<u64, UsageError> {
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
pub enum Slot {
    /// The first copy with this number.
    First(u64),
    /// A duplicate of the first copy with this number, which is earlier in the order.
    Copy(u64),
}

/// The sending order. It is made by selection sampling (Knuth, The Art of Computer Programming, volume 2, section 3.4.2, Algorithm S): of `n` places still to come,
/// of which `k` must be duplicates, the next is one with probability `k / n`; so exactly the planned number are, each choice of places is equally likely, and
/// only the two counts are remembered. The very first place has nothing to copy and takes no part.
#[derive(Debug, Clone)]
pub struct Slots {
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

/// SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014): written out here because a seed must mean the same events in
/// every version of this program, which no generator of the crate `rand` promises.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// The generator that `seed` stands for.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The generator that belongs to the event with this number, whatever was drawn before.
    #[must_use]
    pub fn of_event(seed: u64, number: u64) -> Self {
        Self(mix(mix(seed) ^ number))
    }

    /// The next 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// A number below `bound`. The remainder favours small numbers by less than `bound / 2^64`, which no run is long enough to show.
    pub fn below(&mut self, bound: NonZeroU64) -> u64 {
        self.bits() % bound
    }
}

fn mix(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn plan(events: u64, duplicates: u64, seed: u64) -> Plan {
        Plan {
            events,
            duplicates,
            topics: NonZeroU64::MIN,
            seed,
        }
    }

    proptest! {
        #[test]
        fn exactly_the_planned_number_are_duplicates_of_earlier_events(
            (events, duplicates) in (1..2000_u64).prop_flat_map(|events| (Just(events), 0..events)),
            seed: u64,
        ) {
            let mut firsts = 0;
            let mut copies = 0;
            for slot in plan(events, duplicates, seed).slots() {
                match slot {
                    Slot::First(number) => { prop_assert_eq!(number, firsts); firsts += 1; }
                    Slot::Copy(number) => { prop_assert!(number < firsts); copies += 1; }
                }
            }
            prop_assert_eq!((firsts, copies), (events - duplicates, duplicates));
        }
    }

    #[test]
    fn the_order_follows_from_the_seed() {
        let order = |seed| plan(1000, 300, seed).slots().collect::<Vec<_>>();
        assert_eq!(order(7), order(7));
        assert_ne!(order(7), order(8));
    }

    #[test]
    fn duplicates_are_spread_over_the_whole_order() {
        let order: Vec<Slot> = plan(20_000, 6_000, 1).slots().collect();
        for part in order.chunks(5_000) {
            let copies = part.iter().filter(|slot| matches!(slot, Slot::Copy(_))).count();
            assert!((1_300..1_700).contains(&copies), "{copies}");
        }
    }

    #[test]
    fn an_empty_plan_sends_nothing() {
        assert_eq!(plan(0, 0, 1).slots().next(), None);
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
    fn a_plan_without_a_first_copy_is_refused() {
        assert!(duplicates(1, 0.5).is_err());
        assert!(duplicates(10, 0.99).is_err());
    }

    #[test]
    fn the_generator_is_splitmix64() {
        // The first outputs for seed 1234567 of the reference implementation, https://prng.di.unimi.it/splitmix64.c.
        let mut random = Random::new(1_234_567);
        assert_eq!(random.bits(), 6_457_827_717_110_365_317);
        assert_eq!(random.bits(), 3_203_168_211_198_807_973);
    }
}
