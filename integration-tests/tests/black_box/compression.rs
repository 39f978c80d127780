//! Compressed answers: which, by what a client accepts, and what they may cost.

use std::io::Read;

use flate2::read::GzDecoder;
use futures_util::future::join_all;
use integration_tests::eventually::{SOON, eventually};
use integration_tests::http::{Answer, ask};
use integration_tests::publish::{Publish, event, event_with_payload, events};
use integration_tests::service::Service;
use integration_tests::world::World;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

async fn fetch(service: &Service, path: &str, accept_encoding: &str) -> Answer {
    let request = service.get(path).header("accept-encoding", accept_encoding);
    let accept = if path.ends_with("lines") {
        "application/x-ndjson"
    } else {
        "*/*"
    };
    ask(request.header("accept", accept)).await
}

fn decoded(answer: &Answer) -> Vec<u8> {
    match answer.header("content-encoding") {
        "gzip" => {
            let mut plain = Vec::new();
            GzDecoder::new(&answer.body[..])
                .read_to_end(&mut plain)
                .expect("a whole body");
            plain
        }
        "zstd" => zstd::decode_all(&answer.body[..]).expect("a whole body"),
        other => panic!("the coding is {other:?}"),
    }
}

#[tokio::test]
async fn answers_to_reading_are_compressed_as_asked() {
    let world = World::embedded();
    let service = world.serve().await;
    service.publish(&Value::from(events("lines", 0..300))).await;
    let topics: Vec<Value> = (0..50)
        .map(|number| event(&format!("topic-{number}"), "evt-1"))
        .collect();
    service.publish(&Value::from(topics)).await;
    for number in 0..20 {
        let other = event_with_payload("lines", &format!("evt-{number}"), r#"{"other": true}"#);
        assert_eq!(service.publish_bytes("application/json", other).await.status, 200);
    }
    for path in [
        "/events?limit=300",
        "/events?topic=lines",
        "/conflicts",
        "/topics",
        "/stats",
        "/metrics",
        "/dashboard",
        "/dashboard/app.js",
        "/dashboard/icon.svg?",
        "/openapi.json",
        "/docs/swagger-ui.css",
    ] {
        let plain = fetch(&service, path, "identity").await;
        assert_eq!((plain.status, plain.header("content-encoding")), (200, ""), "{path}");
        for (accepted, coding) in [
            ("gzip", "gzip"),
            ("gzip, deflate, br, zstd", "zstd"),
            ("zstd;q=0.5, gzip", "gzip"),
        ] {
            let answer = fetch(&service, path, accepted).await;
            let is_small = plain.body.len() < 1024;
            let (expected, body) = if is_small {
                ("", answer.body.to_vec())
            } else {
                (coding, decoded(&answer))
            };
            assert_eq!(answer.header("content-encoding"), expected, "{path} {accepted}");
            assert_eq!(answer.header("content-type"), plain.header("content-type"));
            assert!(
                is_small || answer.body.len() < plain.body.len() * 3 / 4,
                "{path}: {}",
                answer.body.len()
            );
            if !["/stats", "/metrics"].contains(&path) {
                assert!(body == plain.body, "{path} {accepted}: another body");
            }
            let varies = answer
                .headers
                .get_all("vary")
                .iter()
                .any(|value| value == "accept-encoding");
            assert!(varies, "{path}: {:?}", answer.headers);
        }
    }
    world.check(350).await;
}

#[tokio::test]
async fn small_answers_and_streams_are_sent_as_they_are() {
    let world = World::embedded();
    let service = world.serve().await;
    let batch = Value::from(events("orders", 0..300));
    let publish = service.post("/publish").header("accept-encoding", "gzip, zstd");
    let answer = ask(publish.header("prefer", "return=representation").json(&batch)).await;
    assert_eq!(
        (answer.header("content-encoding"), answer.header("vary")),
        ("", ""),
        "{:?}",
        answer.headers
    );
    assert!(answer.body.len() > 4096);
    for path in ["/events?limit=1", "/stats?topic=orders", "/"] {
        let answer = fetch(&service, path, "gzip").await;
        assert_eq!(answer.header("content-encoding"), "", "{path}");
    }
    for accepted in ["identity", "br", "gzip;q=0, *;q=0", "gzip;q=0.5, identity"] {
        let answer = fetch(&service, "/events?limit=300", accepted).await;
        assert_eq!(answer.header("content-encoding"), "", "{accepted}");
        assert_eq!(answer.header("vary"), "accept-encoding");
    }
    let problem = fetch(&service, "/nothing", "gzip").await;
    problem.problem(404);

    let stream = service
        .get("/events/stream?after=")
        .header("accept-encoding", "gzip, zstd");
    let mut stream = stream.send().await.expect("a stream");
    assert_eq!(stream.headers().get("content-encoding"), None);
    assert_eq!(stream.headers().get("vary"), None);
    let first = stream.chunk().await.expect("it goes on").expect("it goes on");
    assert!(first.starts_with(b"retry:") || first.starts_with(b"id:"), "{first:?}");
    drop(stream);
    world.check(300).await;
}

/// A compressed file has other bytes than the file, so its tag is a weak one; a browser that sends it back has the file.
#[tokio::test]
async fn tag_of_a_compressed_file_is_weak_and_known() {
    let world = World::embedded();
    let service = world.serve().await;
    let plain = fetch(&service, "/dashboard/app.js", "identity").await;
    let packed = fetch(&service, "/dashboard/app.js", "gzip").await;
    assert_eq!(packed.header("etag"), format!("W/{}", plain.header("etag")));
    for tag in [plain.header("etag"), packed.header("etag")] {
        let request = service.get("/dashboard/app.js").header("if-none-match", tag);
        let answer = ask(request.header("accept-encoding", "gzip")).await;
        assert_eq!(
            (answer.status, answer.body.len(), answer.header("content-encoding")),
            (304, 0, "")
        );
    }
}

/// Many clients that ask for compressed pages at once, half of which do not read them, take a bounded amount of memory; those that
/// find no room for the compression get their page as it is.
#[tokio::test]
async fn many_compressed_answers_take_only_their_budget() {
    const CLIENTS: usize = 256;

    let world = World::embedded();
    let service = world
        .serve_with(world.settings().with("EVENTSIEVE_ANSWER_BYTES", "32MiB"))
        .await;
    let payload = json!({ "text": "all work and no play ".repeat(1000) }).to_string();
    for number in 0..50 {
        let body = event_with_payload("large", &format!("evt-{number:03}"), &payload);
        assert_eq!(service.publish_bytes("application/json", body).await.status, 201);
    }
    let before = service.resident_bytes();
    let mut unread = Vec::new();
    for number in 0..CLIENTS / 2 {
        let mut stream = TcpStream::connect(service.address()).await.expect("a connection");
        let (accept, coding) = [("*/*", "gzip"), ("application/x-ndjson", "zstd")][number % 2];
        let head = format!(
            "GET /events?limit=50 HTTP/1.1\r\nhost: localhost\r\naccept: {accept}\r\naccept-encoding: {coding}\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.expect("a request fits");
        unread.push(stream);
    }
    let reading = (0..CLIENTS / 2).map(async |number| {
        let answer = fetch(&service, "/events?limit=50", ["zstd", "gzip"][number % 2]).await;
        match (answer.status, answer.header("content-encoding")) {
            (200, "") => assert_eq!(answer.json()["count"], 50),
            (200, _) => {
                let page: Value = serde_json::from_slice(&decoded(&answer)).expect("a page");
                assert_eq!(page["count"], 50);
            }
            (status, _) => assert_eq!(status, 503, "{}", answer.text()),
        }
        answer.status
    });
    let statuses = join_all(reading).await;
    let served = statuses.iter().filter(|status| **status == 200).count();
    let grown = service.resident_bytes().saturating_sub(before);
    eprintln!(
        "{served} of {} were served beside the unread ones, {} KiB more",
        CLIENTS / 2,
        grown >> 10
    );
    assert!(served > 0);
    assert!(grown < 96 << 20, "{grown} bytes more");
    let bytes = service.metric("eventsieve_answer_bytes").await;
    assert!(bytes <= f64::from(32 << 20), "{bytes}");
    drop(unread);
    eventually(SOON, async || {
        anyhow::ensure!(
            service.metric("eventsieve_answer_bytes").await == 0.0,
            "some are still held"
        );
        Ok(())
    })
    .await;
    world.check(50).await;
}

/// A list that is larger than any buffer arrives while it is read, and its client sees where it was broken off.
#[tokio::test]
async fn compressed_lines_end_as_the_lines_do() {
    let world = World::embedded();
    let mut service = world.serve().await;
    for number in 0..60 {
        let text: String = (0..10_000_u64)
            .map(|part| {
                format!(
                    "{:016x}",
                    (part + number * 10_000 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15)
                )
            })
            .collect();
        let body = event_with_payload("large", &format!("evt-{number:03}"), &format!(r#"{{"text":"{text}"}}"#));
        assert_eq!(service.publish_bytes("application/json", body).await.status, 201);
    }
    let lines = || {
        let request = service.get("/events").header("accept", "application/x-ndjson");
        request.header("accept-encoding", "zstd").send()
    };
    let whole = lines().await.expect("an answer").bytes().await.expect("its end");
    let text = zstd::decode_all(&whole[..]).expect("a whole body");
    assert_eq!(text.iter().filter(|byte| **byte == b'\n').count(), 60);
    let mut broken = lines().await.expect("an answer");
    broken.chunk().await.expect("it goes on").expect("it goes on");
    service.kill().await;
    let rest = broken.bytes().await;
    assert!(rest.is_err(), "{} bytes and an end", rest.map_or(0, |rest| rest.len()));
}
