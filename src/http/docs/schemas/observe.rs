//! The shapes of figures and probes.

use std::collections::BTreeMap;

use utoipa::openapi::schema::{AnyOf, Schema};
use utoipa::openapi::{Ref, RefOr};
use utoipa::{PartialSchema, ToSchema};

use crate::event::Timestamp;
use crate::store::Counts;

/// What is alive.
#[derive(ToSchema)]
pub struct Alive {
    /// `eventsieve`
    #[schema(pattern = "^eventsieve$")]
    pub service: String,
    /// `alive`
    #[schema(pattern = "^alive$")]
    pub status: String,
    /// The version of the program.
    #[schema(example = "0.1.0")]
    pub version: String,
}

/// The answer of a probe that is content.
#[derive(ToSchema)]
pub struct Probe {
    /// `alive` or `ready`
    #[schema(pattern = "^(alive|ready)$")]
    pub status: String,
}

/// How the service is.
#[derive(ToSchema)]
pub struct Health {
    /// `healthy`, `degraded` (the fan-out is down, or walks are held back) or, with 503, `unhealthy`
    #[schema(pattern = "^(healthy|degraded|unhealthy)$")]
    pub status: String,
    /// How the store is.
    pub store: StoreHealth,
    /// How the fan-out is.
    pub fanout: FanoutHealth,
}

/// How the store is.
#[derive(ToSchema)]
pub struct StoreHealth {
    /// `postgres` or `sqlite`
    #[schema(pattern = "^(postgres|sqlite)$")]
    pub kind: String,
    /// `up` or `down`
    #[schema(pattern = "^(up|down)$")]
    pub status: String,
    /// By how many seconds walks are behind what is committed.
    #[schema(minimum = 0)]
    pub unsettled_seconds: f64,
    /// What is wrong, when it is down.
    #[schema(nullable = false)]
    pub reason: Option<String>,
}

/// How the fan-out is.
#[derive(ToSchema)]
pub struct FanoutHealth {
    /// `redis` or `process`
    #[schema(pattern = "^(redis|process)$")]
    pub kind: String,
    /// `up` or `down`
    #[schema(pattern = "^(up|down)$")]
    pub status: String,
    /// What is wrong, when it is down.
    #[schema(nullable = false)]
    pub reason: Option<String>,
}

/// The figures of the store, and of this process.
#[derive(ToSchema)]
pub struct Statistics {
    /// Events received: `unique_processed + duplicate_dropped`.
    pub received: u64,
    /// Of these, stored.
    pub unique_processed: u64,
    /// Of these, dropped as duplicates.
    pub duplicate_dropped: u64,
    /// Of the duplicates, those with another payload.
    pub conflicts: u64,
    /// The unique events of each topic, of the 1000 largest.
    pub topics: BTreeMap<String, u64>,
    /// How many topics there are.
    pub topic_count: u64,
    /// Seconds since this process started.
    pub uptime: f64,
    /// The same.
    pub uptime_seconds: f64,
    /// What this process was sent since it started.
    pub uptime_stats: UptimeFigures,
    /// The events that are stored: `unique_processed` without those that were pruned.
    pub database_total_rows: u64,
    /// How fast it is.
    pub performance: Performance,
    /// What waits to be committed.
    pub queue: Queue,
    /// What waits to be published on Redis.
    pub outbox: Outbox,
    /// How far walks are behind.
    pub log: Log,
    /// `postgres` or `sqlite`
    #[schema(pattern = "^(postgres|sqlite)$")]
    pub store: String,
    /// `redis` or `process`
    #[schema(pattern = "^(redis|process)$")]
    pub fanout: String,
}

/// What this process was sent since it started.
#[derive(ToSchema)]
pub struct UptimeFigures {
    /// Valid events.
    pub received: u64,
    /// Of these, stored.
    pub unique_processed: u64,
    /// Of these, dropped as duplicates.
    pub duplicate_dropped: u64,
    /// Events that broke a rule, or that the store would not take.
    pub rejected: u64,
}

/// How fast this process is.
#[derive(ToSchema)]
pub struct Performance {
    /// Events received a second, of late.
    pub events_per_second: f64,
    /// Of the last flushes that were committed: the time of the attempt that did it.
    pub commit_latency_ms: Percentiles,
    /// Duplicates among all events received, 0 to 1.
    #[schema(minimum = 0, maximum = 1)]
    pub duplicate_rate: f64,
}

/// A distribution, in milliseconds.
#[derive(ToSchema)]
pub struct Percentiles {
    /// Half are faster.
    pub p50: f64,
    /// One in a hundred is slower.
    pub p99: f64,
}

/// The queue of this process.
#[derive(ToSchema)]
pub struct Queue {
    /// Events that wait, or are being committed.
    pub events: u64,
    /// How many may.
    pub capacity: u64,
}

/// What the store owes to the fan-out.
#[derive(ToSchema)]
pub struct Outbox {
    /// Batches that are not yet published.
    pub batches: u64,
    /// The age of the oldest.
    pub oldest_seconds: f64,
    /// Events that Redis refused for themselves.
    pub parked: u64,
}

/// The log.
#[derive(ToSchema)]
pub struct Log {
    /// By how many seconds walks are behind what is committed.
    #[schema(minimum = 0)]
    pub unsettled_seconds: f64,
}

/// The figures of all, or the counts of one topic.
pub struct Stats;

impl PartialSchema for Stats {
    fn schema() -> RefOr<Schema> {
        AnyOf::builder()
            .description(Some("All figures, or with `topic=` the counts of that topic."))
            .item(Ref::from_schema_name(Statistics::name()))
            .item(Ref::from_schema_name(Counts::name()))
            .into()
    }
}
impl ToSchema for Stats {}

/// What this process counted in each second of late.
#[derive(ToSchema)]
pub struct History {
    /// The seconds of a point.
    #[schema(minimum = 1)]
    pub interval_seconds: u64,
    /// The oldest first.
    pub points: Vec<HistoryPoint>,
}

/// What this process counted in one interval.
#[derive(ToSchema)]
pub struct HistoryPoint {
    /// When it began.
    pub at: Timestamp,
    /// Events received.
    pub received: u64,
    /// Of these, stored.
    pub unique_processed: u64,
    /// Of these, dropped as duplicates.
    pub duplicate_dropped: u64,
}
