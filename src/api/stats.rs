//! Answers with counters and statistics.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use utoipa::ToSchema;

use crate::event::Timestamp;

/// The statistics of the store, which are the same on every replica, and of the process that answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Stats {
    /// Events received: `unique_processed + duplicate_dropped`.
    pub received: u64,
    /// New events. Pruning does not change it.
    pub unique_processed: u64,
    /// Events that were dropped as duplicates.
    pub duplicate_dropped: u64,
    /// Duplicates whose payload differed from that of the first copy.
    pub conflicts: u64,
    /// The unique events of each topic, the largest topic first; equal topics by name. At most the 1000 largest topics.
    #[serde(serialize_with = "as_object", deserialize_with = "largest_first")]
    #[schema(value_type = BTreeMap<String, u64>)]
    pub topics: Vec<(String, u64)>,
    /// The number of topics.
    pub topic_count: u64,
    /// Seconds since this process started.
    pub uptime: f64,
    /// The same as `uptime`.
    pub uptime_seconds: f64,
    /// The counters of this process since it started.
    pub uptime_stats: UptimeStats,
    /// The events in the store: `unique_processed` without the pruned events.
    pub database_total_rows: u64,
    /// The speed of this process.
    pub performance: Performance,
    /// The events that wait for their commit.
    pub queue: Queue,
    /// The batches that wait to be published on Redis.
    pub outbox: Outbox,
    /// How far cursor reads are behind.
    pub log: Log,
    /// What expires.
    pub retention: Retention,
    /// `postgres` or `sqlite`
    #[schema(pattern = "^(postgres|sqlite)$")]
    pub store: Cow<'static, str>,
    /// `redis` or `process`
    #[schema(pattern = "^(redis|process)$")]
    pub fanout: Cow<'static, str>,
}

/// The counters of some topics together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SomeStats {
    /// Events received: `unique_processed + duplicate_dropped`.
    pub received: u64,
    /// New events.
    pub unique_processed: u64,
    /// Events that were dropped as duplicates.
    pub duplicate_dropped: u64,
    /// Duplicates whose payload differed from that of the first copy.
    pub conflicts: u64,
    /// The unique events of each topic, the largest topic first. At most the 1000 largest topics.
    #[serde(serialize_with = "as_object", deserialize_with = "largest_first")]
    #[schema(value_type = BTreeMap<String, u64>)]
    pub topics: Vec<(String, u64)>,
    /// The number of topics.
    pub topic_count: u64,
    /// The events in the store: `unique_processed` without the pruned events.
    pub database_total_rows: u64,
}

/// The counters of this process since it started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct UptimeStats {
    /// Valid events.
    pub received: u64,
    /// New events.
    pub unique_processed: u64,
    /// Events that were dropped as duplicates.
    pub duplicate_dropped: u64,
    /// Invalid events, and events that the store did not accept.
    pub rejected: u64,
}

/// The speed of this process.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Performance {
    /// Events received per second, in the last seconds.
    pub events_per_second: f64,
    /// The duration of the last group commits, each of its successful attempt.
    pub commit_latency_ms: CommitLatency,
    /// The fraction of all received events that were duplicates, 0 to 1.
    #[schema(minimum = 0, maximum = 1)]
    pub duplicate_rate: f64,
}

/// The distribution of commit durations, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct CommitLatency {
    /// The median.
    pub p50: f64,
    /// The 99th percentile.
    pub p99: f64,
}

/// The queue of this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Queue {
    /// Events that wait or are being committed.
    pub events: u64,
    /// Maximum number of events that may wait.
    pub capacity: u64,
}

/// The outbox: stored batches that are not published yet.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Outbox {
    /// Unpublished batches.
    pub batches: u64,
    /// The age of the oldest unpublished batch in seconds.
    pub oldest_seconds: f64,
    /// Dead letters: events that Redis does not accept. `eventsieve outbox --retry` publishes them again.
    pub parked: u64,
}

/// The log.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Log {
    /// The visibility lag: by how many seconds cursor reads are behind what is committed.
    #[schema(minimum = 0)]
    pub unsettled_seconds: f64,
}

/// What expires.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Retention {
    /// Events that should have expired and are kept, because they are not published yet.
    pub held_back: u64,
}

/// The counters of one topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TopicStats {
    /// Events received: `unique_processed + duplicate_dropped`.
    pub received: u64,
    /// New events.
    pub unique_processed: u64,
    /// Events that were dropped as duplicates.
    pub duplicate_dropped: u64,
    /// Duplicates whose payload differed from that of the first copy.
    pub conflicts: u64,
}

