//! `/metrics`: agrees with the requests, whatever clients send and whatever the store does.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::ensure;
use futures_util::future::join;
use futures_util::{StreamExt, stream};
use integration_tests::eventually::{SOON, eventually};
use integration_tests::http::{ask, client};
use integration_tests::on_both_stores;
use integration_tests::proxy::{Network, Proxy};
use integration_tests::publish::{Publish, event, events};
use integration_tests::redis::RedisServer;
use integration_tests::service::Service;
use integration_tests::stream_subscriber::{StalledSubscriber, StreamSubscriber};
use integration_tests::world::World;
use reqwest::Method;
use serde_json::{Value, json};

/// The value of each series, by its name with its labels.
async fn scrape(service: &Service) -> BTreeMap<String, f64> {
    let answer = service.fetch("/metrics").await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.header("content-type"), "text/plain; version=0.0.4");
    let series = answer.text().lines().filter(|line| !line.starts_with('#'));
    series
        .map(|line| {
            let (name, value) = line.rsplit_once(' ').expect("NAME VALUE");
            (name.to_owned(), value.parse().expect("a number"))
        })
        .collect()
}

fn events_with(series: &BTreeMap<String, f64>, outcome: &str) -> f64 {
    series[&format!("eventsieve_events_total{{outcome=\"{outcome}\"}}")]
}

async fn agree_with_requests_and_stats(world: World) {
    let service = world.serve().await;
    let before = scrape(&service).await;
    let bodies = [
        Value::from(events("orders", 0..5)),
        Value::from(events("orders", 3..8)),
        json!([event("a", "1"), event("a", "1"), event("a", "1")]),
        {
            let mut conflicting = event("orders", "evt-0");
            conflicting["payload"] = json!({"another": 1});
            conflicting
        },
        json!([{}, {}]),
    ];
    let mut bytes = 0;
    for body in &bodies {
        bytes += service.publish(body).await.status;
    }
    assert_eq!(bytes, 201 + 201 + 201 + 200 + 422);
    let bytes: usize = bodies.iter().map(|body| body.to_string().len()).sum();
    let after = scrape(&service).await;
    let more = |series: &str| after[series] - before.get(series).copied().unwrap_or(0.0);
    for (name, events) in [
        ("stored", 9.0),
        ("duplicate", 4.0),
        ("conflict", 1.0),
        ("rejected", 2.0),
        ("unavailable", 0.0),
        ("unknown", 0.0),
    ] {
        assert_eq!(events_with(&after, name), events, "{name}");
    }
    let stats = service.json("/stats").await;
    assert_eq!(
        stats["uptime_stats"],
        json!({"received": 14, "unique_processed": 9, "duplicate_dropped": 5, "rejected": 2})
    );
    assert_eq!(more("eventsieve_group_commit_events_sum"), 14.0);
    assert_eq!(more("eventsieve_group_commit_events_count"), 4.0);
    assert_eq!(more("eventsieve_group_commit_duration_seconds_count"), 4.0);
    assert_eq!(more("eventsieve_group_commits_total{outcome=\"committed\"}"), 4.0);
    assert_eq!(more("eventsieve_group_commit_attempts_total"), 4.0);
    assert_eq!(more("eventsieve_http_bodies_total"), 5.0);
    assert_eq!(more("eventsieve_http_body_bytes_total"), bytes as f64);
    for (status, requests) in [("201", 3.0), ("200", 1.0), ("422", 1.0)] {
        let series =
            format!("eventsieve_http_requests_total{{method=\"POST\",route=\"/publish\",status=\"{status}\"}}");
        assert_eq!(more(&series), requests, "{status}");
    }
    assert_eq!(
        more("eventsieve_http_request_duration_seconds_count{route=\"/publish\"}"),
        5.0
    );
    assert_eq!(after["eventsieve_queue_events_max"], stats["queue"]["capacity"]);
    assert_eq!(
        (after["eventsieve_queue_events"], after["eventsieve_queue_bytes"]),
        (0.0, 0.0)
    );
    assert_eq!((after["eventsieve_store_up"], after["eventsieve_sink_up"]), (1.0, 1.0));
    assert_eq!(after["eventsieve_http_requests_in_flight"], 1.0, "this one");
    assert!(after["eventsieve_http_connections_open"] >= 1.0);
    let kind = format!("eventsieve_store_info{{kind=\"{}\",version=\"", world.store_name());
    assert_eq!(after.keys().filter(|series| series.starts_with(&kind)).count(), 1);
    world.check(9).await;
}

