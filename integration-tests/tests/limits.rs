//! Every limit, with the value on each side of it.

use std::io::Write;
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use integration_tests::http::{ask, raw};
use integration_tests::on_both_stores;
use integration_tests::publish::{Publish, event, event_with_payload, events};
use integration_tests::service::Service;
use integration_tests::world::World;
use serde_json::{Value, json};

const JSON: &str = "application/json";

async fn names_have_one_to_255_bytes_and_no_control_characters(world: World) {
    let service = world.serve().await;
    // 63 characters of four bytes each and three of one byte are 255 bytes.
    let widest = format!("{}abc", "\u{1f600}".repeat(63));
    for member in ["topic", "event_id", "source"] {
        for good in ["a", &"x".repeat(255), &widest, "*", "__proto__", "a:b{c}", "\u{202e}"] {
            let mut event = event("orders", &format!("{member}-{good:.8}"));
            event[member] = json!(good);
            let answer = service.publish(&event).await;
            assert!(
                [200, 201].contains(&answer.status),
                "{member} {good:?}: {}",
                answer.text()
            );
        }
        for (bad, kind) in [
            (json!(""), "string_too_short"),
            (json!("x".repeat(256)), "string_too_long"),
            (json!(format!("{widest}d")), "string_too_long"),
            (json!("a\u{0}b"), "string_pattern_mismatch"),
            (json!("a\nb"), "string_pattern_mismatch"),
            (json!("a\u{7f}"), "string_pattern_mismatch"),
            (json!("a\u{85}"), "string_pattern_mismatch"),
            (json!(5), "string_type"),
            (json!(null), "string_type"),
        ] {
            let mut event = event("orders", "bad");
            event[member] = bad.clone();
            let faults = service.publish(&event).await.faults();
            assert_eq!(faults, [(kind.to_owned(), json!(["body", member]))], "{bad}");
        }
    }
    for blank in [" ", "a b", "a ", "\u{a0}", "a\u{2003}b"] {
        let faults = service.publish(&event(blank, "bad")).await.faults();
        assert_eq!(
            faults,
            [("string_pattern_mismatch".to_owned(), json!(["body", "topic"]))]
        );
        let mut blank_elsewhere = event("orders", &format!("{blank}."));
        blank_elsewhere["source"] = json!(format!("{blank}."));
        assert_eq!(service.publish(&blank_elsewhere).await.status, 201, "{blank:?}");
    }
    let rows = world.totals().await.rows;
    world.check(rows).await;
}

