//! The answers of statistics, metrics and probes.

use serde_json::{Value, json};
use utoipa::IntoResponses;
use utoipa::openapi::response::Response;
use utoipa::openapi::schema::AnyOf;

use super::{Answers, JSON, content, errors, invalid, of, read_errors, reference, retry_after, text, with};
use crate::api::health::{
    ComponentStatus, Health, HealthStatus, HealthStatusOnly, Probe, ProbeStatus, QueueHealth, ServiceInfo, SinkHealth,
    StoreHealth,
};
use crate::api::stats::{
    CommitLatency, History, HistoryPoint, Log, Outbox, Performance, Queue, Retention, SomeStats, Stats, TopicStats,
    UptimeStats,
};
use crate::event::ValidationErrorKind;
use crate::http::docs::examples;
use crate::http::error::ApiError;

const HTML: &str = "text/html";

/// The answers of `GET /`.
pub(in crate::http) struct RootAnswers;

impl IntoResponses for RootAnswers {
    fn responses() -> Answers {
        let info = ServiceInfo {
            service: "eventsieve".into(),
            status: "alive".into(),
            version: env!("CARGO_PKG_VERSION").into(),
        };
        let about = "The name and the version of the service; for a browser, the dashboard.";
        let page: [(_, Value); 0] = [];
        let answer = of(about, [("alive", info)]).content(HTML, content(text(), page));
        let unchanged = Response::builder().description("With `If-None-Match`: the browser's copy is still current.");
        with(Answers::new(), [("200", answer), ("304", unchanged)])
    }
}

/// The answers of `GET /stats`.
pub(in crate::http) struct StatsAnswers;

impl StatsAnswers {
    fn all() -> Stats {
        Stats {
            received: 20000,
            unique_processed: 14000,
            duplicate_dropped: 6000,
            conflicts: 0,
            topics: vec![("order.created".to_owned(), 7000), ("user.login".to_owned(), 7000)],
            topic_count: 2,
            uptime: 123.45,
            uptime_seconds: 123.45,
            uptime_stats: UptimeStats {
                received: 20000,
                unique_processed: 14000,
                duplicate_dropped: 6000,
                rejected: 0,
            },
            database_total_rows: 14000,
            performance: Performance {
                events_per_second: 0.0,
                commit_latency_ms: CommitLatency { p50: 1.5, p99: 6.0 },
                duplicate_rate: 0.3,
            },
            queue: Queue {
                events: 0,
                capacity: 100_000,
            },
            outbox: Outbox {
                batches: 0,
                oldest_seconds: 0.0,
                parked: 0,
            },
            log: Log { unsettled_seconds: 0.0 },
            retention: Retention { held_back: 0 },
            store: "postgres".into(),
            fanout: "redis".into(),
        }
    }
}

impl IntoResponses for StatsAnswers {
    fn responses() -> Answers {
        let topic = TopicStats {
            received: 4,
            unique_processed: 2,
            duplicate_dropped: 2,
            conflicts: 1,
        };
        // Not `oneOf`: all statistics have the members of one topic, too.
        let schema = AnyOf::builder()
            .item(reference::<Stats>())
            .item(reference::<SomeStats>())
            .item(reference::<TopicStats>());
        let some = SomeStats {
            received: 10000,
            unique_processed: 7000,
            duplicate_dropped: 3000,
            conflicts: 0,
            topics: vec![("order.created".to_owned(), 7000)],
            topic_count: 1,
            database_total_rows: 7000,
        };
        let examples = [
            ("all", json!(Self::all())),
            ("some", json!(some)),
            ("topic", json!(topic)),
        ];
        let found = Response::builder()
            .description("All statistics, with a key for some topics the counters of these, or with `topic=` those of that topic.")
            .content(JSON, content(schema, examples));
        with(errors(read_errors()), [("200", found)])
    }
}

/// The answers of `GET /stats/history`.
pub(in crate::http) struct HistoryAnswers;

