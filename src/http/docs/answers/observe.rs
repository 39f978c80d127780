//! What figures and probes answer.

use serde_json::{Value, json};
use utoipa::IntoResponses;
use utoipa::openapi::response::Response;

use super::{Answers, content, failures, invalid, of, read_failures, retry_after, text, with};
use crate::event::{Loc, ValidationErrorKind};
use crate::http::docs::schemas::observe::{Health, History, Probe, Stats};
use crate::http::error::ApiError;
use crate::http::probe::STOPPING;

/// Of `GET /stats`.
pub struct StatsAnswers;

impl IntoResponses for StatsAnswers {
    fn responses() -> Answers {
        let counts = json!({ "received": 4, "unique_processed": 2, "duplicate_dropped": 2, "conflicts": 1 });
        let figures = json!({
            "received": 20000, "unique_processed": 14000, "duplicate_dropped": 6000, "conflicts": 0,
            "topics": { "order.created": 7000, "user.login": 7000 }, "topic_count": 2,
            "uptime": 123.45, "uptime_seconds": 123.45,
            "uptime_stats": { "received": 20000, "unique_processed": 14000, "duplicate_dropped": 6000, "rejected": 0 },
            "database_total_rows": 14000,
            "performance": { "events_per_second": 0.0, "commit_latency_ms": { "p50": 1.5, "p99": 6.0 }, "duplicate_rate": 0.3 },
            "queue": { "events": 0, "capacity": 100_000 },
            "outbox": { "batches": 0, "oldest_seconds": 0.0, "parked": 0 },
            "log": { "unsettled_seconds": 0.0 }, "store": "postgres", "fanout": "redis"
        });
        let found = of::<Stats>("The figures.", [("all", figures), ("topic", counts)]);
        with(failures(read_failures()), [("200", found)])
    }
}

/// Of `GET /stats/history`.
pub struct HistoryAnswers;

impl IntoResponses for HistoryAnswers {
    fn responses() -> Answers {
        let loc = [Loc::Name("query"), Loc::Name("window")];
        let form = "Input should be a length of time such as 60s or 5m";
        let failures = failures([invalid(ValidationErrorKind::StringPatternMismatch, form, &loc)]);
        let point =
            json!({ "at": "2025-10-24T10:30:00Z", "received": 3, "unique_processed": 2, "duplicate_dropped": 1 });
        let example = json!({ "interval_seconds": 1, "points": [point] });
        let found = of::<History>("The last 15 minutes of this process.", [("history", example)]);
        with(failures, [("200", found)])
    }
}

/// Of `GET /health` and `/healthz`.
pub struct HealthAnswers;

impl IntoResponses for HealthAnswers {
    fn responses() -> Answers {
        let health = |status, store, fanout| json!({ "status": status, "store": store, "fanout": fanout });
        let up = json!({ "kind": "redis", "status": "up" });
        let store = json!({ "kind": "postgres", "status": "up", "unsettled_seconds": 0.0 });
        let down = json!({ "kind": "postgres", "status": "down", "unsettled_seconds": 0.0, "reason": "The store cannot be reached." });
        let aside = json!({ "kind": "redis", "status": "down", "reason": "Redis cannot be reached." });
        let well = [
            ("healthy", health("healthy", store.clone(), up.clone())),
            ("degraded", health("degraded", store, aside)),
        ];
        let unhealthy = of::<Health>(
            "Publishing cannot succeed: the store is down.",
            [("unhealthy", health("unhealthy", down, up))],
        );
        let answers = [
            ("200", of::<Health>("Publishing can succeed.", well)),
            ("503", unhealthy.header("retry-after", retry_after())),
        ];
        with(Answers::new(), answers)
    }
}

/// Of `GET /livez`.
pub struct LiveAnswers;

impl IntoResponses for LiveAnswers {
    fn responses() -> Answers {
        let alive = of::<Probe>("The process runs.", [("alive", json!({ "status": "alive" }))]);
        with(Answers::new(), [("200", alive)])
    }
}

/// Of `GET /readyz`.
pub struct ReadyAnswers;

impl IntoResponses for ReadyAnswers {
    fn responses() -> Answers {
        let ready = of::<Probe>("Publishing can succeed.", [("ready", json!({ "status": "ready" }))]);
        let failures = failures([
            ("starting", ApiError::STARTING),
            ("stopping", ApiError::Unavailable(STOPPING)),
            ("unreachable", ApiError::UNREACHABLE),
        ]);
        with(failures, [("200", ready)])
    }
}

/// Of `GET /metrics`.
pub struct MetricsAnswers;

impl IntoResponses for MetricsAnswers {
    fn responses() -> Answers {
        let example = "# TYPE eventsieve_events_total counter\neventsieve_events_total{outcome=\"stored\"} 14000\n";
        let metrics = Response::builder()
            .description("What this process counts, in Prometheus' text format.")
            .content("text/plain", content(text(), [("metrics", Value::from(example))]));
        with(failures([("internal", ApiError::Internal)]), [("200", metrics)])
    }
}
