//! Configured limits, with the value on each side of each. The limits of an event, and the default limits of a request, are checks of
//! the tester: `checks::limits`, `checks::schema` and `checks::payload`.

use std::io::Write;
use std::time::Duration;

use anyhow::ensure;
use flate2::Compression;
use flate2::write::GzEncoder;
use futures_util::FutureExt;
use integration_tests::eventually::{SOON, eventually};
use integration_tests::http::{ask, raw};
use integration_tests::on_both_stores;
use integration_tests::publish::{Publish, event_with_payload, events};
use integration_tests::service::Service;
use integration_tests::world::World;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const JSON: &str = "application/json";

async fn request_has_at_most_max_events(world: World) {
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
        let errors = service.publish(&body).await.validation_errors();
        assert_eq!(errors[0].0, "list_too_long", "{errors:?}");
        let lenient = service.publish_preferring("handling=lenient", &body).await;
        assert_eq!(lenient.validation_errors()[0].0, "list_too_long");
    }
    let lines: String = events("lines", 0..11)
        .iter()
        .map(|event| format!("{event}\n\n"))
        .collect();
    let answer = service.publish_bytes("application/x-ndjson", lines).await;
    assert_eq!(answer.validation_errors()[0].0, "list_too_long");
    world.check(19).await;
}

async fn request_head_has_at_most_24_kib(world: World) {
    let service = world.serve().await;
    for (kibibytes, status) in [(23, "200"), (25, "431"), (100, "431")] {
        let request = format!(
            "GET /livez HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncookie: {}\r\n\r\n",
            "x".repeat(kibibytes << 10)
        );
        let answer = raw(service.address(), request.as_bytes(), SOON).await;
        let answer = answer.expect("an answer, and the end of the connection");
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status}")),
            "{kibibytes} KiB: {answer}"
        );
    }
    world.check(0).await;
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

async fn body_has_at_most_max_body(world: World) {
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

async fn compressed_body_counts_decompressed(world: World) {
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

/// The buffer of a long body is larger than the part that has arrived, and its whole size counts towards the budget.
async fn body_counts_with_its_allocated_buffer(world: World) {
    const CONNECTIONS: usize = 20;
    let settings = world
        .settings()
        .with("EVENTSIEVE_MAX_BODY", "1MiB")
        .with("EVENTSIEVE_MAX_EVENTS", "100")
        .with("EVENTSIEVE_QUEUE_BYTES", "4MiB");
    let service = world.serve_with(settings).await;
    let head = format!(
        "POST /publish HTTP/1.1\r\nhost: a\r\ncontent-type: {JSON}\r\ncontent-length: {}\r\n\r\n",
        1 << 20
    );
    // Together these are 2.8 MB.
    let begun = [head.into_bytes(), vec![b' '; 140_000]].concat();
    let mut connections = Vec::new();
    for _ in 0..CONNECTIONS {
        let mut stream = TcpStream::connect(service.address()).await.expect("it listens");
        stream.write_all(&begun).await.expect("it is read");
        connections.push(stream);
    }
    eventually(SOON, async || {
        let is_rejected = |stream: &TcpStream| {
            let mut start = [0; 12];
            let read = stream.peek(&mut start).now_or_never();
            matches!(read, Some(Ok(_))) && start == *b"HTTP/1.1 503"
        };
        let rejected = connections.iter().filter(|stream| is_rejected(stream)).count();
        ensure!(rejected >= CONNECTIONS / 4, "{rejected} were rejected");
        Ok(())
    })
    .await;
    // Closed connections free their part of the budget.
    drop(connections);
    eventually(SOON, async || {
        let status = service.publish(&events("after", 0..1)[0]).await.status;
        ensure!(status < 300, "{status}");
        Ok(())
    })
    .await;
    world.check(1).await;
}

/// A body that is rejected before it has arrived is answered at once, and its connection is closed.
async fn early_answer_closes_the_connection(world: World) {
    let service = world.serve().await;
    let answer = async |media_type: &str, length: usize, body: &[u8]| {
        let head = format!(
            "POST /publish HTTP/1.1\r\nhost: a\r\ncontent-type: {media_type}\r\ncontent-length: {length}\r\n\r\n"
        );
        let answer = raw(service.address(), &[head.as_bytes(), body].concat(), SOON).await;
        answer.expect("the service closes it")
    };
    let broken = format!(
        "POST /publish HTTP/1.1\r\nhost: a\r\ncontent-type: {JSON}\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n"
    );
    let answered = raw(service.address(), broken.as_bytes(), SOON)
        .await
        .expect("the service closes it");
    assert!(
        answered.starts_with("HTTP/1.1 400") && answered.contains("connection: close\r\n"),
        "{answered}"
    );
    for (media_type, length, status) in [("text/plain", 100, "415"), (JSON, 1 << 30, "413")] {
        let answer = answer(media_type, length, b"[").await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{answer}");
        assert!(answer.contains("connection: close\r\n"), "{answer}");
    }
    // After a body that has arrived completely the connection can be reused.
    let mut stream = TcpStream::connect(service.address()).await.expect("it listens");
    for _ in 0..2 {
        let request = b"POST /publish HTTP/1.1\r\nhost: a\r\ncontent-type: text/plain\r\ncontent-length: 2\r\n\r\n[]";
        stream.write_all(request).await.expect("it is open");
        let mut answer = Vec::new();
        while !answer.ends_with(b"}") {
            let read = stream.read_buf(&mut answer).await.expect("it is open");
            assert!(read > 0, "it was closed");
        }
        let answer = String::from_utf8_lossy(&answer);
        assert!(
            answer.starts_with("HTTP/1.1 415") && !answer.contains("connection: close"),
            "{answer}"
        );
    }
    world.check(0).await;
}

on_both_stores! {
    early_answer_closes_the_connection
    request_head_has_at_most_24_kib
    request_has_at_most_max_events
    body_has_at_most_max_body
    compressed_body_counts_decompressed
    body_counts_with_its_allocated_buffer
}
