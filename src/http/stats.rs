//! `GET /stats`: the store's counters and this process's figures. `GET /stats/history`: this process's last seconds.

use std::sync::{Arc, Mutex};

use axum::Json;
use axum::extract::{RawQuery, State};
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use serde_json::{Map, Value, json};

use super::AppState;
use super::docs::answers::observe::{HistoryAnswers, StatsAnswers};
use super::docs::parameters::{HistoryParameters, StatsParameters};
use super::error::ApiError;
use super::events::parameters::Parameters;
use crate::event::Timestamp;
use crate::metrics::OutcomeLabel;
use crate::metrics::history::{SECONDS_MAX, Second};
use crate::store::{Counts, EventReader, StoreError, StoreStats};

/// Shows the figures, or with `topic=` the counts of that topic alone
#[utoipa::path(
    get,
    path = "/stats",
    tag = "observe",
    params(StatsParameters),
    responses(StatsAnswers)
)]
pub async fn show(State(state): State<AppState>, RawQuery(query): RawQuery) -> Result<Json<Value>, ApiError> {
    state.check_started()?;
    let mut parameters = Parameters::read(query.as_deref());
    let topic = parameters.topic();
    parameters.finish().map_err(ApiError::Invalid)?;
    match topic {
        Some(topic) => Ok(Json(counts(&state.store.topic_counts(&topic).await?))),
        None => Ok(Json(figures(&state, &*state.stats.read().await?))),
    }
}

/// Shows what happened in each of the last seconds
///
/// From the memory of this process: also while the store is down.
#[utoipa::path(
    get,
    path = "/stats/history",
    operation_id = "show_history",
    tag = "observe",
    params(HistoryParameters),
    responses(HistoryAnswers)
)]
pub async fn history(State(state): State<AppState>, RawQuery(query): RawQuery) -> Result<Json<Value>, ApiError> {
    let mut parameters = Parameters::read(query.as_deref());
    let window = parameters.seconds("window", SECONDS_MAX);
    parameters.finish().map_err(ApiError::Invalid)?;
    let seconds = state.metrics.history(window.unwrap_or(SECONDS_MAX));
    let points: Vec<Value> = seconds.iter().map(point).collect();
    Ok(Json(json!({ "interval_seconds": 1, "points": points })))
}

fn point(second: &Second) -> Value {
    json!({
        "at": Timestamp::from_micros(second.at.saturating_mul(1_000_000)),
        "received": second.received,
        "unique_processed": second.unique_processed,
        "duplicate_dropped": second.received - second.unique_processed,
    })
}

fn counts(counts: &Counts) -> Value {
    json!(counts)
}

fn figures(state: &AppState, stats: &StoreStats) -> Value {
    let metrics = &state.metrics;
    let events = |fate| metrics.events_of(fate).get();
    let unique_here = events(OutcomeLabel::Stored);
    let dropped_here = events(OutcomeLabel::Duplicate) + events(OutcomeLabel::Conflict);
    let uptime = hundredths(metrics.started().elapsed().as_secs_f64());
    let (p50, p99) = metrics.commit_latency();
    let milliseconds = |time: std::time::Duration| hundredths(time.as_secs_f64() * 1e3);
    let Counts {
        received,
        unique_processed,
        duplicate_dropped,
        pruned,
        ..
    } = stats.counts;
    let topics: Map<String, Value> = stats
        .topics
        .iter()
        .map(|(topic, unique)| (topic.clone(), json!(unique)))
        .collect();
    let mut figures = counts(&stats.counts);
    let rest = json!({
        "topics": topics,
        "topic_count": stats.topic_count,
        "uptime": uptime,
        "uptime_seconds": uptime,
        "uptime_stats": {
            "received": unique_here + dropped_here,
            "unique_processed": unique_here,
            "duplicate_dropped": dropped_here,
            "rejected": events(OutcomeLabel::Rejected),
        },
        "database_total_rows": unique_processed - pruned,
        "performance": {
            "events_per_second": hundredths(metrics.events_per_second()),
            "commit_latency_ms": { "p50": milliseconds(p50), "p99": milliseconds(p99) },
            "duplicate_rate": if received == 0 { 0.0 } else { duplicate_dropped as f64 / received as f64 },
        },
        "queue": { "events": state.ingest.queued(), "capacity": state.ingest.capacity() },
        "outbox": { "batches": stats.backlog.batches, "oldest_seconds": hundredths(stats.backlog.oldest_seconds), "parked": stats.backlog.dead_letters },
        "log": { "unsettled_seconds": stats.stability.visibility_lag_seconds },
        "store": state.store.name(),
        "fanout": state.fanout.kind,
    });
    if let (Some(figures), Value::Object(rest)) = (figures.as_object_mut(), rest) {
        figures.extend(rest);
    }
    figures
}

fn hundredths(number: f64) -> f64 {
    (number * 100.0).round() / 100.0
}

type Reading = Shared<BoxFuture<'static, Result<Arc<StoreStats>, StoreError>>>;

/// Reads the counters once for all callers of the moment: who asks while a query runs waits for the next one, which had not
/// begun when they asked, and shares it with all others that wait.
#[derive(Clone)]
pub struct SharedStats {
    store: Arc<dyn EventReader>,
    running: Arc<tokio::sync::Mutex<()>>,
    next: Arc<Mutex<Option<Reading>>>,
}

impl SharedStats {
    /// Nothing is read yet.
    pub fn new(store: Arc<dyn EventReader>) -> Self {
        Self {
            store,
            running: Arc::default(),
            next: Arc::default(),
        }
    }

    /// The counters, from a snapshot that was taken after this call.
    pub async fn read(&self) -> Result<Arc<StoreStats>, StoreError> {
        let reading = {
            let mut next = self
                .next
                .lock()
                .expect("nothing panics while it holds the next reading");
            next.get_or_insert_with(|| self.clone().begin().boxed().shared())
                .clone()
        };
        reading.await
    }

    async fn begin(self) -> Result<Arc<StoreStats>, StoreError> {
        let _turn = self.running.lock().await;
        // From here on it has begun: who asks now needs another.
        self.next
            .lock()
            .expect("nothing panics while it holds the next reading")
            .take();
        self.store.stats().await.map(Arc::new)
    }
}
