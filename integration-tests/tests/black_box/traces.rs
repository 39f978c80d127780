//! Traces: the spans of a request up to its publication on Redis, and that a broken or missing collector has no effect.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::time::{Duration, Instant};

use anyhow::ensure;
use futures_util::future::join_all;
use integration_tests::collector::{Collector, CollectorMode, Span};
use integration_tests::eventually::{SOON, eventually};
use integration_tests::http::{Answer, ask};
use integration_tests::on_both_stores;
use integration_tests::postgres::free_port;
use integration_tests::publish::{Publish, event, text};
use integration_tests::redis::{RedisServer, RedisTarget, Subscriber};
use integration_tests::service::{Service, Signal};
use integration_tests::world::World;
use serde_json::Value;

const PARENT: &str = "00f067aa0ba902b7";

/// The spans of a publication that reaches Redis, in the order of their names.
const STEPS: [&str; 5] = [
    "POST /publish",
    "http.read",
    "ingest.commit",
    "ingest.wait",
    "outbox.publish",
];

/// The trace id for a number.
fn trace_id(number: usize) -> String {
    format!("4bf92f3577b34da6a3ce929d0e{number:06x}")
}

/// The lines of a log in JSON.
fn lines(log: &str) -> impl Iterator<Item = Value> {
    log.lines().filter_map(|line| serde_json::from_str(line).ok())
}

async fn publish_in(service: &Service, traceparent: &str, event_id: &str) -> Answer {
    let request = service.post("/publish").header("traceparent", traceparent);
    let answer = ask(request.json(&event("orders", event_id))).await;
    assert_eq!(answer.status, 201, "{}", answer.text());
    answer
}

/// A service with a collector, which publishes to Redis on the fast path.
struct Traced {
    service: Service,
    collector: Collector,
    target: RedisTarget,
    /// A subscriber of all further messages.
    subscriber: Subscriber,
    /// The number of events stored so far.
    stored: i64,
}

impl Traced {
    /// Starts it. Events that are stored before the relay is connected to Redis go through the outbox, which keeps no traces.
    /// Therefore events of another topic are published until one takes the fast path.
    async fn start(world: &World) -> Self {
        let (target, collector) = (RedisTarget::shared(), Collector::start(CollectorMode::Accepts).await);
        let settings = world.settings().with_redis(&target).with_collector(&collector);
        let service = world.serve_with(settings.with("OTEL_SERVICE_NAME", "shop-log")).await;
        let first = target.subscribe().await;
        let mut stored = 0;
        eventually(SOON, async || {
            stored += 1;
            let answer = service.publish(&event("before", &format!("evt-{stored}"))).await;
            ensure!(answer.status == 201, "{}", answer.text());
            let received = first.wait_for(stored, SOON).await;
            let has_trace = received.iter().any(|message| message.json()["traceparent"].is_string());
            ensure!(has_trace, "{stored} events went through the outbox");
            Ok(())
        })
        .await;
        Traced {
            subscriber: target.subscribe().await,
            stored: stored.try_into().expect("a few"),
            service,
            collector,
            target,
        }
    }

    /// Waits until everything is published, and checks that this many events were stored after the start.
    async fn check(self, world: &World, events: usize) {
        let events = i64::try_from(events).expect("a few");
        world.check_published(self.stored + events).await;
        self.target.clean_up().await;
    }
}

/// Asserts that these are the spans of one request below the span of its client, and returns the id of the request's span.
#[track_caller]
fn complete(spans: &BTreeMap<String, Span>, parent: &str) -> String {
    let names: Vec<&str> = spans.keys().map(String::as_str).collect();
    assert_eq!(names, STEPS);
    let request = &spans["POST /publish"];
    assert_eq!(request.parent, parent);
    for span in spans.values() {
        assert!(span.begun <= span.ended, "{span:?}");
        if span.id != request.id {
            assert_eq!(span.parent, request.id, "{span:?}");
        }
        assert!(!span.has_failed, "{span:?}");
    }
    request.id.clone()
}

