//! Probes and statistics.

use serde_json::Value;

use crate::deployment::Deployment;
use crate::http::ask;

pub(super) async fn the_probes_of_a_healthy_deployment_say_200(deployment: &Deployment) {
    for path in ["/livez", "/readyz"] {
        let answer = deployment.fetch(path).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
    }
    for path in ["/health", "/healthz"] {
        let health = deployment.json(path).await;
        assert_eq!(health["status"], "healthy", "{path}: {health}");
        assert!(health["store"].is_object(), "{path} has no store: {health}");
        assert!(health["fanout"].is_object(), "{path} has no fanout: {health}");
    }
}

pub(super) async fn the_root_names_the_service(deployment: &Deployment) {
    let body = deployment.json("/").await;
    assert_eq!(body["service"], "eventsieve", "{body}");
    assert_eq!(body["status"], "alive", "{body}");
    assert!(body["version"].is_string(), "no version: {body}");
}

pub(super) async fn stats_have_every_member(deployment: &Deployment) {
    let stats = deployment.json("/stats").await;
    for pointer in [
        "/received",
        "/unique_processed",
        "/duplicate_dropped",
        "/conflicts",
        "/topic_count",
        "/database_total_rows",
        "/uptime",
        "/uptime_seconds",
        "/uptime_stats/received",
        "/uptime_stats/unique_processed",
        "/uptime_stats/duplicate_dropped",
        "/uptime_stats/rejected",
        "/performance/events_per_second",
        "/performance/commit_latency_ms/p50",
        "/performance/commit_latency_ms/p99",
        "/performance/duplicate_rate",
        "/queue/events",
        "/queue/capacity",
        "/outbox/batches",
        "/outbox/oldest_seconds",
        "/outbox/parked",
        "/log/unsettled_seconds",
    ] {
        let value = stats.pointer(pointer);
        assert!(
            value.is_some_and(Value::is_number),
            "/stats has no number {pointer}: {stats:.500}"
        );
    }
    assert!(stats["topics"].is_object(), "/stats has no topics: {stats:.500}");
    assert_eq!(
        stats["uptime"], stats["uptime_seconds"],
        "uptime and uptime_seconds are the same"
    );
    for (member, known) in [("store", ["postgres", "sqlite"]), ("fanout", ["redis", "process"])] {
        let value = stats[member].as_str().unwrap_or_default();
        assert!(
            known.contains(&value),
            "/stats: {member} is one of {known:?}, not {value:?}"
        );
    }
}

pub(super) async fn a_flush_reports_how_many_events_it_waited_for(deployment: &Deployment) {
    let answer = ask(deployment.post("/_flush")).await;
    assert_eq!(answer.status, 200, "/_flush: {}", answer.text());
    assert!(answer.json()["flushed"].is_u64(), "/_flush: {}", answer.text());
}
