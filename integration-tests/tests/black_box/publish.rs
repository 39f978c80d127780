//! `POST /publish`: each form of body, each preference, each outcome. The tester checks more of it: `checks::batches`,
//! `checks::dedup`, `checks::schema` and `checks::http`.

use std::io::Write;

use anyhow::ensure;
use flate2::Compression;
use flate2::write::GzEncoder;
use integration_tests::eventually::{SOON, eventually};
use integration_tests::http::{Answer, ask};
use integration_tests::on_both_stores;
use integration_tests::publish::{Publish, Scan, event, events, outcomes, page, statuses};
use integration_tests::redis::{Message, RedisTarget};
use integration_tests::service::Service;
use integration_tests::stream_subscriber::{Frame, StreamSubscriber};
use integration_tests::world::World;
use serde_json::{Value, json};
use tokio::task::JoinSet;

const JSON: &str = "application/json";
const NDJSON: &str = "application/x-ndjson";

/// Asserts the totals of an answer.
#[track_caller]
fn assert_counts(answer: &Answer, status: u16, unique: usize, duplicates: usize) {
    assert_eq!(answer.status, status, "{}", answer.text());
    let body = answer.json();
    assert_eq!(body["status"], "success");
    assert_eq!(body["message"], format!("Processed {} events", unique + duplicates));
    assert_eq!(body["received"], unique + duplicates);
    assert_eq!(body["unique_processed"], unique);
    assert_eq!(body["duplicate_dropped"], duplicates);
    assert_eq!(body["details"]["accepted"], unique);
    assert_eq!(body["details"]["duplicates_immediate"], duplicates);
}

async fn publish_coded(service: &Service, coding: &str, body: Vec<u8>) -> Answer {
    ask(service
        .post("/publish")
        .header("content-type", JSON)
        .header("content-encoding", coding)
        .body(body))
    .await
}

fn gzipped(body: &Value) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder
        .write_all(body.to_string().as_bytes())
        .expect("writing to memory cannot fail");
    encoder.finish().expect("writing to memory cannot fail")
}

fn ndjson(events: &[Value]) -> String {
    events.iter().map(|event| format!("{event}\n")).collect()
}

async fn single_event_is_stored_and_its_copy_is_duplicate(world: World) {
    let service = world.serve().await;
    let first = service.publish(&event("orders", "evt-1")).await;
    assert_counts(&first, 201, 1, 0);
    let second = service.publish(&event("orders", "evt-1")).await;
    assert_counts(&second, 200, 0, 1);

    let (stored, duplicate) = (&outcomes(&first)[0], &outcomes(&second)[0]);
    assert_eq!(
        (stored.status.as_str(), duplicate.status.as_str()),
        ("stored", "duplicate")
    );
    assert_eq!(stored.cursor, duplicate.cursor, "the cursor is that of the first copy");
    assert_eq!(stored.received_at, duplicate.received_at);
    let totals = world.check(1).await;
    assert_eq!((totals.received, totals.duplicates), (2, 1));
}

async fn each_form_of_body_is_accepted(world: World) {
    let service = world.serve().await;
    let array = Value::from(events("array", 0..3));
    assert_counts(&service.publish(&array).await, 201, 3, 0);
    let envelope = json!({"events": events("envelope", 0..3), "sent_by": "a client"});
    assert_counts(&service.publish(&envelope).await, 201, 3, 0);
    let lines = format!("\n{}\n  \n", ndjson(&events("lines", 0..3)).trim_end());
    assert_counts(&service.publish_bytes(NDJSON, lines).await, 201, 3, 0);
    let crlf = ndjson(&events("crlf", 0..3)).replace('\n', "\r\n");
    assert_counts(&service.publish_bytes(NDJSON, crlf).await, 201, 3, 0);
    let charset = event("charset", "evt-0").to_string();
    let answer = service.publish_bytes("application/json; charset=utf-8", charset).await;
    assert_counts(&answer, 201, 1, 0);

    let answer = publish_coded(&service, "gzip", gzipped(&Value::from(events("gzip", 0..3)))).await;
    assert_counts(&answer, 201, 3, 0);
    let body = Value::from(events("zstd", 0..3)).to_string();
    let zstd = zstd::encode_all(body.as_bytes(), 1).expect("writing to memory cannot fail");
    assert_counts(&publish_coded(&service, "zstd", zstd).await, 201, 3, 0);
    world.check(19).await;
}

async fn first_copy_in_one_request_wins(world: World) {
    let service = world.serve().await;
    let mut other = event("orders", "evt-b");
    other["payload"] = json!({"another": "payload"});
    let batch = json!([
        event("orders", "evt-b"),
        event("orders", "evt-a"),
        event("orders", "evt-b"),
        other,
        event("orders", "evt-a")
    ]);
    let answer = service.publish_preferring("return=representation", &batch).await;
    assert_counts(&answer, 201, 2, 3);
    assert_eq!(
        statuses(&answer),
        ["stored", "stored", "duplicate", "conflict", "duplicate"]
    );
    let outcomes = outcomes(&answer);
    assert_eq!(outcomes[0].cursor, outcomes[2].cursor);
    assert_eq!(outcomes[0].cursor, outcomes[3].cursor);
    assert_eq!(outcomes[1].cursor, outcomes[4].cursor);
    assert!(
        outcomes[0].cursor < outcomes[1].cursor,
        "the order of the request is the order of the log"
    );
    let listed = service.json("/events?event_id=evt-b").await;
    assert_eq!(listed["events"][0]["payload"], event("orders", "evt-b")["payload"]);
    assert_eq!(world.check(2).await.conflicts, 1);
}