async fn a_payload_has_at_most_256_kib(world: World) {
    let service = world.serve().await;
    let of_length = |length: usize| format!(r#"{{"a":"{}"}}"#, "x".repeat(length - 8));
    for (length, status) in [(262_143, 201), (262_144, 201), (262_145, 422)] {
        let body = event_with_payload("orders", &format!("evt-{length}"), &of_length(length));
        let answer = service.publish_bytes(JSON, body).await;
        assert_eq!(answer.status, status, "{length}: {}", answer.text());
        if status == 422 {
            assert_eq!(
                answer.faults(),
                [("payload_too_large".to_owned(), json!(["body", "payload"]))]
            );
        }
    }
    world.check(2).await;
}

async fn a_payload_has_at_most_64_levels(world: World) {
    let service = world.serve().await;
    let objects = |levels: usize| format!("{}1{}", r#"{"a":"#.repeat(levels), "}".repeat(levels));
    let arrays = |levels: usize| format!(r#"{{"a":{}{}}}"#, "[".repeat(levels - 1), "]".repeat(levels - 1));
    for (name, payload, status) in [
        ("objects-64", objects(64), 201),
        ("arrays-64", arrays(64), 201),
        ("objects-65", objects(65), 422),
        ("arrays-65", arrays(65), 422),
        ("arrays-100000", arrays(100_000), 422),
    ] {
        let body = event_with_payload("orders", name, &payload);
        let answer = service.publish_bytes(JSON, body).await;
        assert_eq!(answer.status, status, "{name}: {:.300}", answer.text());
        if status == 422 {
            let faults = answer.faults();
            assert_eq!(
                faults,
                [("payload_too_deep".to_owned(), json!(["body", "payload"]))],
                "{name}"
            );
        }
    }
    world.check(2).await;
}

async fn a_request_has_at_most_max_events(world: World) {
    let settings = world.settings().with("EVENTSIEVE_MAX_EVENTS", "10");
    let service = world.serve_with(settings).await;
    assert_eq!(service.publish(&Value::from(events("nine", 0..9))).await.status, 201);
    assert_eq!(
        service.publish(&json!({"events": events("ten", 0..10)})).await.status,
        201
    );
    for body in [
        Value::from(events("eleven", 0..11)),
        json!({"events": events("eleven", 0..11)}),
    ] {
        let faults = service.publish(&body).await.faults();
        assert_eq!(faults[0].0, "list_too_long", "{faults:?}");
        let lenient = service.publish_preferring("handling=lenient", &body).await;
        assert_eq!(lenient.faults()[0].0, "list_too_long");
    }
    let lines: String = events("lines", 0..11)
        .iter()
        .map(|event| format!("{event}\n\n"))
        .collect();
    let answer = service.publish_bytes("application/x-ndjson", lines).await;
    assert_eq!(answer.faults()[0].0, "list_too_long");
    world.check(19).await;
}

async fn a_request_of_ten_thousand_events_is_whole(world: World) {
    let service = world.serve().await;
    let answer = service.publish(&Value::from(events("orders", 0..10_000))).await;
    assert_eq!(answer.json()["unique_processed"], 10_000);
    let answer = service.publish(&Value::from(events("orders", 0..10_001))).await;
    assert_eq!(answer.faults()[0].0, "list_too_long");
    world.check(10_000).await;
}

const BODY_LIMIT: usize = 4096;

/// An event that fills a body of exactly this length.
fn body_of(length: usize) -> String {
    let empty = event_with_payload("orders", &format!("evt-{length}"), r#"{"a":""}"#);
    let filling = format!(r#"{{"a":"{}"}}"#, "x".repeat(length - empty.len()));
    event_with_payload("orders", &format!("evt-{length}"), &filling)
}

/// Posts a body in chunks, without saying its length first.
async fn publish_chunked(service: &Service, body: &str) -> u16 {
    let mut request = format!(
        "POST /publish HTTP/1.1\r\nhost: {}\r\nconnection: close\r\ncontent-type: {JSON}\r\ntransfer-encoding: chunked\r\n\r\n",
        service.address()
    );
    for chunk in body.as_bytes().chunks(1000) {
        request.push_str(&format!("{:x}\r\n", chunk.len()));
        request.push_str(std::str::from_utf8(chunk).expect("the bodies here are ASCII"));
        request.push_str("\r\n");
    }
    request.push_str("0\r\n\r\n");
    let answer = raw(service.address(), request.as_bytes(), Duration::from_secs(20))
        .await
        .expect("an answer");
    answer
        .strip_prefix("HTTP/1.1 ")
        .and_then(|rest| rest.get(..3))
        .and_then(|status| status.parse().ok())
        .unwrap_or_else(|| panic!("no status: {answer:?}"))
}

async fn a_body_has_at_most_max_body(world: World) {
    let settings = world.settings().with("EVENTSIEVE_MAX_BODY", "4KiB");
    let service = world.serve_with(settings).await;
    for (length, first, again) in [
        (BODY_LIMIT - 1, 201, 200),
        (BODY_LIMIT, 201, 200),
        (BODY_LIMIT + 1, 413, 413),
        (BODY_LIMIT * 100, 413, 413),
    ] {
        let body = body_of(length);
        let answer = service.publish_bytes(JSON, body.clone()).await;
        assert_eq!(answer.status, first, "{length}: {}", answer.text());
        if first == 413 {
            answer.problem(413);
        }
        assert_eq!(publish_chunked(&service, &body).await, again, "{length} in chunks");
    }
    world.check(2).await;
}

async fn a_compressed_body_is_measured_when_it_is_decompressed(world: World) {
    let settings = world.settings().with("EVENTSIEVE_MAX_BODY", "4KiB");
    let service = world.serve_with(settings).await;
    let before = service.resident_bytes();
    for (length, status) in [(BODY_LIMIT, 201), (BODY_LIMIT + 1, 413), (64 * 1024 * 1024, 413)] {
        let body = body_of(length);
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(body.as_bytes()).expect("memory takes all");
        let gzip = encoder.finish().expect("memory takes all");
        let zstd = zstd::encode_all(body.as_bytes(), 1).expect("memory takes all");
        for (coding, bytes) in [("gzip", gzip), ("zstd", zstd)] {
            let answer = ask(service
                .post("/publish")
                .header("content-type", JSON)
                .header("content-encoding", coding)
                .body(bytes))
            .await;
            let expected = if status == 201 && coding == "zstd" { 200 } else { status };
            assert_eq!(answer.status, expected, "{coding} {length}: {}", answer.text());
        }
    }
    let grown = service.resident_bytes().saturating_sub(before);
    assert!(grown < 32 * 1024 * 1024, "a bomb took {grown} bytes");
    world.check(1).await;
}

on_both_stores! {
    names_have_one_to_255_bytes_and_no_control_characters
    a_payload_has_at_most_256_kib
    a_payload_has_at_most_64_levels
    a_request_has_at_most_max_events
    a_request_of_ten_thousand_events_is_whole
    a_body_has_at_most_max_body
    a_compressed_body_is_measured_when_it_is_decompressed
}
