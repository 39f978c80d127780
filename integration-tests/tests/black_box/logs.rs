//! The log: one line for each request, which clients cannot forge, and which contains neither payloads nor secrets.

use std::time::Duration;

use anyhow::{Context, ensure};
use futures_util::future::join_all;
use integration_tests::collector::{Collector, CollectorMode};
use integration_tests::eventually::{SOON, eventually};
use integration_tests::http::{ask, raw};
use integration_tests::on_both_stores;
use integration_tests::postgres::{Authentication, PASSWORD, PostgresServer, free_port};
use integration_tests::publish::{Publish, event, event_with_payload, publish_batch};
use integration_tests::redis::{RedisServer, RedisTarget};
use integration_tests::service::{Service, Settings};
use integration_tests::stream_subscriber::StreamSubscriber;
use integration_tests::world::World;
use serde_json::{Value, json};

/// The lines of a log, each of which must be JSON.
#[track_caller]
fn lines(service: &Service) -> Vec<Value> {
    let log = service.log();
    let line = |line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    log.lines().map(line).collect()
}

/// Waits for the line of the request with this id, which is written after the answer is sent.
async fn line_of(service: &Service, request_id: &str) -> Value {
    eventually(SOON, async || {
        let found = lines(service).into_iter().find(|line| line["request.id"] == request_id);
        found.with_context(|| format!("no line for {request_id}"))
    })
    .await
}

async fn each_request_is_one_line_with_all_fields(world: World) {
    let service = world.serve_with(world.settings().with("RUST_LOG", "debug")).await;
    let [one, other] = [event("orders", "evt-1"), event("orders", "evt-2")];
    publish_batch(&service, vec![one.clone()]).await;
    let batch = json!([one, other, {"topic": "orders"}]);
    let answer = ask(service
        .post("/publish")
        .header("prefer", "handling=lenient")
        .header("x-request-id", "mine-1")
        .json(&batch))
    .await;
    assert_eq!(answer.status, 201, "{}", answer.text());
    let line = line_of(&service, "mine-1").await;
    let field = |name: &str| line[name].clone();
    assert_eq!(field("level"), "DEBUG");
    assert_eq!(
        (field("request.method"), field("request.route")),
        (json!("POST"), json!("/publish"))
    );
    assert_eq!(field("status"), 201);
    assert_eq!(field("request.bytes"), batch.to_string().len());
    let counts = ["sent", "stored", "duplicates", "rejected"].map(|count| field(&format!("events.{count}")));
    assert_eq!(counts, [3, 1, 1, 1].map(Value::from));
    assert!(field("milliseconds").as_f64().expect("a number") > 0.0);
    assert!(field("client") == "127.0.0.1", "{line}");
    assert_eq!(line.get("trace.id"), None, "{line}");

    ask(service
        .get("/events?topic=geheim&limit=1")
        .header("x-request-id", "mine-2"))
    .await;
    let line = line_of(&service, "mine-2").await;
    assert_eq!(line["request.route"], "/events");
    assert!(!service.log().contains("geheim"), "the query is not logged");
    let lines = lines(&service);
    assert_eq!(lines.iter().filter(|line| line["request.id"] == "mine-1").count(), 1);
    world.check(2).await;
}

/// A password in the arguments of a process is visible to others: the log says so, without it.
#[tokio::test]
async fn password_on_the_command_line_is_warned_of() {
    let unreachable = format!("postgres://u:geheim@127.0.0.1:{}/d", free_port());
    for (on_command_line, times) in [(true, 1), (false, 0)] {
        let settings = Settings::new(&unreachable);
        let settings = match on_command_line {
            true => settings
                .without("DATABASE_URL")
                .arguments(&["serve", "--database-url", &unreachable]),
            false => settings,
        };
        let service = Service::start(settings).await;
        let warned = |line: &&Value| {
            line["message"]
                .as_str()
                .is_some_and(|text| text.contains("--database-url is visible"))
        };
        eventually(SOON, async || {
            ensure!(!lines(&service).is_empty(), "no line yet");
            Ok(())
        })
        .await;
        assert_eq!(lines(&service).iter().filter(warned).count(), times);
        assert!(!service.log().contains("geheim"));
    }
}

#[tokio::test]
async fn only_failed_requests_are_logged_at_warn() {
    let unreachable = format!("postgres://u:p@127.0.0.1:{}/d", free_port());
    let world = World::embedded();
    let service = Service::start(world.settings().with("DATABASE_URL", &unreachable)).await;
    for (path, id) in [("/events", "failed"), ("/livez", "good"), ("/nowhere", "unknown")] {
        ask(service.get(path).header("x-request-id", id)).await;
    }
    let line = line_of(&service, "failed").await;
    assert_eq!(line["level"], "WARN");
    assert_eq!(
        (&line["status"], &line["request.route"]),
        (&json!(503), &json!("/events"))
    );
    let lines = lines(&service);
    assert_eq!(lines.iter().filter(|line| line.get("request.id").is_some()).count(), 1);
}

#[tokio::test]
async fn end_of_stream_is_logged_with_its_totals() {
    let world = World::embedded();
    let service = world.serve_with(world.settings().with("RUST_LOG", "debug")).await;
    let mut subscriber = StreamSubscriber::open(&service, "", None).await;
    publish_batch(&service, vec![event("orders", "evt-1"), event("orders", "evt-2")]).await;
    subscriber.collect(2, SOON).await;
    drop(subscriber);
    let line = eventually(SOON, async || {
        let lines = lines(&service);
        lines
            .into_iter()
            .find(|line| line["frames"].is_number())
            .context("the stream has not ended")
    })
    .await;
    assert_eq!(line["frames"], 2);
    assert!(line["milliseconds"].as_f64().expect("a number") > 0.0);
    assert!(line["request.id"].is_string());
    world.check(1 + 1).await;
}