async fn one_of_concurrent_copies_is_stored(world: World) {
    let settings = world.settings().with("EVENTSIEVE_WRITERS", "1");
    let service = world.serve_with(settings).await;
    let held = world.hold_writers().await;
    let mut requests = JoinSet::new();
    requests.spawn(ask(service.post("/publish").json(&event("orders", "plug"))));
    world.writer_is_held(&service).await;
    for copy in 0..8 {
        let batch = json!([event("orders", "evt-1"), event("orders", &format!("own-{copy}"))]);
        let request = service
            .post("/publish")
            .header("prefer", "return=representation")
            .json(&batch);
        requests.spawn(ask(request));
    }
    queued(&service, 16).await;
    held.release().await;

    let answers = requests.join_all().await;
    let of_the_copies: Vec<String> = answers
        .iter()
        .flat_map(outcomes)
        .filter(|outcome| outcome.event_id == "evt-1")
        .map(|outcome| outcome.status)
        .collect();
    assert_eq!(of_the_copies.len(), 8);
    assert_eq!(of_the_copies.iter().filter(|status| *status == "stored").count(), 1);
    assert_eq!(of_the_copies.iter().filter(|status| *status == "duplicate").count(), 7);
    assert_eq!(world.check(10).await.received, 17);
}

/// Waits until at least this many events are in the queue.
async fn queued(service: &Service, events: u64) {
    eventually(SOON, async || {
        let stats = service.json("/stats").await;
        ensure!(stats["queue"]["events"].as_u64() >= Some(events), "{}", stats["queue"]);
        Ok(())
    })
    .await;
}

async fn invalid_event_rejects_the_whole_request(world: World) {
    let service = world.serve().await;
    let mut bad = events("orders", 0..4);
    bad[1].as_object_mut().expect("an object").remove("event_id");
    bad[3]["topic"] = json!(5);
    bad[3]["payload"] = json!([]);
    let lines = ndjson(&bad[..2]) + "{\n";
    for (answer, errors) in [
        (service.publish(&Value::from(bad.clone())).await, 3),
        (service.publish(&json!({ "events": bad[..2] })).await, 1),
        (service.publish(&bad[1]).await, 1),
        (service.publish_bytes(NDJSON, lines).await, 2),
    ] {
        assert_eq!(answer.validation_errors().len(), errors, "{}", answer.text());
    }
    assert_eq!(world.check(0).await.received, 0);
    let stats = service.json("/stats").await;
    assert_eq!(stats["uptime_stats"]["rejected"], 2 + 1 + 1 + 2, "{stats}");
}

async fn lenient_request_stores_valid_and_lists_invalid(world: World) {
    let service = world.serve().await;
    let mut batch = events("orders", 0..4);
    batch[2]["source"] = json!("");
    let batch = Value::from(batch);
    let answer = service.publish_preferring("handling=lenient", &batch).await;
    assert_counts(&answer, 201, 3, 0);
    let body = answer.json();
    assert_eq!(body["details"]["rejected"], 1);
    let results = body["results"].as_array().expect("the rejected are listed");
    assert_eq!(results.len(), 1, "and they alone: {body}");
    assert_eq!(results[0]["index"], 2);
    assert_eq!(results[0]["status"], "rejected");
    assert_eq!(results[0]["errors"][0]["type"], "string_too_short");
    assert_eq!(results[0]["errors"][0]["loc"], json!(["body", 2, "source"]));
    assert!(results[0]["errors"][0]["msg"].is_string());

    let answer = service
        .publish_preferring("handling=lenient, return=representation", &batch)
        .await;
    assert_counts(&answer, 200, 0, 3);
    let statuses: Vec<Value> = answer.json()["results"]
        .as_array()
        .expect("results")
        .iter()
        .map(|result| result["status"].clone())
        .collect();
    assert_eq!(statuses, ["duplicate", "duplicate", "rejected", "duplicate"]);

    let lines = format!("nonsense\n{}\n", event("orders", "evt-9"));
    let answer = ask(service
        .post("/publish")
        .header("content-type", NDJSON)
        .header("prefer", "handling=lenient")
        .body(lines))
    .await;
    assert_counts(&answer, 201, 1, 0);
    assert_eq!(answer.json()["results"][0]["errors"][0]["loc"], json!(["line", 1]));

    let none = service.publish_preferring("handling=lenient", &json!([{}])).await;
    assert_eq!(none.validation_errors().len(), 5);
    world.check(4).await;
}

