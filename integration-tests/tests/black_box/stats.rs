//! `/stats` and `/`: exact, complete, and the same on every replica.

use anyhow::ensure;
use futures_util::future::join;
use integration_tests::eventually::{SOON, eventually};
use integration_tests::http::encoded;
use integration_tests::on_both_stores;
use integration_tests::postgres::free_port;
use integration_tests::publish::{Publish, event, events};
use integration_tests::service::{Service, Settings};
use integration_tests::world::World;
use serde_json::{Value, json};
use sqlx::types::chrono::{DateTime, Utc};

async fn have_every_member_on_every_replica(world: World) {
    let replicas = world.serve_replicas().await;
    let (one, other) = (replicas.one(), replicas.other());
    one.publish(&Value::from(events("orders", 0..3))).await;
    one.publish(&Value::from(events("logins", 0..2))).await;
    other.publish(&Value::from(events("orders", 2..4))).await;
    let mut conflicting = event("orders", "evt-0");
    conflicting["payload"] = json!({"another": 1});
    other.publish(&conflicting).await;
    other.publish(&json!({})).await;

    for service in [one, other] {
        let stats = service.json("/stats").await;
        assert_eq!(stats["received"], 8, "{stats}");
        assert_eq!(stats["unique_processed"], 6);
        assert_eq!(stats["duplicate_dropped"], 2);
        assert_eq!(stats["conflicts"], 1);
        assert_eq!(stats["database_total_rows"], 6);
        assert_eq!(stats["topics"], json!({"orders": 4, "logins": 2}));
        assert_eq!(stats["topic_count"], 2);
        assert_eq!(stats["performance"]["duplicate_rate"], 0.25);
        assert_eq!(stats["store"], world.store_name());
        assert_eq!(stats["fanout"], "process");
        assert_eq!(stats["uptime"], stats["uptime_seconds"]);
        for member in ["received", "unique_processed", "duplicate_dropped", "rejected"] {
            assert!(stats["uptime_stats"][member].is_u64(), "{member}: {stats}");
        }
        for pointer in [
            "/uptime",
            "/performance/events_per_second",
            "/performance/commit_latency_ms/p50",
            "/performance/commit_latency_ms/p99",
            "/queue/events",
            "/queue/capacity",
            "/outbox/batches",
            "/outbox/oldest_seconds",
            "/outbox/parked",
            "/log/unsettled_seconds",
        ] {
            let value = stats.pointer(pointer);
            assert!(value.is_some_and(Value::is_number), "{pointer}: {stats}");
        }
    }
    world.check(6).await;
}

#[tokio::test]
async fn uptime_stats_are_per_replica() {
    let world = World::new().await;
    let (one, other) = join(world.serve(), world.serve()).await;
    one.publish(&Value::from(events("orders", 0..5))).await;
    other.publish(&Value::from(events("orders", 3..6))).await;
    other.publish(&json!({})).await;
    assert_eq!(
        one.json("/stats").await["uptime_stats"],
        json!({"received": 5, "unique_processed": 5, "duplicate_dropped": 0, "rejected": 0})
    );
    assert_eq!(
        other.json("/stats").await["uptime_stats"],
        json!({"received": 3, "unique_processed": 1, "duplicate_dropped": 2, "rejected": 1})
    );
    world.check(6).await;
}

async fn of_a_topic_are_its_own(world: World) {
    let service = world.serve().await;
    let odd = "caf\u{e9}/50%&more";
    service
        .publish(&json!([event(odd, "evt-1"), event(odd, "evt-1")]))
        .await;
    service.publish(&event("orders", "evt-1")).await;
    for (topic, counters) in [(odd, (2, 1, 1, 0)), ("orders", (1, 1, 0, 0)), ("never", (0, 0, 0, 0))] {
        let stats = service.json(&format!("/stats?topic={}", encoded(topic))).await;
        let found = ["received", "unique_processed", "duplicate_dropped", "conflicts"]
            .map(|member| stats[member].as_i64().unwrap_or(-1));
        assert_eq!(found, <[i64; 4]>::from(counters), "{topic}: {stats}");
    }
    world.check(2).await;
}

async fn survive_a_restart(world: World) {
    let mut service = world.serve().await;
    service.publish(&Value::from(events("orders", 0..5))).await;
    service.publish(&Value::from(events("orders", 3..8))).await;
    service.stop().await;
    let service = world.serve().await;
    let stats = service.json("/stats").await;
    assert_eq!(
        [
            &stats["received"],
            &stats["unique_processed"],
            &stats["duplicate_dropped"]
        ],
        [10, 8, 2]
    );
    assert_eq!(stats["uptime_stats"]["received"], 0);
    world.check(8).await;
}