/// The counters of this process, second by second.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct History {
    /// The seconds that a point stands for.
    #[schema(minimum = 1)]
    pub interval_seconds: u64,
    /// The points, the oldest first.
    pub points: Vec<HistoryPoint>,
}

/// The counters of one interval.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct HistoryPoint {
    /// When the interval began.
    pub at: Timestamp,
    /// Events received.
    pub received: u64,
    /// New events.
    pub unique_processed: u64,
    /// Events that were dropped as duplicates.
    pub duplicate_dropped: u64,
}

/// An object whose members are in this order.
fn as_object<S: Serializer>(members: &[(String, u64)], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(members.iter().map(|(name, count)| (name, count)))
}

/// The members of an object of counts, the largest count first.
fn largest_first<'de, D: Deserializer<'de>>(object: D) -> Result<Vec<(String, u64)>, D::Error> {
    let by_name: BTreeMap<String, u64> = BTreeMap::deserialize(object)?;
    let mut topics = Vec::from_iter(by_name);
    // The sort is stable, so equal counts stay in the order of their names.
    topics.sort_by_key(|(_, count)| Reverse(*count));
    Ok(topics)
}

/// An answer for tests.
#[cfg(test)]
pub mod example {
    use serde_json::Value;

    use super::Stats;

    /// The example of the contract, with more topics.
    pub const ANSWER: &str = r#"{
        "received": 20000, "unique_processed": 14000, "duplicate_dropped": 6000, "conflicts": 0,
        "topics": {"b": 3500, "small": 1, "a": 3500, "large": 6999}, "topic_count": 4,
        "uptime": 123.45, "uptime_seconds": 123.45,
        "uptime_stats": {"received": 20000, "unique_processed": 14000, "duplicate_dropped": 6000, "rejected": 0},
        "database_total_rows": 14000,
        "performance": {"events_per_second": 0.0, "commit_latency_ms": {"p50": 0.0, "p99": 0.0}, "duplicate_rate": 0.3},
        "queue": {"events": 0, "capacity": 100000}, "outbox": {"batches": 0, "oldest_seconds": 0, "parked": 0},
        "log": {"unsettled_seconds": 0.0}, "retention": {"held_back": 0}, "store": "postgres", "fanout": "redis", "a member of a later version": null }"#;

    /// The same with some members set to other values.
    pub fn stats_with(changes: Value) -> Stats {
        let mut answer: Value = serde_json::from_str(ANSWER).unwrap();
        let Value::Object(changes) = changes else {
            panic!("members are an object")
        };
        answer.as_object_mut().unwrap().extend(changes);
        serde_json::from_value(answer).unwrap()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::example::{ANSWER, stats_with};
    use super::*;

    #[test]
    fn stats_are_read_with_topics_by_size_and_name() {
        let stats = stats_with(json!({}));
        assert_eq!((stats.received, stats.queue.capacity), (20_000, 100_000));
        let topics: Vec<&str> = stats.topics.iter().map(|(topic, _)| topic.as_str()).collect();
        assert_eq!(topics, ["large", "a", "b", "small"]);
    }

    #[test]
    fn stats_without_a_member_are_not_read() {
        assert!(serde_json::from_str::<Stats>(&ANSWER.replace("conflicts", "other")).is_err());
    }

    #[test]
    fn stats_are_written_as_in_the_contract() {
        let expected = r#"{"received":20000,"unique_processed":14000,"duplicate_dropped":6000,"conflicts":0,"topics":{"large":6999,"a":3500,"b":3500,"small":1},"topic_count":4,"uptime":123.45,"uptime_seconds":123.45,"uptime_stats":{"received":20000,"unique_processed":14000,"duplicate_dropped":6000,"rejected":0},"database_total_rows":14000,"performance":{"events_per_second":0.0,"commit_latency_ms":{"p50":0.0,"p99":0.0},"duplicate_rate":0.3},"queue":{"events":0,"capacity":100000},"outbox":{"batches":0,"oldest_seconds":0.0,"parked":0},"log":{"unsettled_seconds":0.0},"retention":{"held_back":0},"store":"postgres","fanout":"redis"}"#;
        assert_eq!(serde_json::to_string(&stats_with(json!({}))).unwrap(), expected);
    }
}
