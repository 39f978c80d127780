//! `GET /events`: lists, cursor reads, filters and formats, also while events are being committed.

use std::time::Duration;

use anyhow::ensure;
use futures_util::future::join;
use integration_tests::eventually::{SOON, eventually};
use integration_tests::http::{Answer, ask, encoded};
use integration_tests::on_both_stores;
use integration_tests::postgres::PostgresServer;
use integration_tests::publish::{Publish, Scan, event, event_with_payload, events, page, text};
use integration_tests::service::Service;
use integration_tests::world::World;
use reqwest::Url;
use serde_json::{Value, json};
use sqlx::Executor;

async fn ndjson(service: &Service, query: &str) -> Answer {
    ask(service
        .get(&format!("/events?{query}"))
        .header("accept", "application/x-ndjson"))
    .await
}

fn ids(events: &[Value]) -> Vec<String> {
    events.iter().map(|event| text(event, "event_id")).collect()
}

/// Waits until a cursor read from the beginning sees `count` events: transactions of other tests may hold back the last stable
/// position for a moment.
async fn stable(service: &Service, count: usize) -> Scan {
    let mut scan = Scan::default();
    scan.until(service, "", count, SOON).await;
    scan
}

async fn acknowledged_event_is_in_every_later_list(world: World) {
    let replicas = world.serve_replicas().await;
    for number in 0..50 {
        let id = format!("evt-{number}");
        let answer = replicas.one().publish(&event("orders", &id)).await;
        assert_eq!(answer.status, 201);
        let listed = page(replicas.other(), &format!("topic=orders&event_id={id}")).await;
        assert_eq!(listed.events.len(), 1, "{id} was acknowledged and is not listed");
        let result = &answer.json()["results"][0];
        assert_eq!(listed.events[0]["cursor"], result["cursor"]);
        assert_eq!(listed.events[0]["received_at"], result["received_at"]);
    }
    world.check(50).await;
}

async fn list_has_all_members_and_names_its_topic(world: World) {
    let service = world.serve().await;
    let sent = event("orders", "evt-1");
    service.publish(&sent).await;
    let body = service.json("/events").await;
    assert_eq!(body["status"], "success");
    assert_eq!(body["topic"], Value::Null);
    assert_eq!(body["count"], 1);
    assert!(body["next"].is_string(), "next is never null");
    let listed = body["events"][0].as_object().expect("an event");
    for member in ["topic", "event_id", "timestamp", "source", "payload"] {
        assert_eq!(listed[member], sent[member]);
    }
    assert!(text(&body["events"][0], "received_at").ends_with('Z'));
    assert!(!text(&body["events"][0], "cursor").is_empty());
    assert_eq!(listed.len(), 7, "{listed:?}");
    let body = service.json("/events?topic=nothing").await;
    assert_eq!((&body["topic"], &body["count"]), (&json!("nothing"), &json!(0)));
    assert!(body["next"].is_string(), "also for an empty list");
    world.check(1).await;
}

async fn lists_respect_order_limit_and_offset(world: World) {
    let service = world.serve().await;
    for part in 0..3 {
        let batch = Value::from(events("orders", part * 50..part * 50 + 50));
        assert_eq!(service.publish(&batch).await.status, 201);
    }
    let all: Vec<String> = (0..150).map(|number| format!("evt-{number}")).collect();
    let list = async |query: &str| ids(&page(&service, query).await.events);
    assert_eq!(list("").await, all[..100], "100 unless a limit is given");
    assert_eq!(list("order=asc&limit=1000").await, all);
    assert_eq!(list("limit=1").await, all[..1]);
    assert_eq!(list("limit=10&offset=145").await, all[145..]);
    assert_eq!(list("offset=150").await, all[150..]);
    let backwards: Vec<String> = all.iter().rev().cloned().collect();
    assert_eq!(list("order=desc&limit=1000").await, backwards);
    assert_eq!(list("order=desc&limit=5&offset=2").await, backwards[2..7]);
    world.check(150).await;
}