impl IntoResponses for HistoryAnswers {
    fn responses() -> Answers {
        let invalid = invalid(
            ValidationErrorKind::StringPatternMismatch,
            "Input should be a duration such as 60s or 5m",
            &["query", "window"],
        );
        let history = History {
            interval_seconds: 1,
            points: vec![HistoryPoint {
                at: examples::timestamp(),
                received: 3,
                unique_processed: 2,
                duplicate_dropped: 1,
            }],
        };
        let found = of("The last 15 minutes of this process.", [("history", history)]);
        with(errors([("string_pattern_mismatch", invalid)]), [("200", found)])
    }
}

/// The answers of `GET /health` and `GET /healthz`.
pub(in crate::http) struct HealthAnswers;

impl HealthAnswers {
    fn health(status: HealthStatus, store_error: Option<&'static str>, sink_error: Option<&'static str>) -> Health {
        let component = |error: Option<_>| match error {
            None => ComponentStatus::Up,
            Some(_) => ComponentStatus::Down,
        };
        Health {
            status,
            store: StoreHealth {
                kind: "postgres".into(),
                status: component(store_error),
                unsettled_seconds: 0.0,
                reason: store_error.map(Into::into),
            },
            fanout: SinkHealth {
                kind: "redis".into(),
                status: component(sink_error),
                reason: sink_error.map(Into::into),
            },
            queue: QueueHealth {
                status: ComponentStatus::Up,
                reason: None,
            },
        }
    }
}

impl IntoResponses for HealthAnswers {
    fn responses() -> Answers {
        let redis = Some("Redis cannot be reached.");
        let store = Some("The store cannot be reached.");
        let healthy = Self::health(HealthStatus::Healthy, None, None);
        let degraded = Self::health(HealthStatus::Degraded, None, redis);
        let unhealthy = Self::health(HealthStatus::Unhealthy, store, None);
        let answer = |about: &str, examples: Vec<(&'static str, Value)>| {
            let schema = AnyOf::builder()
                .item(reference::<Health>())
                .item(reference::<HealthStatusOnly>());
            Response::builder()
                .description(about)
                .content(JSON, content(schema, examples))
        };
        let status = HealthStatus::Healthy;
        let only = HealthStatusOnly { status };
        let up = answer(
            "Publishing can succeed.",
            vec![
                ("healthy", json!(healthy)),
                ("degraded", json!(degraded)),
                ("without_read", json!(only)),
            ],
        );
        let down = answer(
            "Publishing cannot succeed: the store is down.",
            vec![("unhealthy", json!(unhealthy))],
        );
        let down = down.header("retry-after", retry_after());
        with(Answers::new(), [("200", up), ("503", down)])
    }
}

/// The answers of `GET /livez`.
pub(in crate::http) struct LiveAnswers;

impl IntoResponses for LiveAnswers {
    fn responses() -> Answers {
        let status = ProbeStatus::Alive;
        let alive = of("The process runs.", [("alive", Probe { status })]);
        with(Answers::new(), [("200", alive)])
    }
}

/// The answers of `GET /readyz`.
pub(in crate::http) struct ReadyAnswers;

impl IntoResponses for ReadyAnswers {
    fn responses() -> Answers {
        let status = ProbeStatus::Ready;
        let ready = of("Publishing can succeed.", [("ready", Probe { status })]);
        let errors = errors([
            ("starting", ApiError::STARTING),
            ("stopping", ApiError::STOPPING),
            ("unreachable", ApiError::UNREACHABLE),
        ]);
        with(errors, [("200", ready)])
    }
}

/// The answers of `GET /metrics`.
pub(in crate::http) struct MetricsAnswers;

impl IntoResponses for MetricsAnswers {
    fn responses() -> Answers {
        let example = "# TYPE eventsieve_events_total counter\neventsieve_events_total{outcome=\"stored\"} 14000\n";
        let metrics = Response::builder()
            .description("The metrics of this process, in the text format of Prometheus.")
            .content("text/plain", content(text(), [("metrics", example)]));
        with(errors([("internal", ApiError::Internal)]), [("200", metrics)])
    }
}
