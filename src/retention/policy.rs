//! What is too old, and how long partitions are.

use std::time::Duration;

use crate::config::{Retain, RetentionConfig, TopicAges};
use crate::event::{Timestamp, TopicGlob};
use crate::store::{Expiry, Partition};

/// The longest partition, if anything expires by age or size.
const DAY: Duration = Duration::from_secs(24 * 3600);
/// The length of partitions if nothing expires: something may, one day.
const MONTH: Duration = Duration::from_secs(30 * 24 * 3600);
/// The shortest partition.
const SECOND: Duration = Duration::from_secs(1);

/// How many partitions there may be before they get longer: a read that names no place in the log opens all of them.
const PARTITIONS_MANY: u32 = 100;

/// Of how many partitions at least the events consist that a size allows: so much goes at once.
const PARTITIONS_OF_SIZE: u64 = 10;

/// The longest time between two passes.
const INTERVAL_MAX: Duration = Duration::from_secs(60);
/// The shortest.
const INTERVAL_MIN: Duration = Duration::from_millis(200);

/// When events expire.
#[derive(Debug, Clone)]
pub struct Policy {
    retain: Retain,
    topics: TopicAges,
}

impl Policy {
    /// The policy that these settings describe.
    pub fn new(config: &RetentionConfig) -> Self {
        Self {
            retain: config.retain,
            topics: config.retain_topics.clone(),
        }
    }

    fn ages(&self) -> impl Iterator<Item = Duration> {
        let topics = self.topics.0.iter().map(|(_, age)| *age);
        self.retain.age.into_iter().chain(topics)
    }

    /// How long the next partition is to be, where there are `partitions` already. A partition is a day, or as long as the shortest
    /// retention; longer where there would be very many.
    pub fn length(&self, partitions: usize) -> Duration {
        let shortest = self.ages().min().map(|age| age.clamp(SECOND, DAY));
        let length = match (shortest, self.retain.bytes) {
            (Some(shortest), _) => shortest,
            (None, Some(_)) => DAY,
            (None, None) => MONTH,
        };
        let longest = self.ages().max().unwrap_or_default();
        let length = length.max(longest / PARTITIONS_MANY);
        let partitions = u32::try_from(partitions).unwrap_or(u32::MAX);
        if partitions > PARTITIONS_MANY {
            length.saturating_mul(1 + partitions / PARTITIONS_MANY)
        } else {
            length
        }
    }

    /// Whether the current partition ends for its size.
    pub fn is_too_large(&self, current: &Partition) -> bool {
        self.retain
            .bytes
            .is_some_and(|limit| current.bytes > limit / PARTITIONS_OF_SIZE)
    }

    /// The time between two passes: a minute, or a tenth of the shortest retention.
    pub fn interval(&self) -> Duration {
        let shortest = self.ages().min().unwrap_or(Duration::MAX);
        (shortest / 10).clamp(INTERVAL_MIN, INTERVAL_MAX)
    }

    /// What of a partition is too old at this time. `None`: nothing, or nothing that has not been removed already.
    pub fn by_age(&self, partition: &Partition, now: Timestamp) -> Option<Expiry> {
        let ended = partition.ended_at?;
        let age = Duration::from_micros(u64::try_from(now.micros().saturating_sub(ended.micros())).unwrap_or(0));
        let others = self.retain.age.is_some_and(|limit| age >= limit);
        self.expiry(partition, others, age)
    }

    /// What of a partition goes because all partitions together are too large: everything but what has an age of its own.
    pub fn by_size(&self, partition: &Partition, now: Timestamp) -> Option<Expiry> {
        let ended = partition.ended_at?;
        let age = Duration::from_micros(u64::try_from(now.micros().saturating_sub(ended.micros())).unwrap_or(0));
        self.expiry(partition, true, age)
    }

    /// By how much partitions of this size together are too large.
    pub fn excess(&self, partitions: &[Partition]) -> u64 {
        let bytes: u64 = partitions.iter().map(|partition| partition.bytes).sum();
        self.retain.bytes.map_or(0, |limit| bytes.saturating_sub(limit))
    }

    /// What was decided once stays decided: it is done, and what is decided later adds to it.
    fn expiry(&self, partition: &Partition, others: bool, age: Duration) -> Option<Expiry> {
        let was_decided = |pattern: &str| partition.decision.split(' ').any(|decided| decided == pattern);
        let others = others || was_decided(OTHERS);
        let goes = |(glob, limit): &(TopicGlob, Duration)| {
            let goes = age >= *limit || was_decided(&format!("topic:{glob}"));
            (glob.clone(), goes)
        };
        let topics: Vec<_> = self.topics.0.iter().map(goes).collect();
        let gone = topics.iter().filter(|(_, goes)| *goes);
        let gone = gone.map(|(glob, _)| format!("topic:{glob}"));
        let decision: Vec<String> = gone.chain(others.then(|| OTHERS.to_owned())).collect();
        let is_done = decision.iter().all(|pattern| was_decided(pattern)) && partition.held_back == 0;
        (!decision.is_empty() && !is_done).then(|| Expiry {
            topics,
            others,
            decision: Some(decision.join(" ")),
            ..Expiry::of_all(partition.first_batch)
        })
    }
}

