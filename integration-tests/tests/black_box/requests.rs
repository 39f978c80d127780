//! What a request may be: parameters that exist, bodies that are not read, heads that are not complete.

use std::time::Duration;

use integration_tests::eventually::SOON;
use integration_tests::http::{ask, raw};
use integration_tests::publish::{Publish, event};
use integration_tests::service::Service;
use integration_tests::world::World;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// An unknown parameter is told with the one that was meant, on each route that has parameters.
#[tokio::test]
async fn unknown_parameters_are_refused_with_a_hint() {
    let world = World::embedded();
    let service = world.serve().await;
    for (path, meant) in [
        ("/events?cursor=x", "after"),
        ("/events/stream?lastEventId=x", "after"),
        ("/stats?topics=x", "topic"),
        ("/stats/history?windows=1s", "window"),
        ("/topics?prefixes=x", "prefix"),
        ("/conflicts?skip=1&page_size=5", "limit"),
    ] {
        let answer = ask(service.get(path)).await;
        let errors = answer.validation_errors();
        assert!(
            errors.iter().all(|(kind, _)| kind == "extra_forbidden"),
            "{path}: {errors:?}"
        );
        let hint = format!("did you mean '{meant}'?");
        assert!(answer.text().contains(&hint), "{path}: {}", answer.text());
    }
    for (path, loc) in [
        ("/events?topic=%FF", json!(["query", "topic"])),
        ("/topics/a/events/%ff", json!(["path"])),
    ] {
        let errors = ask(service.get(path)).await.validation_errors();
        assert_eq!(errors, [("string_pattern_mismatch".to_owned(), loc)], "{path}");
    }
    assert_eq!(ask(service.get("/dashboard/%ff")).await.status, 404);
    assert_eq!(ask(service.get("/events?offset=10000")).await.status, 200);
    let errors = ask(service.get("/events?offset=10001")).await.validation_errors();
    assert_eq!(errors[0].0, "less_than_equal");
    let errors = ask(service.get("/conflicts?limit=201")).await.validation_errors();
    assert_eq!(errors[0].0, "less_than_equal");
    world.check(0).await;
}

/// An object that is an event and an envelope is refused; ids and sources of blanks alone are, too.
#[tokio::test]
async fn ambiguous_and_blank_events_are_refused() {
    let world = World::embedded();
    let service = world.serve().await;
    let mut both = event("orders", "evt-1");
    both["events"] = json!([event("orders", "evt-2")]);
    for body in [
        both,
        json!({"events": [event("orders", "evt-2")], "topic": null}),
        json!({"source": 1, "events": []}),
    ] {
        let errors = service.publish(&body).await.validation_errors();
        assert_eq!(errors, [("ambiguous_body".to_owned(), json!(["body"]))], "{body}");
    }
    // Other members beside `events` are ignored, `headers` among them.
    let envelope = json!({"events": [event("orders", "evt-2")], "headers": {}, "id": 1});
    assert_eq!(service.publish(&envelope).await.status, 201);
    for member in ["event_id", "source"] {
        let mut blank = event("orders", "evt-3");
        blank[member] = json!(" \u{3000}");
        let errors = service.publish(&blank).await.validation_errors();
        assert_eq!(
            errors,
            [("string_pattern_mismatch".to_owned(), json!(["body", member]))]
        );
    }
    world.check(1).await;
}

#[tokio::test]
async fn media_types_of_lines_are_known_by_all_names() {
    let world = World::embedded();
    let service = world.serve().await;
    for (number, media_type) in ["application/x-ndjson", "application/ndjson", "application/jsonl"]
        .iter()
        .enumerate()
    {
        let line = event("orders", &format!("evt-{number}")).to_string();
        let answer = service.publish_bytes(media_type, line).await;
        assert_eq!(answer.status, 201, "{media_type}: {}", answer.text());
    }
    let request = format!(
        "POST /publish HTTP/1.1\r\nhost: {}\r\nconnection: close\r\ncontent-length: 2\r\n\r\n{{}}",
        service.address()
    );
    let answer = raw(service.address(), request.as_bytes(), SOON)
        .await
        .expect("an answer");
    assert!(
        answer.starts_with("HTTP/1.1 415") && answer.contains("The header Content-Type is missing"),
        "{answer}"
    );
    world.check(3).await;
}

/// A connection that is kept, on which raw requests are sent.
struct Kept(TcpStream);

impl Kept {
    async fn open(service: &Service) -> Self {
        Self(TcpStream::connect(service.address()).await.expect("a connection"))
    }