async fn request_is_traced_to_redis_under_client_trace(world: World) {
    let traced = Traced::start(&world).await;
    let Traced {
        service,
        collector,
        target,
        subscriber,
        ..
    } = &traced;
    publish_in(service, &format!("00-{}-{PARENT}-01", trace_id(1)), "evt-1").await;

    let spans = collector.wait_for(&trace_id(1), STEPS.len(), SOON).await;
    let request = complete(&spans, PARENT);
    let attribute = |name: &str, attribute: &str| spans[name].attributes[attribute].clone();
    assert_eq!(attribute("POST /publish", "http.request.method"), "POST");
    assert_eq!(attribute("POST /publish", "http.route"), "/publish");
    assert_eq!(attribute("POST /publish", "http.response.status_code"), "201");
    assert_eq!(attribute("http.read", "events"), "1");
    assert_eq!(attribute("ingest.commit", "store"), world.store_name());
    assert_eq!(attribute("ingest.commit", "attempts"), "1");
    assert_eq!(attribute("ingest.commit", "batch.events"), "1");
    assert_eq!(
        attribute("ingest.commit", "batch"),
        attribute("outbox.publish", "batch")
    );
    assert!(spans.values().all(|span| span.service == "shop-log"));
    let heads = collector.heads();
    assert!(
        heads.iter().all(|head| head.starts_with("POST /v1/traces ")),
        "{heads:?}"
    );

    let traceparent = format!("00-{}-{request}-01", trace_id(1));
    let message = &subscriber.wait_for(1, SOON).await[0];
    let end = format!(",\"traceparent\":\"{traceparent}\"}}");
    let listed = service.json("/events?topic=orders").await["events"][0].clone();
    assert_eq!(
        message.event.replace(&end, "}"),
        listed.to_string(),
        "the rest is as in /events"
    );
    assert!(message.event.ends_with(&end), "{}", message.event);
    let entry = target.entries().await.pop().expect("the event is in the stream");
    assert_eq!(entry.traceparent.as_ref(), Some(&traceparent));
    assert_eq!(entry.event, message.event);
    traced.check(&world, 1).await;
}

async fn invalid_traceparent_begins_a_new_trace(world: World) {
    let traced = Traced::start(&world).await;
    let Traced {
        service,
        collector,
        subscriber,
        ..
    } = &traced;
    let good = trace_id(2);
    let wrong = [
        "".to_owned(),
        "nonsense".to_owned(),
        format!("00-{}-{PARENT}-01", "0".repeat(32)),
        format!("00-{good}-{}-01", "0".repeat(16)),
        format!("00-{}-{PARENT}-01", good.to_uppercase()),
        format!("ff-{good}-{PARENT}-01"),
        format!("00-{good}-{PARENT}"),
    ];
    for (number, traceparent) in wrong.iter().enumerate() {
        publish_in(service, traceparent, &format!("evt-{number}")).await;
    }
    let messages = subscriber.wait_for(wrong.len(), SOON).await;
    let mut traces = BTreeSet::new();
    for message in messages {
        let traceparent = text(&message.json(), "traceparent");
        let parts: Vec<&str> = traceparent.split('-').collect();
        let spans = collector.wait_for(parts[1], STEPS.len(), SOON).await;
        assert_eq!(complete(&spans, ""), parts[2]);
        traces.insert(parts[1].to_owned());
    }
    assert_eq!(traces.len(), wrong.len(), "each has a trace of its own");
    assert!(!traces.contains(&good));
    traced.check(&world, wrong.len()).await;
}

async fn unsampled_request_is_not_traced(world: World) {
    let traced = Traced::start(&world).await;
    let Traced {
        service,
        collector,
        subscriber,
        ..
    } = &traced;
    publish_in(service, &format!("00-{}-{PARENT}-00", trace_id(3)), "evt-1").await;
    publish_in(service, &format!("00-{}-{PARENT}-01", trace_id(4)), "evt-2").await;
    // Spans are sent in the order in which they end.
    collector.wait_for(&trace_id(4), STEPS.len(), SOON).await;
    assert!(collector.trace(&trace_id(3)).is_empty(), "{:?}", collector.spans());
    let messages = subscriber.wait_for(2, SOON).await;
    let listed = service.json("/events?topic=orders").await["events"][0].clone();
    assert_eq!(messages[0].event, listed.to_string());
    assert!(messages[1].json()["traceparent"].is_string());
    traced.check(&world, 2).await;
}

async fn requests_of_one_commit_have_a_trace_each(world: World) {
    const REQUESTS: usize = 64;

    let traced = Traced::start(&world).await;
    let Traced {
        service,
        collector,
        subscriber,
        ..
    } = &traced;
    let held = world.hold_writers().await;
    let held_since = Instant::now();
    let requests = join_all((0..REQUESTS).map(|number| {
        let traceparent = format!("00-{}-{PARENT}-01", trace_id(100 + number));
        async move { publish_in(service, &traceparent, &format!("evt-{number}")).await }
    }));
    let releasing = async {
        eventually(SOON, async || {
            let queued = service.json("/stats").await["queue"]["events"].clone();
            ensure!(queued == REQUESTS, "{queued} events are queued");
            Ok(())
        })
        .await;
        let held_for = held_since.elapsed();
        held.release().await;
        held_for
    };
    let (_, held_for) = futures_util::future::join(requests, releasing).await;

    let messages = subscriber.wait_for(REQUESTS, SOON).await;
    let mut shared = 0;
    for number in 0..REQUESTS {
        let spans = collector.wait_for(&trace_id(100 + number), STEPS.len(), SOON).await;
        let request = complete(&spans, PARENT);
        let traceparent = format!("00-{}-{request}-01", trace_id(100 + number));
        let message = messages
            .iter()
            .find(|message| message.event_id() == format!("evt-{number}"))
            .expect("each was published");
        assert_eq!(text(&message.json(), "traceparent"), traceparent);
        let commit = &spans["ingest.commit"];
        shared += usize::from(commit.attributes["batch.requests"] != "1");
        assert!(spans["ingest.wait"].ended <= commit.ended);
        let waited = Duration::from_nanos(commit.ended - spans["ingest.wait"].begun);
        assert!(waited <= held_for + SOON, "{waited:?} of {held_for:?}");
    }
    assert!(
        shared > REQUESTS / 2,
        "{shared} of {REQUESTS} requests shared a group commit"
    );
    traced.check(&world, REQUESTS).await;
}