#[tokio::test]
async fn show_version_and_limits() {
    let world = World::embedded();
    let settings = world.settings().with("EVENTSIEVE_MAX_CONNECTIONS", "123");
    let service = world
        .serve_with(settings.with("EVENTSIEVE_MAX_SUBSCRIBERS", "45"))
        .await;
    let series = scrape(&service).await;
    let version = service.json("/").await["version"].clone();
    assert_eq!(series[&format!("eventsieve_build_info{{version={version}}}")], 1.0);
    assert_eq!(series["eventsieve_http_connections_max"], 123.0);
    assert_eq!(series["eventsieve_subscribers_max"], 45.0);
}

async fn client_input_creates_no_series(world: World) {
    const MADE_UP: usize = 1000;

    let service = world.serve().await;
    let client = client();
    let send_made_up = async |number: usize| {
        let method = Method::from_bytes(format!("MAKEUP{number}").as_bytes()).expect("a method is a token");
        let url = format!("{}/made/up/{number}?x={number}", service.url());
        assert_eq!(ask(client.request(method, url)).await.status, 404);
        let answer = service.publish(&event(&format!("topic-{number}"), "1")).await;
        assert_eq!(answer.status, 201);
    };
    send_made_up(MADE_UP).await;
    let names = async || scrape(&service).await.into_keys().collect::<BTreeSet<String>>();
    let before = {
        // The series of this request itself appears with the next one.
        names().await;
        names().await
    };
    stream::iter(0..MADE_UP)
        .for_each_concurrent(16, async |number| send_made_up(number).await)
        .await;
    assert_eq!(names().await, before);
    let other = "eventsieve_http_requests_total{method=\"other\",route=\"other\",status=\"404\"}";
    assert_eq!(scrape(&service).await[other], 1001.0);
    world.check(1001).await;
}

#[tokio::test]
async fn are_served_while_store_is_unreachable() {
    let world = World::new().await;
    let proxy = Proxy::to(world.database_url()).await;
    let settings = world
        .settings()
        .with("DATABASE_URL", &proxy.through(world.database_url()))
        .with("EVENTSIEVE_REQUEST_DEADLINE", "3s");
    let service = world.serve_with(settings).await;
    assert_eq!(service.publish(&event("orders", "1")).await.status, 201);
    proxy.set(Network::BlackHole);
    service.unready_within(SOON).await;
    eventually(SOON, async || {
        ensure!(scrape(&service).await["eventsieve_store_up"] == 0.0, "it is still up");
        Ok(())
    })
    .await;
    let lost = service.publish(&Value::from(events("lost", 0..3))).await;
    assert!([503, 504].contains(&lost.status), "{}", lost.text());
    let asked = Instant::now();
    let now = scrape(&service).await;
    assert!(asked.elapsed() < Duration::from_secs(3), "after {:?}", asked.elapsed());
    assert_eq!(now["eventsieve_store_up"], 0.0);
    assert_eq!(events_with(&now, "stored"), 1.0);
    let (unavailable, unknown) = (events_with(&now, "unavailable"), events_with(&now, "unknown"));
    assert_eq!(
        unavailable + unknown,
        3.0,
        "{unavailable} unavailable, {unknown} unknown"
    );
    let errors: f64 = now
        .iter()
        .filter(|(series, _)| series.starts_with("eventsieve_store_errors_total"))
        .map(|(_, count)| count)
        .sum();
    assert!(errors >= 1.0, "the probe has counted one");
    proxy.set(Network::Pass);
    eventually(SOON, async || {
        ensure!(scrape(&service).await["eventsieve_store_up"] == 1.0, "it is still down");
        Ok(())
    })
    .await;
}

async fn redis_outage_shows_in_sink_and_outbox(world: World) {
    let mut redis = RedisServer::new().await;
    let service = world.serve_with(world.settings().with("REDIS_URL", &redis.url())).await;
    let fast = "eventsieve_sink_events_total{path=\"fast\"}";
    let catch_up = "eventsieve_sink_events_total{path=\"catch_up\"}";
    service.publish(&Value::from(events("orders", 0..5))).await;
    let published = eventually(SOON, async || {
        let series = scrape(&service).await;
        ensure!(series[fast] + series[catch_up] == 5.0, "{series:?}");
        Ok(series)
    })
    .await;
    assert!(published["eventsieve_sink_publish_duration_seconds_count"] >= 1.0);
    redis.kill();
    service.publish(&Value::from(events("orders", 5..8))).await;
    eventually(SOON, async || {
        let series = scrape(&service).await;
        ensure!(series["eventsieve_sink_up"] == 0.0, "it is still up");
        ensure!(series["eventsieve_sink_errors_total{kind=\"unreachable\"}"] >= 1.0);
        ensure!(series["eventsieve_outbox_batches"] == 1.0, "{series:?}");
        ensure!(series["eventsieve_outbox_age_seconds"] > 0.0);
        Ok(())
    })
    .await;
    redis.start().await;
    eventually(SOON, async || {
        let series = scrape(&service).await;
        ensure!(series["eventsieve_sink_up"] == 1.0, "it is still down");
        ensure!(series[fast] + series[catch_up] == 8.0, "{series:?}");
        ensure!(series["eventsieve_outbox_batches"] == 0.0, "not updated yet");
        Ok(())
    })
    .await;
    world.check(8).await;
}