async fn add_up_at_every_instant(world: World) {
    let replicas = world.serve_replicas().await;
    let (one, other) = (replicas.one(), replicas.other());
    let publish = async {
        for round in 0..40 {
            // Half of each batch was sent before, by way of the other replica.
            let (sender, start) = if round % 2 == 0 { (one, round) } else { (other, round) };
            let batch = Value::from(events("orders", start * 10..start * 10 + 20));
            assert!([200, 201].contains(&sender.publish(&batch).await.status));
        }
    };
    let mut requests = 0_u32;
    let observe = async {
        loop {
            for service in [one, other] {
                let stats = service.json("/stats").await;
                let value = |member: &str| stats[member].as_i64().expect("a number");
                assert_eq!(
                    value("received"),
                    value("unique_processed") + value("duplicate_dropped"),
                    "{stats}"
                );
                assert_eq!(value("database_total_rows"), value("unique_processed"));
                assert_eq!(
                    stats["topics"]["orders"].as_i64().unwrap_or(0),
                    value("unique_processed")
                );
                requests += 1;
            }
        }
    };
    tokio::select! {
        () = publish => {}
        () = observe => {}
    }
    assert!(requests > 10, "only {requests} requests");
    world.check(410).await;
}

async fn name_the_thousand_largest_topics(world: World) {
    let service = world.serve().await;
    let mut batch: Vec<Value> = (0..1200)
        .map(|number| event(&format!("topic-{number}"), "evt-1"))
        .collect();
    batch.extend((0..1000).map(|number| event(&format!("topic-{}", number + 200), "evt-2")));
    assert_eq!(service.publish(&Value::from(batch)).await.status, 201);
    let stats = service.json("/stats").await;
    assert_eq!(stats["topic_count"], 1200);
    // PostgreSQL finds out in a moment which are the largest.
    eventually(SOON, async || {
        let stats = service.json("/stats").await;
        let topics = stats["topics"].as_object().expect("topics");
        assert_eq!(topics.len(), 1000);
        ensure!(topics.values().all(|count| *count == 2), "others than the largest");
        Ok(())
    })
    .await;
    world.check(2200).await;
}

async fn root_names_the_service(world: World) {
    let service = world.serve().await;
    let body = service.json("/").await;
    assert_eq!(body["service"], "eventsieve");
    assert_eq!(body["status"], "alive");
    assert!(body["version"].is_string());
    eventually(SOON, async || {
        let health = service.json("/health").await;
        ensure!(health["status"] == "healthy", "{health}");
        Ok(())
    })
    .await;
    world.check(0).await;
}

/// The time of a point in seconds since 1970.
fn began(point: &Value) -> i64 {
    let at = point["at"].as_str().expect("a time");
    assert!(
        at.ends_with('Z') && !at.contains('.'),
        "{at} is not a whole second in UTC"
    );
    at.parse::<DateTime<Utc>>().expect("RFC 3339").timestamp()
}

async fn history_has_each_second_once(world: World) {
    let service = world.serve().await;
    service.publish(&Value::from(events("orders", 0..5))).await;
    service.publish(&Value::from(events("orders", 3..8))).await;
    service.publish(&json!({})).await;
    let points = eventually(SOON, async || {
        let history = service.json("/stats/history").await;
        assert_eq!(history["interval_seconds"], 1);
        let points = history["points"].as_array().expect("points").clone();
        let sum = |member: &str| {
            points
                .iter()
                .map(|point| point[member].as_i64().expect("a number"))
                .sum()
        };
        let sums: [i64; 3] = ["received", "unique_processed", "duplicate_dropped"].map(sum);
        // A second is listed once it is over, and then there is at least one without events.
        ensure!(sums == [10, 8, 2] && points.len() >= 3, "{history}");
        Ok(points)
    })
    .await;
    for pair in points.windows(2) {
        assert_eq!(began(&pair[1]), began(&pair[0]) + 1, "{points:?}");
    }
    let before = Utc::now().timestamp();
    let history = service.json("/stats/history").await;
    let newest = began(
        history["points"]
            .as_array()
            .and_then(|points| points.last())
            .expect("points"),
    );
    let after = Utc::now().timestamp();
    assert!(
        (before - 2..after).contains(&newest),
        "{newest} is not the second before one of {before} to {after}"
    );
    let short = service.json("/stats/history?window=2s").await;
    assert_eq!(short["points"].as_array().map(Vec::len), Some(2), "{short}");
    world.check(8).await;
}

#[tokio::test]
async fn history_is_served_without_a_store() {
    let unreachable = format!("postgres://nobody@127.0.0.1:{}/none", free_port());
    let service = Service::start(Settings::new(&unreachable)).await;
    eventually(SOON, async || {
        let history = service.json("/stats/history?window=15m").await;
        ensure!(history["points"][0]["received"] == 0, "{history}");
        Ok(())
    })
    .await;
    assert_eq!(service.fetch("/readyz").await.status, 503);
}

on_both_stores! {
    history_has_each_second_once
    have_every_member_on_every_replica
    of_a_topic_are_its_own
    survive_a_restart
    add_up_at_every_instant
    name_the_thousand_largest_topics
    root_names_the_service
}
