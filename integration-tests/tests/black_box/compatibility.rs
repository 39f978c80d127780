//! Requests of clients of older systems are accepted unchanged, and answered with all members that these clients read.

use integration_tests::http::{Answer, ask};
use integration_tests::on_both_stores;
use integration_tests::publish::{Publish, event, events, statuses, text};
use integration_tests::world::World;
use serde_json::{Value, json};

const JSON: &str = "application/json";

/// An event of a Python client: spaces between the tokens, a UUID, and a local time without an offset.
const SINGLE: &str = r#"{"topic": "order.created", "event_id": "6f1c1f0e-5d7a-4c63-9a53-1f0c0c0b7a11", "timestamp": "2025-10-24T10:30:00.123456", "source": "order-service", "payload": {"order_id": 1001, "total": 44.80, "items": ["a", "b"]}}"#;

const ARRAY: &str = r#"[
    {"topic": "user.login", "event_id": "evt-001", "timestamp": "2025-10-24T10:30:00Z", "source": "auth", "payload": {}},
    {"topic": "user.login", "event_id": "evt-002", "timestamp": "2025-10-24T10:30:01+00:00", "source": "auth", "payload": {"user": 7}},
    {"topic": "user.login", "event_id": "evt-001", "timestamp": "2025-10-24T10:30:00Z", "source": "auth", "payload": {}}
]"#;

const ENVELOPE: &str = r#"{"events": [
    {"topic": "payment.done", "event_id": "p-1", "timestamp": "2025-10-24T10:30:00Z", "source": "pay", "payload": {"amount": 1}},
    {"topic": "payment.done", "event_id": "p-2", "timestamp": "2025-10-24T10:30:00Z", "source": "pay", "payload": {"amount": 2}}
]}"#;

/// Asserts every member that an answer to a batch has.
#[track_caller]
fn assert_processed(answer: &Answer, status: u16, unique: i64, duplicates: i64) {
    assert_eq!(answer.status, status, "{}", answer.text());
    assert_eq!(answer.header("content-type"), JSON);
    let mut body = answer.json();
    body.as_object_mut().expect("an object").remove("results");
    assert_eq!(
        body,
        json!({
            "status": "success",
            "message": format!("Processed {} events", unique + duplicates),
            "received": unique + duplicates,
            "unique_processed": unique,
            "duplicate_dropped": duplicates,
            "details": {"accepted": unique, "rejected": 0, "duplicates_immediate": duplicates},
        })
    );
}