async fn rejecting_collector_costs_one_log_line(world: World) {
    const KEY: &str = "key-Sw0rdfish";

    let collector = Collector::start(CollectorMode::Rejects).await;
    let settings = world.settings().with_collector(&collector);
    let mut service = world
        .serve_with(settings.with("OTEL_EXPORTER_OTLP_HEADERS", &format!("authorization={KEY}")))
        .await;
    let mut sent = 0;
    eventually(SOON, async || {
        sent += 1;
        assert_eq!(
            service.publish(&event("orders", &format!("evt-{sent}"))).await.status,
            201
        );
        let rejected = collector.heads().len();
        ensure!(rejected >= 4, "{rejected} requests were rejected");
        Ok(())
    })
    .await;
    assert!(
        collector.heads()[0].contains(KEY),
        "the header is sent to the collector"
    );
    service.stop().await;
    let log = service.log();
    assert!(!log.contains(KEY), "{log}");
    let warnings = lines(&log).filter(|line| line["spans"].is_number()).count();
    assert_eq!(warnings, 1, "{log}");
    world.check(sent).await;
}

async fn hanging_collector_delays_nothing(world: World) {
    const REQUESTS: i64 = 50;
    /// Less than one attempt to send to a hanging collector takes.
    const QUICK: Duration = Duration::from_secs(5);

    let hanging = Collector::start(CollectorMode::Hangs).await;
    let absent = format!("http://127.0.0.1:{}", free_port());
    let mut rows = 0;
    for url in [hanging.url(), &absent] {
        let settings = world.settings().with("OTEL_EXPORTER_OTLP_ENDPOINT", url);
        let mut service = world.serve_with(settings.with("OTEL_BSP_SCHEDULE_DELAY", "10")).await;
        for _ in 0..REQUESTS {
            rows += 1;
            let begun = Instant::now();
            assert_eq!(
                service.publish(&event("orders", &format!("evt-{rows}"))).await.status,
                201
            );
            assert!(begun.elapsed() < QUICK, "{:?}", begun.elapsed());
        }
        service.signal(Signal::Term);
        let status = service.ended_within(Duration::from_secs(10)).await;
        assert_eq!(status.code(), Some(0));
    }
    assert!(!hanging.heads().is_empty(), "something was sent to it");
    world.check(rows).await;
}

#[tokio::test]
async fn second_signal_does_not_wait_for_collector() {
    let world = World::embedded();
    let collector = Collector::start(CollectorMode::Hangs).await;
    let mut service = world.serve_with(world.settings().with_collector(&collector)).await;
    assert_eq!(service.publish(&event("orders", "evt-1")).await.status, 201);
    eventually(SOON, async || {
        ensure!(!collector.heads().is_empty(), "nothing was sent yet");
        Ok(())
    })
    .await;
    service.signal(Signal::Term);
    eventually(SOON, async || {
        ensure!(service.log().contains("\"stopped\""), "it has not stopped yet");
        Ok(())
    })
    .await;
    service.signal(Signal::Term);
    let status = service.ended_within(Duration::from_secs(3)).await;
    assert_eq!(status.code(), Some(1), "{}", service.log());
    world.check(1).await;
}

#[tokio::test]
async fn last_spans_are_sent_before_exit() {
    let world = World::embedded();
    let collector = Collector::start(CollectorMode::Accepts).await;
    let settings = world.settings().with_collector(&collector);
    let mut service = world
        .serve_with(settings.with("OTEL_BSP_SCHEDULE_DELAY", "600000"))
        .await;
    publish_in(&service, &format!("00-{}-{PARENT}-01", trace_id(5)), "evt-1").await;
    assert!(collector.spans().is_empty());
    service.stop().await;
    assert_eq!(
        collector.trace(&trace_id(5)).len(),
        STEPS.len() - 1,
        "all but that of Redis"
    );
    world.check(1).await;
}