#[tokio::test]
async fn count_subscribers_and_slow_readers() {
    const EVENTS: usize = 100;

    let world = World::embedded();
    let service = world
        .serve_with(world.settings().with("EVENTSIEVE_IDLE_TIMEOUT", "4s"))
        .await;
    let stalled = StalledSubscriber::open(&service, "after=").await;
    let mut subscriber = StreamSubscriber::open(&service, "topic=orders", None).await;
    eventually(SOON, async || {
        let subscribers = scrape(&service).await["eventsieve_subscribers"];
        ensure!(subscribers == 2.0, "{subscribers}");
        Ok(())
    })
    .await;
    let publishing = async {
        for number in 0..EVENTS {
            let mut event = event("orders", &format!("evt-{number}"));
            event["payload"] = json!({"text": "x".repeat(100_000)});
            service.publish(&event).await;
        }
        service.publish(&event("others", "1")).await;
    };
    let (frames, ()) = join(subscriber.collect(EVENTS, 3 * SOON), publishing).await;
    assert_eq!(frames.len(), EVENTS);
    let cut = eventually(SOON, async || {
        let series = scrape(&service).await;
        ensure!(
            series["eventsieve_http_slow_readers_disconnected_total"] == 1.0,
            "it is not cut"
        );
        ensure!(series["eventsieve_subscribers"] == 1.0, "it is still counted");
        Ok(series)
    })
    .await;
    drop(stalled);
    let events = cut["eventsieve_subscriber_events_total"];
    // One subscriber has received its whole topic, the other one some events.
    assert!((100.0..201.0).contains(&events), "{events}");
    assert!(cut["eventsieve_subscriber_bytes_total"] > events * 100_000.0);
    world.check(101).await;
}

/// The names in a text that begin with one of these.
fn names(text: &str, prefixes: &[&str]) -> BTreeSet<String> {
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .filter(|word| {
            prefixes
                .iter()
                .any(|prefix| word.len() > prefix.len() && word.starts_with(prefix))
        })
        .map(str::to_owned)
        .collect()
}

fn file(name: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a workspace");
    std::fs::read_to_string(root.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

#[tokio::test]
async fn series_named_by_alerts_and_docs_exist() {
    let world = World::embedded();
    let service = world.serve().await;
    service.publish(&event("orders", "1")).await;
    let shown = service.fetch("/metrics").await;
    let existing = names(shown.text(), &["eventsieve_", "process_"]);
    let alerts = names(&file("deploy/prometheus/alerts.yml"), &["eventsieve_", "process_"]);
    assert!(alerts.len() > 10, "{alerts:?}");
    let pages = ["docs/guides/observability.md", "docs/reference/alerts.md"]
        .map(file)
        .concat();
    let documented = names(&pages, &["eventsieve_", "process_"]);
    for name in alerts.iter().chain(&documented) {
        assert!(existing.contains(name), "there is no series {name}");
    }
    world.check(1).await;
}

#[test]
fn each_alert_is_documented_and_tested() {
    let rules = file("deploy/prometheus/alerts.yml");
    let alerts: BTreeSet<String> = rules
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- alert: "))
        .map(str::to_owned)
        .collect();
    assert!(alerts.len() > 10, "{alerts:?}");
    // The tests in which it is expected to fire.
    let tests: BTreeSet<String> = file("deploy/prometheus/alerts.test.yml")
        .lines()
        .filter(|line| line.contains("alertname=\""))
        .flat_map(|line| names(line, &["Eventsieve"]))
        .collect();
    let documented = names(&file("docs/reference/alerts.md"), &["Eventsieve"]);
    assert_eq!(tests, alerts);
    assert_eq!(documented, alerts);
}

on_both_stores! {
    agree_with_requests_and_stats
    client_input_creates_no_series
    redis_outage_shows_in_sink_and_outbox
}
