//! `GET /stats` and `GET /stats/history`: the counters of the store, and the statistics of this process.

use std::time::Duration;

use axum::extract::{RawQuery, State};
use axum::response::Response;

use super::docs::answers::observe::{HistoryAnswers, StatsAnswers};
use super::docs::parameters::{HistoryParameters, StatsParameters};
use super::error::ApiError;
use super::guard::{self, May, visible};
use super::query::Query;
use super::state::AppState;
use crate::api::stats::{
    CommitLatency, History, HistoryPoint, Log, Outbox, Performance, Queue, Retention, SomeStats, Stats, TopicStats,
    UptimeStats,
};
use crate::event::Timestamp;
use crate::metrics::OutcomeLabel;
use crate::metrics::history::{SECONDS_MAX, Second};
use crate::store::{Counts, StoreStats, TopicSums};

/// Get the statistics, or the counters of one topic
///
/// With `topic=` only the counters of that topic. A key for some topics gets the counters of these, and nothing of the process.
#[utoipa::path(
    get,
    path = "/stats",
    operation_id = "getStats",
    tag = "observe",
    params(StatsParameters),
    responses(StatsAnswers)
)]
pub(super) async fn stats(
    May { who, .. }: May<guard::Read>,
    State(state): State<AppState>,
    RawQuery(query): RawQuery,
) -> Result<Response, ApiError> {
    state.check_started()?;
    let mut query = Query::read(query.as_deref());
    let topic = query.topic();
    query.finish().map_err(ApiError::Invalid)?;
    match visible(topic, &who) {
        (Some(topic), _) => {
            let counts = state.store.topic_counts(&topic).await?;
            state.figures.json(&TopicStats::from(counts))
        }
        (None, globs) if !globs.is_all() => {
            let sums = state.store.sums(&globs).await?;
            state.figures.json(&SomeStats::from(sums))
        }
        (None, _) => {
            let stats = state.stats.read().await?;
            state.figures.json(&all(&state, &stats))
        }
    }
}

/// Get the counters of this process, second by second
///
/// From the memory of this process, so it also works while the store is down.
#[utoipa::path(
    get,
    path = "/stats/history",
    operation_id = "getStatsHistory",
    tag = "observe",
    params(HistoryParameters),
    responses(HistoryAnswers)
)]
pub(super) async fn history(
    _: May<guard::ReadAll>,
    State(state): State<AppState>,
    RawQuery(query): RawQuery,
) -> Result<Response, ApiError> {
    let mut query = Query::read(query.as_deref());
    let window = query.seconds("window", SECONDS_MAX);
    query.finish().map_err(ApiError::Invalid)?;
    let seconds = state.metrics.history(window.unwrap_or(SECONDS_MAX));
    state.figures.json(&History {
        interval_seconds: 1,
        points: seconds.iter().filter_map(point).collect(),
    })
}

/// The point of a second; `None` if the system's clock was beyond the year 9999.
fn point(second: &Second) -> Option<HistoryPoint> {
    Some(HistoryPoint {
        at: Timestamp::from_micros(second.at.saturating_mul(1_000_000))?,
        received: second.received,
        unique_processed: second.unique_processed,
        duplicate_dropped: second.received - second.unique_processed,
    })
}

impl From<Counts> for TopicStats {
    fn from(counts: Counts) -> Self {
        Self {
            received: unsigned(counts.received),
            unique_processed: unsigned(counts.unique_processed),
            duplicate_dropped: unsigned(counts.duplicate_dropped),
            conflicts: unsigned(counts.conflicts),
        }
    }
}

impl From<TopicSums> for SomeStats {
    fn from(sums: TopicSums) -> Self {
        let counts = sums.counts;
        let topics = sums.topics.into_iter();
        Self {
            received: unsigned(counts.received),
            unique_processed: unsigned(counts.unique_processed),
            duplicate_dropped: unsigned(counts.duplicate_dropped),
            conflicts: unsigned(counts.conflicts),
            topics: topics.map(|(topic, unique)| (topic, unsigned(unique))).collect(),
            topic_count: unsigned(sums.topic_count),
            database_total_rows: unsigned(counts.unique_processed - counts.pruned),
        }
    }
}

fn all(state: &AppState, stats: &StoreStats) -> Stats {
    let uptime = hundredths(state.metrics.started().elapsed().as_secs_f64());
    let counts = stats.counts;
    Stats {
        received: unsigned(counts.received),
        unique_processed: unsigned(counts.unique_processed),
        duplicate_dropped: unsigned(counts.duplicate_dropped),
        conflicts: unsigned(counts.conflicts),
        topics: stats
            .topics
            .iter()
            .map(|(topic, unique)| (topic.clone(), unsigned(*unique)))
            .collect(),
        topic_count: unsigned(stats.topic_count),
        uptime,
        uptime_seconds: uptime,
        uptime_stats: uptime_stats(state),
        database_total_rows: unsigned(counts.unique_processed - counts.pruned),
        performance: performance(state, counts),
        queue: Queue {
            events: state.ingest.queued() as u64,
            capacity: state.ingest.capacity() as u64,
        },
        outbox: Outbox {
            batches: unsigned(stats.backlog.batches),
            oldest_seconds: hundredths(stats.backlog.oldest_seconds),
            parked: unsigned(stats.backlog.dead_letters),
        },
        log: Log {
            unsettled_seconds: stats.stability.visibility_lag_seconds,
        },
        retention: Retention {
            held_back: unsigned(stats.held_back),
        },
        store: state.store.name().into(),
        fanout: state.sink.kind.into(),
    }
}

fn uptime_stats(state: &AppState) -> UptimeStats {
    let events = |outcome| state.metrics.events_of(outcome).get();
    let unique_processed = events(OutcomeLabel::Stored);
    let duplicate_dropped = events(OutcomeLabel::Duplicate) + events(OutcomeLabel::Conflict);
    UptimeStats {
        received: unique_processed + duplicate_dropped,
        unique_processed,
        duplicate_dropped,
        rejected: events(OutcomeLabel::Rejected),
    }
}

fn performance(state: &AppState, counts: Counts) -> Performance {
    let milliseconds = |time: Duration| hundredths(time.as_secs_f64() * 1e3);
    let (p50, p99) = state.metrics.commit_latency();
    Performance {
        events_per_second: hundredths(state.metrics.events_per_second()),
        commit_latency_ms: CommitLatency {
            p50: milliseconds(p50),
            p99: milliseconds(p99),
        },
        duplicate_rate: match counts.received {
            0 => 0.0,
            received => counts.duplicate_dropped as f64 / received as f64,
        },
    }
}

/// A count of the store, which is never negative.
fn unsigned(count: i64) -> u64 {
    u64::try_from(count).unwrap_or(0)
}

fn hundredths(number: f64) -> f64 {
    (number * 100.0).round() / 100.0
}