async fn filters_select_by_topic_source_id_and_time(world: World) {
    let service = world.serve().await;
    let mut batch = Vec::new();
    for number in 0..12 {
        let topic = ["even", "odd"][number % 2];
        let mut event = event(topic, &format!("evt-{number}"));
        event["source"] = json!(format!("sensor {}", number % 3));
        event["timestamp"] = json!(format!("2025-10-24T10:{number:02}:00Z"));
        batch.push(event);
    }
    batch.push(event("odd", "evt-0"));
    assert_eq!(service.publish(&Value::from(batch)).await.status, 201);
    stable(&service, 13).await;
    for (query, expected) in [
        ("topic=even", vec![0, 2, 4, 6, 8, 10]),
        ("topic=Even", vec![]),
        ("source=sensor%201", vec![1, 4, 7, 10]),
        ("source=sensor+1", vec![1, 4, 7, 10]),
        ("topic=even&source=sensor%201", vec![4, 10]),
        ("event_id=evt-0", vec![0, 0]),
        ("topic=odd&event_id=evt-3", vec![3]),
        ("topic=odd&event_id=evt-4", vec![]),
        ("since=2025-10-24T10:03:00Z&until=2025-10-24T10:06:00Z", vec![3, 4, 5]),
        ("until=2025-10-24T10:02:00Z", vec![0, 1]),
        (
            "since=2025-10-24T12:10:00%2B02:00&until=2025-10-24T10:12:00Z",
            vec![10, 11],
        ),
        (
            "topic=even&source=sensor%200&since=2025-10-24T10:01:00Z&until=2025-10-24T10:20:00Z",
            vec![6],
        ),
    ] {
        let expected: Vec<String> = expected.iter().map(|number| format!("evt-{number}")).collect();
        let listed = page(&service, query).await;
        assert_eq!(ids(&listed.events), expected, "list {query}");
        let mut scan = Scan::default();
        scan.until(&service, &format!("&{query}"), expected.len(), SOON).await;
        assert_eq!(scan.event_ids(), expected, "cursor read {query}");
        let lines = ndjson(&service, query).await.lines();
        assert_eq!(ids(&lines), expected, "lines {query}");
    }
    world.check(13).await;
}

async fn cursor_read_sees_each_event_once_and_resumes(world: World) {
    let service = world.serve().await;
    service.publish(&Value::from(events("orders", 0..25))).await;
    let mut scan = stable(&service, 25).await;
    let all: Vec<String> = (0..25).map(|number| format!("evt-{number}")).collect();
    assert_eq!(scan.event_ids(), all);
    assert_eq!(scan.step(&service, "").await, 0, "nothing is new");
    service.publish(&Value::from(events("orders", 25..30))).await;
    scan.until(&service, "", 30, SOON).await;

    // Small pages, and from a cursor in the middle.
    let mut next = scan.events[9]["cursor"].as_str().expect("a cursor").to_owned();
    let mut seen = Vec::new();
    for _ in 0..4 {
        let page = page(&service, &format!("after={}&limit=7", encoded(&next))).await;
        assert!(page.events.len() <= 7);
        seen.extend(ids(&page.events));
        next = page.next;
    }
    assert_eq!(seen, scan.event_ids()[10..]);
    world.check(30).await;
}

async fn cursor_read_from_next_of_list_misses_nothing(world: World) {
    let service = world.serve().await;
    service.publish(&Value::from(events("orders", 0..10))).await;
    let listed = page(&service, "").await;
    let newest_first = page(&service, "order=desc&limit=1").await;
    service.publish(&Value::from(events("orders", 10..20))).await;
    stable(&service, 20).await;
    for next in [&listed.next, &newest_first.next] {
        let scanned = page(&service, &format!("after={}&limit=1000", encoded(next))).await;
        let scanned = ids(&scanned.events);
        for number in 10..20 {
            assert!(scanned.contains(&format!("evt-{number}")), "{next}: {scanned:?}");
        }
    }
    world.check(20).await;
}