/// Stands in a decision for the topics that have no age of their own.
const OTHERS: &str = "others";

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(age: Option<u64>, bytes: Option<u64>, topics: &[(&str, u64)]) -> Policy {
        let rule = |(glob, age): &(&str, u64)| (TopicGlob::parse(glob).unwrap(), Duration::from_secs(*age));
        Policy {
            retain: Retain {
                age: age.map(Duration::from_secs),
                bytes,
            },
            topics: TopicAges(topics.iter().map(rule).collect()),
        }
    }

    fn partition(ended_seconds: Option<i64>, bytes: u64) -> Partition {
        Partition {
            first_batch: 7,
            before_batch: 9,
            is_open: ended_seconds.is_none(),
            ended_at: ended_seconds.map(|seconds| Timestamp::from_micros(seconds * 1_000_000).unwrap()),
            bytes,
            decision: String::new(),
            held_back: 0,
            archived_as: None,
        }
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_micros(seconds * 1_000_000).unwrap()
    }

    #[test]
    fn partition_is_a_day_or_as_long_as_the_shortest_retention() {
        assert_eq!(policy(None, None, &[]).length(1), MONTH);
        assert_eq!(policy(None, Some(1 << 30), &[]).length(1), DAY);
        assert_eq!(policy(Some(30 * 86400), None, &[]).length(31), DAY);
        assert_eq!(policy(Some(3600), None, &[]).length(1), Duration::from_secs(3600));
        assert_eq!(
            policy(Some(3600), None, &[("a", 60)]).length(1),
            Duration::from_secs(60)
        );
        assert_eq!(policy(None, None, &[("a", 60)]).length(1), Duration::from_secs(60));
        assert_eq!(policy(Some(86400), None, &[]).length(350), DAY * 4);
        assert_eq!(policy(Some(1000 * 86400), None, &[("a", 60)]).length(1), DAY * 10);
    }

    #[test]
    fn pass_comes_every_minute_or_sooner() {
        assert_eq!(policy(None, None, &[]).interval(), INTERVAL_MAX);
        assert_eq!(policy(Some(600), None, &[]).interval(), INTERVAL_MAX);
        assert_eq!(policy(Some(60), None, &[]).interval(), Duration::from_secs(6));
        assert_eq!(policy(Some(86400), None, &[("a", 1)]).interval(), INTERVAL_MIN);
    }

    #[test]
    fn age_counts_from_the_end_of_the_partition() {
        let policy = policy(Some(100), None, &[("a.*", 10), ("b", 1000)]);
        let expired = |now| {
            policy.by_age(&partition(Some(1000), 0), at(now)).map(|expiry| {
                (
                    expiry.topics.iter().map(|(_, goes)| *goes).collect::<Vec<_>>(),
                    expiry.others,
                )
            })
        };
        assert_eq!(expired(1009), None);
        assert_eq!(expired(1010), Some((vec![true, false], false)));
        assert_eq!(expired(1100), Some((vec![true, false], true)));
        assert_eq!(expired(2000), Some((vec![true, true], true)));
        assert_eq!(expired(500), None, "the clock was set back");
        assert!(
            policy.by_age(&partition(None, 0), at(5000)).is_none(),
            "it has not ended"
        );
    }

    #[test]
    fn what_was_done_is_not_done_again() {
        let policy = policy(Some(100), None, &[]);
        let mut done = partition(Some(0), 0);
        done.decision = policy.by_age(&done, at(100)).unwrap().decision.unwrap();
        assert!(policy.by_age(&done, at(200)).is_none());
        done.held_back = 1;
        assert!(policy.by_age(&done, at(200)).is_some(), "something is left to do");
    }

    #[test]
    fn size_leaves_topics_with_an_age_of_their_own() {
        let policy = policy(None, Some(1000), &[("a", 50)]);
        assert_eq!(policy.excess(&[partition(None, 600), partition(None, 600)]), 200);
        assert_eq!(policy.excess(&[partition(None, 1000)]), 0);
        assert!(policy.is_too_large(&partition(None, 101)) && !policy.is_too_large(&partition(None, 100)));
        let expiry = policy.by_size(&partition(Some(0), 600), at(10)).unwrap();
        assert!(expiry.others && !expiry.topics[0].1);
        assert!(policy.by_age(&partition(Some(0), 600), at(10)).is_none());
        let mut done = partition(Some(0), 600);
        done.decision = expiry.decision.unwrap();
        assert!(policy.by_size(&done, at(10)).is_none() && policy.by_age(&done, at(10)).is_none());
        let later = policy.by_age(&done, at(50)).unwrap();
        assert!(later.others && later.topics[0].1, "it adds to what was decided");
    }
}