async fn respond_async_is_stored_by_the_next_flush(world: World) {
    let service = world.serve().await;
    let held = world.hold_writers().await;
    let batch = Value::from(events("orders", 0..5));
    let answer = service.publish_preferring("respond-async", &batch).await;
    assert_eq!(answer.status, 202, "{}", answer.text());
    assert_eq!(answer.header("preference-applied"), "respond-async");
    assert_eq!(
        answer.json(),
        json!({"status": "accepted", "message": "Received 5 event(s) for processing", "received": 5})
    );
    assert_eq!(world.totals().await.rows, 0, "nothing can be stored yet");

    let mut mixed = events("orders", 5..7);
    mixed[0]["payload"] = json!(1);
    let answer = service
        .publish_preferring("respond-async, handling=lenient", &Value::from(mixed))
        .await;
    assert_eq!(answer.status, 202, "{}", answer.text());
    let body = answer.json();
    assert_eq!(body["received"], 1);
    assert_eq!(body["details"]["rejected"], 1);
    assert_eq!(body["results"][0]["status"], "rejected");
    let rejected = service.publish_preferring("respond-async", &json!([{}])).await;
    assert_eq!(rejected.status, 422, "an invalid event is never accepted");

    held.release().await;
    let flushed = ask(service.post("/_flush")).await;
    assert_eq!(flushed.status, 200, "{}", flushed.text());
    assert!(flushed.json()["flushed"].is_u64());
    assert_eq!(world.check(6).await.received, 6);
}

async fn flush_waits_until_its_deadline(world: World) {
    let settings = world
        .settings()
        .with("EVENTSIEVE_REQUEST_DEADLINE", "1s")
        .with("EVENTSIEVE_WRITERS", "1");
    let service = world.serve_with(settings).await;
    assert_eq!(
        ask(service.post("/_flush")).await.json()["flushed"],
        0,
        "there is nothing to wait for"
    );
    let held = world.hold_writers().await;
    let accepted = service
        .publish_preferring("respond-async", &event("orders", "evt-1"))
        .await;
    assert_eq!(accepted.status, 202);
    ask(service.post("/_flush")).await.problem(503);
    held.release().await;
    eventually(SOON, async || {
        let answer = ask(service.post("/_flush")).await;
        ensure!(answer.status == 200, "{}", answer.text());
        Ok(())
    })
    .await;
    world.check(1).await;
}

/// In lists, cursor reads, streams, on Redis, and by the commands.
async fn headers_are_handed_on_with_the_event(world: World) {
    let target = RedisTarget::shared();
    let service = world.serve_with(world.settings().with_redis(&target)).await;
    let subscriber = target.subscribe().await;
    let headers = json!({"content-type": "application/json", "ü": ""});
    let mut with = event("orders", "with");
    with["headers"] = headers.clone();
    assert_eq!(
        service.publish(&json!([with, event("orders", "without")])).await.status,
        201
    );
    // They are no part of the identity, and not compared.
    let mut other = event("orders", "with");
    other["headers"] = json!({"other": "1"});
    let answer = service.publish(&other).await.json();
    assert_eq!(
        (&answer["duplicate_dropped"], &answer["conflicts"]),
        (&json!(1), &Value::Null)
    );
    let published = world
        .run(&[
            "publish",
            "orders",
            "{}",
            "--id",
            "command",
            "--url",
            service.url(),
            "--header",
            "a=b=c",
        ])
        .await;
    published.ended_with(0);

    let expected = json!([headers, null, {"a": "b=c"}]);
    let mut scan = Scan::default();
    scan.until(&service, "", 3, SOON).await;
    let of = |events: &[Value]| Value::from_iter(events.iter().map(|event| event["headers"].clone()));
    assert_eq!(of(&scan.events), expected);
    assert_eq!(of(&page(&service, "topic=orders").await.events), expected);
    let mut stream = StreamSubscriber::open(&service, "after=", None).await;
    let frames: Vec<Value> = stream.collect(3, SOON).await.iter().map(Frame::json).collect();
    assert_eq!(of(&frames), expected);
    assert!(frames[1].get("headers").is_none(), "absent when there are none");
    let messages: Vec<Value> = subscriber.wait_for(3, SOON).await.iter().map(Message::json).collect();
    assert_eq!(of(&messages), expected);
    let template = ["--format", "{event_id} {headers.a}", "--after", "", "--limit", "3"];
    let tail = world
        .run(&[&["tail", "--url", service.url()][..], &template].concat())
        .await;
    tail.ended_with(0);
    assert_eq!(tail.stdout, "with \nwithout \ncommand b=c\n");

    let mut bad = event("orders", "bad");
    bad["headers"] = json!({"a": 1});
    let answer = service.publish(&bad).await;
    assert_eq!(answer.status, 422);
    assert_eq!(answer.json()["detail"][0]["loc"], json!(["body", "headers"]));
    world.check_published(3).await;
}

on_both_stores! {
    headers_are_handed_on_with_the_event
    single_event_is_stored_and_its_copy_is_duplicate
    each_form_of_body_is_accepted
    first_copy_in_one_request_wins
    one_of_concurrent_copies_is_stored
    invalid_event_rejects_the_whole_request
    lenient_request_stores_valid_and_lists_invalid
    respond_async_is_stored_by_the_next_flush
    flush_waits_until_its_deadline
}