async fn payload_comes_back_byte_for_byte(world: World) {
    let service = world.serve().await;
    let pretty =
        "{\n  \"b\" : 9007199254740993,\r\n\t\"a\": [1.0, 1e2, \"x\\ny\\u2028 \u{e9}\u{1f600}\" ],\n  \"b\": {}\n}";
    let body = event_with_payload("orders", "evt-1", pretty);
    let answer = service.publish_bytes("application/json", body).await;
    assert_eq!(answer.status, 201, "{}", answer.text());
    stable(&service, 1).await;
    for query in ["", "after=", "format=array", "after=&format=array", "topic=orders"] {
        let listed = service.fetch(&format!("/events?{query}")).await;
        assert!(listed.text().contains(pretty), "{query}: {}", listed.text());
    }
    // One event for each line: line breaks between tokens become spaces, and nothing else changes.
    let one_line = pretty.replace(['\n', '\r'], " ");
    for query in ["", "after="] {
        let lines = ndjson(&service, query).await;
        assert_eq!(lines.text().lines().count(), 1);
        assert!(lines.text().contains(&one_line), "{}", lines.text());
    }
    let again = service
        .publish_bytes("application/json", event_with_payload("orders", "evt-1", &one_line))
        .await;
    assert_eq!(again.json()["results"][0]["status"], "duplicate");
    world.check(1).await;
}