/// How many of [`attempts`] are valid HTTP requests.
const WELL_FORMED: usize = 9;

/// Attempts of a client to forge a line.
fn attempts() -> Vec<Vec<u8>> {
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").into_bytes();
    let publish = |topic: &str, event_id: &str| {
        let body = event_with_payload(topic, event_id, "{}");
        let head = format!(
            "POST /publish HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        format!("{head}{body}").into_bytes()
    };
    let with_header = |header: &[u8]| {
        [
            b"GET /livez HTTP/1.1\r\nhost: x\r\nconnection: close\r\n",
            header,
            b"\r\n\r\n",
        ]
        .concat()
    };
    vec![
        get("/a%0aforged%1b[31m"),
        get("/\u{202e}forged\u{2028}\u{9b}31m"),
        get(&format!("/{}", "x".repeat(20_000))),
        publish("a\nforged", "evt"),
        publish("orders", "\u{1b}[31mforged\r\n"),
        publish("orders", "\u{2028}forged\u{202e}"),
        with_header(b"x-request-id: \x1b[31mforged"),
        with_header(b"x-request-id: a\x85forged"),
        with_header(b"traceparent: 00-\tforged-\xe2\x80\xa8-01"),
        b"FORGED\x1b[31m / HTTP/1.1\r\nhost: x\r\n\r\n".to_vec(),
        b"forged!#$%&'*+-.^_`|~ / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n".to_vec(),
        b"GET / HTTP/9.9\n\x1b[31mforged\n\n".to_vec(),
    ]
}

async fn client_input_cannot_forge_or_break_a_line(world: World) {
    for format in ["json", "text"] {
        let settings = world.settings().with("RUST_LOG", "debug").with("LOG_FORMAT", format);
        let service = world.serve_with(settings).await;
        let address = service.address().to_owned();
        let sent = attempts().into_iter().map(|attempt| {
            let address = address.clone();
            async move { raw(&address, &attempt, SOON).await }
        });
        for answer in join_all(sent).await {
            assert!(
                answer
                    .expect("an answer, and the end of the connection")
                    .starts_with("HTTP/1.1 ")
            );
        }
        let log = eventually(SOON, async || {
            let log = service.log();
            let is_request = |line: &&str| line.contains("request.id") && !line.contains("/readyz");
            let logged = log.lines().filter(is_request).count();
            ensure!(logged == WELL_FORMED, "{logged} of the requests were logged");
            Ok(log)
        })
        .await;
        for line in log.lines() {
            let is_invalid = |c: char| c.is_control() || "\u{2028}\u{2029}\u{202e}".contains(c);
            assert!(!line.contains(is_invalid), "{line:?}");
            assert!(line.len() < 2000, "{line}");
            match format {
                "json" => drop(serde_json::from_str::<Value>(line).unwrap_or_else(|error| panic!("{error}: {line}"))),
                _ => assert!(
                    line.starts_with("20") && line.contains("Z "),
                    "it begins with its time: {line}"
                ),
            }
        }
    }
    world.check(1).await;
}

#[tokio::test]
async fn no_payload_or_secret_is_logged_at_any_level() {
    const SECRET: &str = "Sw0rdfish-redis";
    const KEY: &str = "Sw0rdfish-key";
    const PAYLOAD: &str = "marked-payload";

    let server = PostgresServer::with(Authentication::Password).await;
    let world = World::on(&server).await;
    let redis = RedisServer::with(&["--requirepass", SECRET]).await;
    let target = RedisTarget::at(&redis.url_for("default", SECRET));
    for mode in [CollectorMode::Accepts, CollectorMode::Rejects] {
        let collector = Collector::start(mode).await;
        let settings = world
            .settings()
            .with_redis(&target)
            .with_collector(&collector)
            .with("OTEL_EXPORTER_OTLP_HEADERS", &format!("authorization=Bearer {KEY}"))
            .with("RUST_LOG", "trace");
        let mut service = world.serve_with(settings).await;
        let marked = |id: &str| event_with_payload("orders", id, &format!(r#"{{"secret":"{PAYLOAD}"}}"#));
        let conflict = marked("evt-1").replace("payload\"}", "payload\", \"more\":1}");
        let invalid = marked("").replace("orders", "");
        for body in [
            marked("evt-1"),
            conflict,
            marked("evt-2"),
            invalid,
            marked("broken").replace("}}", "}"),
        ] {
            service.publish_bytes("application/json", body).await;
        }
        let mut subscriber = StreamSubscriber::open(&service, "after=", None).await;
        subscriber.collect(2, SOON).await;
        drop(subscriber);
        ask(service.get("/events?topic=orders")).await;
        ask(service.post("/_flush")).await;
        eventually(Duration::from_secs(60), async || {
            ensure!(!collector.heads().is_empty(), "no span was sent");
            Ok(())
        })
        .await;
        service.stop().await;
        let log = service.log();
        let count = |part: &str| log.lines().filter(|line| line.contains(part)).count();
        assert_eq!(count(r#""request.route":"/publish""#), 5, "{log}");
        assert!(count(r#""level":"TRACE""#) > 0, "libraries log at TRACE, too: {log}");
        for secret in [PASSWORD, SECRET, KEY, PAYLOAD] {
            let found: Vec<&str> = log.lines().filter(|line| line.contains(secret)).collect();
            assert!(found.is_empty(), "{secret} is logged {} times: {found:#?}", found.len());
        }
    }
    world.check_published(2).await;
}

on_both_stores! {
    each_request_is_one_line_with_all_fields
    client_input_cannot_forge_or_break_a_line
}
