//! Error bodies: problem documents (RFC 9457) and validation errors, as snapshots. The members that every problem must have are
//! checked by [`Answer::problem`] in all other tests.

use integration_tests::http::{Answer, ask};
use integration_tests::publish::{event, events};
use integration_tests::service::{Service, Settings};
use integration_tests::world::World;
use reqwest::RequestBuilder;
use serde_json::json;

const JSON: &str = "application/json";
const NDJSON: &str = "application/x-ndjson";

/// Sends a request with a fixed request id.
async fn send(request: RequestBuilder) -> Answer {
    ask(request.header("x-request-id", "the-request-id")).await
}

/// The requests and their answers as text, which is compared with the snapshot.
fn shown(answers: &[(&str, Answer)]) -> String {
    let show = |(request, answer): &(&str, Answer)| {
        let (status, media_type) = (answer.status, answer.header("content-type"));
        format!("{request}\n{status} {media_type}\n{:#}\n", answer.json())
    };
    answers.iter().map(show).collect::<Vec<_>>().join("\n")
}

#[tokio::test]
async fn problem_documents_of_client_errors() {
    let world = World::embedded();
    let service = world
        .serve_with(world.settings().with("EVENTSIEVE_MAX_BODY", "4KiB"))
        .await;
    let publish = |media_type: &str| service.post("/publish").header("content-type", media_type);
    let answers = [
        ("GET /nowhere", send(service.get("/nowhere")).await),
        ("GET /publish", send(service.get("/publish")).await),
        ("text/plain", send(publish("text/plain").body("{}")).await),
        (
            "content-encoding: br",
            send(publish(JSON).header("content-encoding", "br").body("{}")).await,
        ),
        (
            "invalid gzip",
            send(publish(JSON).header("content-encoding", "gzip").body("{}")).await,
        ),
        (
            "a body over the limit",
            send(publish(JSON).body("x".repeat(5000))).await,
        ),
    ];
    insta::assert_snapshot!(shown(&answers));
    world.check(0).await;
}

#[tokio::test]
async fn problem_documents_without_a_store() {
    let settings = Settings::new("postgres://nobody@127.0.0.1:1/none").with("EVENTSIEVE_REQUEST_DEADLINE", "1s");
    let service = Service::start(settings).await;
    let publish = service.post("/publish").json(&event("orders", "evt-1"));
    let answers = [
        ("POST /publish", send(publish).await),
        ("GET /events", send(service.get("/events")).await),
        ("GET /stats", send(service.get("/stats")).await),
    ];
    // The detail depends on the time since the start.
    let shown: String = shown(&answers)
        .lines()
        .filter(|line| !line.contains("\"detail\""))
        .map(|line| format!("{line}\n"))
        .collect();
    insta::assert_snapshot!(shown);
}

#[tokio::test]
async fn validation_errors_of_publish() {
    let world = World::embedded();
    let service = world.serve().await;
    let mut bad = events("orders", 0..4);
    bad[1].as_object_mut().expect("an object").remove("event_id");
    bad[3]["topic"] = json!(5);
    bad[3]["payload"] = json!([]);
    let lines = format!("\n{}\n{}\n{{\n", bad[0], bad[1]);
    let publish = |body: String, media_type: &str| {
        let request = service.post("/publish").header("content-type", media_type);
        send(request.body(body))
    };
    let lenient = service.post("/publish").header("prefer", "handling=lenient");
    let answers = [
        ("an array", publish(json!(bad).to_string(), JSON).await),
        (
            "an envelope",
            publish(json!({ "events": bad[..2] }).to_string(), JSON).await,
        ),
        ("a single event", publish(bad[1].to_string(), JSON).await),
        ("lines", publish(lines, NDJSON).await),
        ("no JSON", publish("{".to_owned(), JSON).await),
        (
            "a lenient array without a valid event",
            send(lenient.json(&[json!({})])).await,
        ),
    ];
    insta::assert_snapshot!(shown(&answers));
    world.check(0).await;
}

#[tokio::test]
async fn validation_errors_of_queries() {
    let world = World::embedded();
    let service = world.serve().await;
    let mut answers = Vec::new();
    for path in [
        "/events?limit=0&order=up",
        "/events?since=yesterday",
        "/events?after=nonsense",
        "/events?after=&offset=1",
        "/events/stream?after=nonsense",
        "/stats/history?window=soon",
        "/stats/history?window=15m1s",
        "/stats/history?window=0s",
    ] {
        answers.push((path, send(service.get(path)).await));
    }
    insta::assert_snapshot!(shown(&answers));
    world.check(0).await;
}