/// The path and query of the `Link` header of an answer.
fn linked(service: &Service, answer: &Answer) -> String {
    let link = answer.header("link");
    let target = link
        .strip_prefix('<')
        .and_then(|rest| rest.strip_suffix(r#">; rel="next""#))
        .unwrap_or_else(|| panic!("no next in Link: {link:?}"));
    let url = Url::parse(&format!("{}/events", service.url()))
        .and_then(|base| base.join(target))
        .expect("a link is a URL");
    format!("{}?{}", url.path(), url.query().expect("a link has a query"))
}

async fn bare_array_links_to_next_page(world: World) {
    let service = world.serve().await;
    service.publish(&Value::from(events("orders", 0..25))).await;
    service.publish(&Value::from(events("other", 0..5))).await;
    stable(&service, 30).await;
    let mut path = "/events?format=array&after=&topic=orders&limit=10".to_owned();
    let mut seen = Vec::new();
    for _ in 0..4 {
        let answer = service.fetch(&path).await;
        assert_eq!(answer.header("content-type"), "application/json");
        seen.extend(ids(answer.json().as_array().expect("a bare array")));
        path = linked(&service, &answer);
    }
    let all: Vec<String> = (0..25).map(|number| format!("evt-{number}")).collect();
    assert_eq!(seen, all, "the link keeps the filter, the format and the limit");
    world.check(30).await;
}

async fn ndjson_is_unlimited_and_resumes_from_each_cursor(world: World) {
    let service = world.serve().await;
    for part in 0..3 {
        let batch = Value::from(events("orders", part * 1000..part * 1000 + 1000));
        assert_eq!(service.publish(&batch).await.status, 201);
    }
    stable(&service, 3000).await;
    let all: Vec<String> = (0..3000).map(|number| format!("evt-{number}")).collect();
    let list = ndjson(&service, "").await;
    assert_eq!(list.header("content-type"), "application/x-ndjson");
    assert_eq!(ids(&list.lines()), all);
    let scanned = ndjson(&service, "after=").await.lines();
    assert_eq!(ids(&scanned), all);
    assert_eq!(ids(&ndjson(&service, "limit=5").await.lines()), all[..5]);
    let newest = ndjson(&service, "order=desc&limit=2&offset=1").await.lines();
    assert_eq!(ids(&newest), ["evt-2998", "evt-2997"]);
    let middle = encoded(&text(&scanned[1233], "cursor"));
    let rest = ndjson(&service, &format!("after={middle}")).await.lines();
    assert_eq!(ids(&rest), all[1234..]);
    assert_eq!(
        ndjson(&service, "limit=0").await.validation_errors()[0].0,
        "greater_than_equal"
    );
    world.check(3000).await;
}

/// Publishes `batches` batches of ten events, one after the other, and reads each from the other replica at once.
async fn publish_and_list(writer: &Service, reader: &Service, name: &str, batches: usize) {
    for batch in 0..batches {
        let topic = format!("topic-{}", batch % 3);
        let events: Vec<Value> = (0..10)
            .map(|number| event(&topic, &format!("{name}-{batch}-{number}")))
            .collect();
        let answer = writer.publish(&Value::from(events)).await;
        assert_eq!(answer.status, 201, "{}", answer.text());
        for number in [0, 9] {
            let query = format!("topic={topic}&event_id={name}-{batch}-{number}");
            let listed = page(reader, &query).await;
            assert_eq!(listed.events.len(), 1, "{query} is acknowledged and not listed");
        }
    }
}

#[tokio::test]
async fn cursor_read_during_commits_skips_nothing() {
    const BATCHES: usize = 60;

    let server = PostgresServer::new().await;
    let world = World::on(&server).await;
    let (one, other) = join(world.serve(), world.serve()).await;
    one.publish(&event("topic-0", "before")).await;
    let mut scan = stable(&one, 1).await;

    let holding = async {
        let mut foreign = server.unended_transaction().await;
        eventually(SOON, async || {
            let lag = visibility_lag(&one).await;
            ensure!(lag >= 3.0, "the visibility lag is {lag} s");
            Ok(())
        })
        .await;
        assert!(
            world.totals().await.rows > 1,
            "nothing was written while the last stable position was held back"
        );
        foreign.execute("rollback").await.expect("the connection of the test");
    };
    let scanning = async {
        let all = 1 + 4 * BATCHES * 10;
        scan.until(&other, "", all, Duration::from_secs(40)).await;
    };
    let publishing = join(
        join(
            publish_and_list(&one, &other, "a", BATCHES),
            publish_and_list(&other, &one, "b", BATCHES),
        ),
        join(
            publish_and_list(&one, &other, "c", BATCHES),
            publish_and_list(&other, &one, "d", BATCHES),
        ),
    );
    join(join(holding, publishing), scanning).await;
    assert_eq!(
        scan.step(&one, "").await,
        0,
        "there are no more events than were published"
    );
    eventually(SOON, async || {
        let lag = visibility_lag(&other).await;
        ensure!(lag < 1.0, "the visibility lag is still {lag} s");
        Ok(())
    })
    .await;
    world.check(1 + 4 * 600).await;
}

async fn visibility_lag(service: &Service) -> f64 {
    let stats = service.json("/stats").await;
    stats["log"]["unsettled_seconds"]
        .as_f64()
        .unwrap_or_else(|| panic!("no unsettled_seconds: {stats}"))
}

#[tokio::test]
async fn cursor_read_waits_until_events_are_stable() {
    let server = PostgresServer::new().await;
    let world = World::on(&server).await;
    let service = world.serve().await;
    let mut foreign = server.unended_transaction().await;
    assert_eq!(service.publish(&event("orders", "evt-1")).await.status, 201);
    let listed = page(&service, "").await;
    assert_eq!(ids(&listed.events), ["evt-1"]);
    let mut scan = Scan::default();
    assert_eq!(scan.step(&service, "").await, 0, "the event is not yet stable");
    let lines = ndjson(&service, "after=").await;
    assert_eq!(lines.text(), "", "the event is not yet stable");
    let from_list = page(&service, &format!("after={}", encoded(&listed.next))).await;
    assert_eq!(from_list.events.len(), 0, "the event is not yet stable");

    foreign.execute("rollback").await.expect("the connection of the test");
    scan.until(&service, "", 1, SOON).await;
    let from_list = page(&service, &format!("after={}", encoded(&listed.next))).await;
    assert_eq!(
        ids(&from_list.events),
        ["evt-1"],
        "the next of a list is a stable position"
    );
    world.check(1).await;
}

on_both_stores! {
    acknowledged_event_is_in_every_later_list
    list_has_all_members_and_names_its_topic
    lists_respect_order_limit_and_offset
    filters_select_by_topic_source_id_and_time
    cursor_read_sees_each_event_once_and_resumes
    cursor_read_from_next_of_list_misses_nothing
    payload_comes_back_byte_for_byte
    bare_array_links_to_next_page
    ndjson_is_unlimited_and_resumes_from_each_cursor
}
