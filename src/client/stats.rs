//! The answer to `GET /stats`.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};

/// The figures of a service: those of the store, which are the same on every replica, and those of the process that answered.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Stats {
    /// Events received, duplicates included.
    pub received: u64,
    /// Events that were new; pruning does not change it.
    pub unique_processed: u64,
    /// Events that were duplicates.
    pub duplicate_dropped: u64,
    /// Those of the duplicates whose payload differed from the first copy's.
    pub conflicts: u64,
    /// The unique events of each topic, the largest topic first; of equals the first by name. At most the 1000 largest.
    #[serde(deserialize_with = "largest_first")]
    pub topics: Vec<(String, u64)>,
    /// How many topics there are.
    pub topic_count: u64,
    /// Seconds since the process started; the older name of `uptime_seconds`.
    pub uptime: f64,
    /// Seconds since the process started.
    pub uptime_seconds: f64,
    /// What the process has counted since it started.
    pub uptime_stats: UptimeStats,
    /// Events that are in the store now.
    pub database_total_rows: u64,
    /// How fast the process is.
    pub performance: Performance,
    /// What waits in the process for its commit.
    pub queue: Queue,
    /// What is stored and not yet published.
    pub outbox: Outbox,
    /// How far walks are behind.
    pub log: Log,
    /// The kind of the store: `postgres` or `sqlite`.
    pub store: String,
    /// The kind of the fan-out: `redis` or `process`.
    pub fanout: String,
}

/// What a process has counted since it started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct UptimeStats {
    /// Events received.
    pub received: u64,
    /// Events that were new.
    pub unique_processed: u64,
    /// Events that were duplicates.
    pub duplicate_dropped: u64,
    /// Invalid events.
    pub rejected: u64,
}

/// How fast a process is.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
pub struct Performance {
    /// Events received per second, lately.
    pub events_per_second: f64,
    /// How long the last commits took.
    pub commit_latency_ms: CommitLatency,
    /// Which part of all received events were duplicates.
    pub duplicate_rate: f64,
}

/// How long commits took, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
pub struct CommitLatency {
    /// Half of them took no longer.
    pub p50: f64,
    /// Of a hundred, 99 took no longer.
    pub p99: f64,
}

/// What waits in a process for its commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct Queue {
    /// Events that wait.
    pub events: u64,
    /// How many may wait.
    pub capacity: u64,
}

/// What is stored and not yet published.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
pub struct Outbox {
    /// Batches that wait.
    pub batches: u64,
    /// The age of the oldest of them.
    pub oldest_seconds: f64,
    /// Events that the fan-out refused.
    pub parked: u64,
}

/// How far walks are behind.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
pub struct Log {
    /// How long the oldest transaction that walks wait for has been running.
    pub unsettled_seconds: f64,
}

/// The members of an object of counts, the largest count first.
fn largest_first<'de, D: Deserializer<'de>>(object: D) -> Result<Vec<(String, u64)>, D::Error> {
    let by_name: BTreeMap<String, u64> = BTreeMap::deserialize(object)?;
    let mut topics = Vec::from_iter(by_name);
    // The sort is stable, so that equals stay in the order of their names.
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
        "log": {"unsettled_seconds": 0.0}, "store": "postgres", "fanout": "redis", "a member of a later version": null }"#;

    /// It with some members set to other values.
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
    fn the_answer_of_the_contract_is_read_and_its_topics_are_ordered_by_size_and_name() {
        let stats = stats_with(json!({}));
        assert_eq!((stats.received, stats.queue.capacity), (20_000, 100_000));
        let topics: Vec<&str> = stats.topics.iter().map(|(topic, _)| topic.as_str()).collect();
        assert_eq!(topics, ["large", "a", "b", "small"]);
    }

    #[test]
    fn an_answer_without_a_figure_is_not_the_services() {
        assert!(serde_json::from_str::<Stats>(&ANSWER.replace("conflicts", "other")).is_err());
    }
}