#[tokio::test]
async fn events_after_redis_outage_have_no_traceparent() {
    let world = World::embedded();
    let mut server = RedisServer::absent(&[]);
    let (target, collector) = (RedisTarget::on(&server), Collector::start(CollectorMode::Accepts).await);
    let service = world
        .serve_with(world.settings().with_redis(&target).with_collector(&collector))
        .await;
    publish_in(&service, &format!("00-{}-{PARENT}-01", trace_id(6)), "evt-1").await;
    server.start().await;
    world.published(SOON).await;
    let entries = target.entries().await;
    assert_eq!(entries.len(), 1);
    assert_eq!(entries[0].traceparent, None);
    assert_eq!(entries[0].event, service.json("/events").await["events"][0].to_string());
    world.check_published(1).await;
}

#[tokio::test]
async fn without_collector_no_connection_is_made() {
    let world = World::embedded();
    let service = world
        .serve_with(world.settings().with("OTEL_EXPORTER_OTLP_ENDPOINT", ""))
        .await;
    publish_in(&service, &format!("00-{}-{PARENT}-01", trace_id(7)), "evt-1").await;
    let threads: Vec<String> = fs::read_dir(format!("/proc/{}/task", service.pid()))
        .expect("the process runs")
        .map(|task| fs::read_to_string(task.expect("a thread").path().join("comm")).unwrap_or_default())
        .collect();
    assert!(
        !threads.iter().any(|name| name.starts_with("OpenTelemetry")),
        "{threads:?}"
    );
    let port = service
        .address()
        .rsplit(':')
        .next()
        .expect("a port")
        .parse()
        .expect("a number");
    assert_eq!(foreign_connections(service.pid(), port), [""; 0]);
    let listed = service.json("/events").await["events"][0].clone();
    assert_eq!(listed.get("traceparent"), None);
    world.check(1).await;
}

/// The TCP sockets of a process except for those of this port of its own.
fn foreign_connections(pid: u32, port: u16) -> Vec<String> {
    let folder = fs::read_dir(format!("/proc/{pid}/fd")).expect("the process runs");
    let inodes: BTreeSet<String> = folder
        .filter_map(|file| fs::read_link(file.ok()?.path()).ok())
        .filter_map(|link| Some(link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned()))
        .collect();
    let table = fs::read_to_string(format!("/proc/{pid}/net/tcp")).expect("Linux shows its sockets");
    let own = format!(":{port:04X}");
    table
        .lines()
        .skip(1)
        .filter(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            inodes.contains(fields[9]) && !fields[1].ends_with(&own)
        })
        .map(ToOwned::to_owned)
        .collect()
}

#[tokio::test]
async fn invalid_endpoint_fails_start_and_is_not_shown() {
    let world = World::embedded();
    for url in ["collector:4318", "http://user:Sw0rdfish@collector:4318"] {
        let ended = world.settings().with("OTEL_EXPORTER_OTLP_ENDPOINT", url).run().await;
        ended.ended_with(64);
        assert!(
            ended.stderr.contains("OTEL_EXPORTER_OTLP_ENDPOINT must be"),
            "{}",
            ended.stderr
        );
        assert_eq!(ended.stderr.lines().count(), 1, "{}", ended.stderr);
        assert!(!ended.stderr.contains("Sw0rdfish"), "{}", ended.stderr);
    }
}

#[tokio::test]
async fn failed_request_is_a_failed_span() {
    let world = World::embedded();
    let collector = Collector::start(CollectorMode::Accepts).await;
    let unreachable = format!("postgres://u:p@127.0.0.1:{}/d", free_port());
    let settings = world
        .settings()
        .with_collector(&collector)
        .with("DATABASE_URL", &unreachable);
    let service = Service::start(settings).await;
    let traceparent = format!("00-{}-{PARENT}-01", trace_id(8));
    let request = service.post("/publish").header("traceparent", traceparent);
    let failed = ask(request.json(&event("orders", "evt-1"))).await;
    failed.problem(503);
    let spans = collector.wait_for(&trace_id(8), 1, SOON).await;
    assert!(spans["POST /publish"].has_failed);
    // The log line of the request has the id of the trace.
    let log = service.log();
    let line = lines(&log).find(|line| line["request.id"].is_string());
    assert_eq!(line.expect("a line for the request")["trace.id"], trace_id(8));
}

on_both_stores! {
    request_is_traced_to_redis_under_client_trace
    invalid_traceparent_begins_a_new_trace
    unsampled_request_is_not_traced
    requests_of_one_commit_have_a_trace_each
    rejecting_collector_costs_one_log_line
    hanging_collector_delays_nothing
}