    /// Sends bytes, and reads an answer up to the end of its body.
    async fn ask(&mut self, request: &str) -> String {
        self.0
            .write_all(request.as_bytes())
            .await
            .expect("the connection is open");
        let mut answer = Vec::new();
        loop {
            let text = String::from_utf8_lossy(&answer).into_owned();
            if let Some((head, body)) = text.split_once("\r\n\r\n") {
                let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
                let length: usize = length.and_then(|length| length.parse().ok()).unwrap_or_default();
                if body.len() >= length {
                    return text;
                }
            }
            let mut buffer = [0; 4096];
            let read = timeout(SOON, self.0.read(&mut buffer)).await;
            let read = read
                .unwrap_or_else(|_| panic!("no answer: {text}"))
                .expect("the connection is open");
            assert!(read > 0, "the connection was closed: {text}");
            answer.extend_from_slice(&buffer[..read]);
        }
    }
}

/// A body that nobody reads is read away, and the connection stays; where it cannot be, the answer says that the connection ends.
#[tokio::test]
async fn unread_bodies_do_not_break_connections() {
    let world = World::embedded();
    let settings = world.settings().with("EVENTSIEVE_MAX_BODY", "64KiB");
    let service = world.serve_with(settings).await;
    let host = service.address();
    let mut kept = Kept::open(&service).await;
    for (line, status) in [
        ("POST /nowhere", 404),
        ("POST /stats", 405),
        ("PUT /publish", 405),
        ("GET /stats", 200),
        ("POST /publish", 415),
    ] {
        let body = "x".repeat(60_000);
        let request = format!(
            "{line} HTTP/1.1\r\nhost: {host}\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        let answer = kept.ask(&request).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{line}: {answer}");
        assert!(!answer.contains("connection: close"), "{line}: {answer}");
    }
    // More than is read away.
    let request = format!("POST /nowhere HTTP/1.1\r\nhost: {host}\r\ncontent-length: 1000000000\r\n\r\n");
    let mut other = Kept::open(&service).await;
    let answer = other.ask(&format!("{request}{}", "x".repeat(100_000))).await;
    assert!(
        answer.starts_with("HTTP/1.1 404") && answer.contains("connection: close"),
        "{answer}"
    );
    // A client that waits for a go-ahead has not sent anything: it gets its answer at once, and no go-ahead.
    for (content, status) in [
        ("content-type: text/plain\r\ncontent-length: 10", 415),
        ("content-type: application/json\r\ncontent-length: 70000", 413),
    ] {
        let mut waiting = Kept::open(&service).await;
        let begun = std::time::Instant::now();
        let request = format!("POST /publish HTTP/1.1\r\nhost: {host}\r\nexpect: 100-continue\r\n{content}\r\n\r\n");
        let answer = waiting.ask(&request).await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status}")) && answer.contains("connection: close"),
            "{answer}"
        );
        assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    }
    world.check(0).await;
}

#[tokio::test]
async fn request_has_one_host() {
    let world = World::embedded();
    let service = world.serve().await;
    for (head, status) in [
        ("GET /livez HTTP/1.1\r\n", 400),
        ("GET /livez HTTP/1.1\r\nhost: a\r\nhost: b\r\n", 400),
        ("GET /livez HTTP/1.1\r\nhost: a\r\n", 200),
        ("GET /livez HTTP/1.0\r\n", 200),
        ("POST /publish HTTP/1.1\r\ncontent-length: 0\r\n", 400),
    ] {
        let request = format!("{head}connection: close\r\n\r\n");
        let answer = raw(service.address(), request.as_bytes(), SOON)
            .await
            .expect("an answer");
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status}")) || answer.starts_with(&format!("HTTP/1.0 {status}")),
            "{head}: {answer}"
        );
    }
    world.check(0).await;
}

/// Neither the first line of a stream nor a comment is a block of its own: some clients take each block for an event.
#[tokio::test]
async fn stream_has_no_blocks_without_an_event() {
    let world = World::embedded();
    let service = world.serve().await;
    service.publish(&event("orders", "evt-1")).await;
    let request = format!(
        "GET /events/stream?after= HTTP/1.1\r\nhost: {}\r\n\r\n",
        service.address()
    );
    let mut stream = TcpStream::connect(service.address()).await.expect("a connection");
    stream.write_all(request.as_bytes()).await.expect("a request");
    let mut text = String::new();
    while !text.contains("evt-1") {
        let mut buffer = [0; 4096];
        let read = timeout(SOON, stream.read(&mut buffer))
            .await
            .expect("a frame")
            .expect("a stream");
        text.push_str(&String::from_utf8_lossy(&buffer[..read]));
    }
    let body = text.split_once("\r\n\r\n").expect("a head").1;
    // Without the sizes of the chunks.
    let lines: Vec<&str> = body.split('\n').filter(|line| !line.ends_with('\r')).collect();
    assert_eq!(lines[0], "retry: 1000", "{text}");
    assert!(lines[1].starts_with("id: ") && lines[2].starts_with("data: "), "{text}");
    world.check(1).await;
}