async fn event_array_and_envelope_are_accepted(world: World) {
    let service = world.serve().await;
    let single = service.publish_bytes(JSON, SINGLE).await;
    assert_processed(&single, 201, 1, 0);
    assert_eq!(statuses(&single), ["stored"]);
    assert_processed(&service.publish_bytes(JSON, ARRAY).await, 201, 2, 1);
    assert_processed(&service.publish_bytes(JSON, ENVELOPE).await, 201, 2, 0);

    assert_processed(&service.publish_bytes(JSON, SINGLE).await, 200, 0, 1);
    assert_processed(&service.publish_bytes(JSON, ARRAY).await, 200, 0, 3);
    assert_processed(&service.publish_bytes(JSON, ENVELOPE).await, 200, 0, 2);

    // The answer to an invalid event has the same form as in older systems.
    let answer = service.publish_bytes(JSON, r#"{"topic": "order.created"}"#).await;
    assert_eq!(answer.validation_errors().len(), 4);
    let first = &answer.json()["detail"][0];
    assert_eq!(
        (&first["type"], &first["loc"]),
        (&json!("missing"), &json!(["body", "event_id"]))
    );
    assert_eq!(first["msg"], "Field required");
    assert_eq!(world.check(5).await.received, 12);
}

async fn events_are_listed_by_topic_limit_and_offset(world: World) {
    let service = world.serve().await;
    service.publish_bytes(JSON, SINGLE).await;
    service.publish(&json!({"events": events("user.login", 0..30)})).await;
    let list = async |query: &str| service.json(&format!("/events?{query}")).await;

    let body = list("topic=order.created&limit=10&offset=0").await;
    assert_eq!(
        (&body["status"], &body["topic"], &body["count"]),
        (&json!("success"), &json!("order.created"), &json!(1))
    );
    let mut listed = body["events"][0].clone();
    assert!(text(&listed, "received_at").ends_with('Z') && !text(&listed, "cursor").is_empty());
    let members = listed.as_object_mut().expect("an event");
    members.remove("received_at");
    members.remove("cursor");
    let mut sent: Value = serde_json::from_str(SINGLE).expect("JSON");
    sent["timestamp"] = json!("2025-10-24T10:30:00.123456Z");
    assert_eq!(listed, sent);

    for (query, expected) in [
        ("topic=user.login&limit=10&offset=0", 0..10),
        ("topic=user.login&limit=10&offset=20", 20..30),
        ("topic=user.login&limit=10&offset=25", 25..30),
        ("topic=user.login&limit=10&offset=30", 30..30),
        ("topic=user.login", 0..30),
    ] {
        let body = list(query).await;
        let ids: Vec<String> = body["events"]
            .as_array()
            .expect("a list")
            .iter()
            .map(|event| text(event, "event_id"))
            .collect();
        let expected: Vec<String> = expected.map(|number| format!("evt-{number}")).collect();
        assert_eq!(ids, expected, "{query}");
        assert_eq!(body["count"], expected.len(), "{query}");
    }
    assert_eq!(list("limit=1000&offset=0").await["count"], 31);
    assert_eq!(list("topic=never.seen&limit=10&offset=0").await["events"], json!([]));
    world.check(31).await;
}

async fn stats_keep_their_members(world: World) {
    let service = world.serve().await;
    let empty = service.json("/stats").await;
    for member in ["received", "unique_processed", "duplicate_dropped"] {
        assert_eq!(empty[member], 0, "{empty}");
    }
    assert_eq!(empty["topics"], json!({}));
    service.publish_bytes(JSON, SINGLE).await;
    service.publish_bytes(JSON, ARRAY).await;
    service.publish_bytes(JSON, ARRAY).await;
    let stats = service.json("/stats").await;
    for (member, value) in [
        ("received", 7),
        ("unique_processed", 3),
        ("duplicate_dropped", 4),
        ("database_total_rows", 3),
        ("topic_count", 2),
    ] {
        assert_eq!(stats[member], value, "{member}: {stats}");
    }
    assert_eq!(stats["topics"], json!({"order.created": 1, "user.login": 2}));
    assert!(stats["uptime"].as_f64().is_some_and(|seconds| seconds > 0.0), "{stats}");
    assert_eq!(stats["store"], world.store_name());
    world.check(3).await;
}

async fn health_is_healthy(world: World) {
    let service = world.serve().await;
    let answer = service.fetch("/health").await;
    assert_eq!((answer.status, &answer.json()["status"]), (200, &json!("healthy")));
    assert_eq!(answer.json()["store"]["status"], "up");
    let alive = service.json("/").await;
    assert_eq!(
        (&alive["service"], &alive["status"]),
        (&json!("eventsieve"), &json!("alive"))
    );
    world.check(0).await;
}

async fn flush_waits_until_accepted_events_are_stored(world: World) {
    let service = world.serve().await;
    let flush = async || ask(service.post("/_flush")).await;
    assert_eq!(flush().await.json(), json!({"flushed": 0}));
    for number in 0..20 {
        let batch = json!({"events": [event("user.login", &format!("evt-{number}"))]});
        let answer = service.publish_preferring("respond-async", &batch).await;
        assert_eq!(answer.status, 202, "{}", answer.text());
    }
    let flushed = flush().await;
    assert_eq!(flushed.status, 200, "{}", flushed.text());
    assert!(flushed.json()["flushed"].as_u64().is_some_and(|events| events <= 20));
    assert_eq!(world.totals().await.rows, 20, "all that was accepted is stored");
    world.check(20).await;
}

on_both_stores! {
    event_array_and_envelope_are_accepted
    events_are_listed_by_topic_limit_and_offset
    stats_keep_their_members
    health_is_healthy
    flush_waits_until_accepted_events_are_stored
}
