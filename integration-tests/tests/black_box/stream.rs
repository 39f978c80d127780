//! `GET /events/stream`: each event once and in log order, however often a subscriber reconnects, and whatever other subscribers do.

use std::cell::Cell;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::ensure;
use futures_util::future::{join, join3};

use integration_tests::api::Api;
use integration_tests::eventually::{SOON, eventually};
use integration_tests::http::{Answer, ask, encoded};
use integration_tests::on_both_stores;
use integration_tests::postgres::PostgresServer;
use integration_tests::publish::{Publish, Scan, event, event_with_payload, events, publish_batch, shuffled, text};
use integration_tests::redis::RedisTarget;
use integration_tests::service::{Service, Signal};
use integration_tests::stream_subscriber::{Frame, StalledSubscriber, StreamSubscriber};
use integration_tests::world::{Replicas, World};
use serde_json::{Value, json};
use sqlx::Executor;

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;
use tokio::time::timeout;

/// The most memory that a service may use, whatever its subscribers do.
const MEMORY: u64 = 150 << 20;

/// Where `integration-tests/setup test` installs the libraries that `sse_clients.py` reads with.
const PYTHON: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/python/bin/python3");
const SSE_CLIENTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/sse_clients.py");
const SSE_LIBRARIES: [&str; 5] = [
    "httpx_sse",
    "sseclient",
    "requests_sse",
    "aiosseclient",
    "aiohttp_sse_client2",
];

/// Asserts that these are all events of the store, in the order and the form of a cursor read.
async fn assert_whole_log(service: &Service, frames: &[Frame]) {
    let mut scan = Scan::default();
    scan.until(service, "", frames.len(), SOON).await;
    for (frame, event) in frames.iter().zip(&scan.events) {
        assert_eq!(frame.id, text(event, "cursor"));
        assert_eq!(frame.json(), *event);
    }
}

fn ids(frames: &[Frame]) -> Vec<String> {
    frames.iter().map(Frame::event_id).collect()
}

/// Reads `count` events from the beginning. Each connection is dropped after one to fifty events, and the next one resumes at the
/// other replica.
async fn read_in_pieces(replicas: &Replicas, count: usize) -> Vec<Frame> {
    let mut frames: Vec<Frame> = Vec::new();
    let mut pieces = 0;
    for round in 0.. {
        for length in shuffled(50, round) {
            let service = if pieces % 2 == 0 {
                replicas.one()
            } else {
                replicas.other()
            };
            let last = frames.last().map(|frame| frame.id.clone());
            let mut subscriber = StreamSubscriber::open(service, "after=", last.as_deref()).await;
            frames.extend(subscriber.collect((length + 1).min(count - frames.len()), SOON).await);
            pieces += 1;
            if frames.len() == count {
                assert!(pieces > 100, "only {pieces} pieces");
                return frames;
            }
        }
    }
    frames
}

async fn read_in_pieces_while_both_publish(world: &World, replicas: &Replicas) {
    let (one, other) = (replicas.one(), replicas.other());
    let load = [
        "--events",
        "2000",
        "--duplicate-rate",
        "0.3",
        "--rate",
        "400",
        "--batch-size",
        "10",
    ];
    let (_, _, frames) = join3(
        world.load(one.url(), &load),
        world.load(other.url(), &load),
        read_in_pieces(replicas, 2800),
    )
    .await;
    assert_whole_log(one, &frames).await;
}

async fn hundred_reconnects_see_each_event_once(world: World) {
    let replicas = world.serve_replicas().await;
    read_in_pieces_while_both_publish(&world, &replicas).await;
    world.check(2800).await;
}

async fn hundred_reconnects_with_redis_see_each_event_once(world: World) {
    let target = RedisTarget::shared();
    let replicas = world.serve_replicas_with(world.settings().with_redis(&target)).await;
    read_in_pieces_while_both_publish(&world, &replicas).await;
    world.check_published(2800).await;
    target.clean_up().await;
}

async fn slow_readers_are_cut_and_slow_no_other(world: World) {
    const STALLED: usize = 20;
    const EVENTS: usize = 100;

    let settings = world.settings().with("EVENTSIEVE_IDLE_TIMEOUT", "1s");
    let service = world.serve_with(settings).await;
    let mut subscriber = StreamSubscriber::open(&service, "", None).await;
    let before = service.open_connections();
    let mut stalled = Vec::new();
    for _ in 0..STALLED {
        stalled.push(StalledSubscriber::open(&service, "after=").await);
    }
    eventually(SOON, async || {
        let open = service.open_connections();
        ensure!(open > STALLED, "{open} connections, before {before}");
        Ok(())
    })
    .await;

    let large = "x".repeat(100_000);
    let publishing = async {
        for number in 0..EVENTS {
            let mut event = event("orders", &format!("evt-{number}"));
            event["payload"] = json!({"text": large});
            assert_eq!(service.publish(&event).await.status, 201);
        }
    };
    let (frames, ()) = join(subscriber.collect(EVENTS, 3 * SOON), publishing).await;
    assert_eq!(frames.len(), EVENTS);
    assert!(service.resident_bytes() < MEMORY, "{} bytes", service.resident_bytes());
    eventually(SOON, async || {
        // The connection on which the test publishes may have been added, or cut.
        let open = service.open_connections();
        ensure!(open <= before + 1, "{open} connections, before {before}");
        Ok(())
    })
    .await;
    for stalled in stalled {
        let read = stalled.read_rest().await.expect("it was cut");
        assert!(read < EVENTS * large.len(), "{read} bytes: it has received everything");
    }
    // A subscriber without events to read is not cut, although a second has passed. The connection on which the test has published
    // may be cut at this moment, because it was idle, too.
    publish_batch(&Api::at(service.url()), vec![event("orders", "last")]).await;
    assert_eq!(ids(&subscriber.collect(1, SOON).await), ["last"]);
    world.check(101).await;
}

async fn begins_at_the_requested_cursor(world: World) {
    let service = world.serve().await;
    let cursors = publish_batch(&service, events("orders", 0..10)).await;
    // An event that is not yet stable would come next.
    Scan::default().until(&service, "", 10, SOON).await;
    let mut next = StreamSubscriber::open(&service, "", None).await;
    let after = encoded(&cursors[5]);
    let mut all = StreamSubscriber::open(&service, "after=", None).await;
    let mut behind = StreamSubscriber::open(&service, &format!("after={after}"), None).await;
    let mut resumed = StreamSubscriber::open(&service, &format!("after={after}"), Some(&cursors[7])).await;
    let mut restarted = StreamSubscriber::open(&service, "after=", Some(&cursors[8])).await;
    publish_batch(&service, events("orders", 10..12)).await;

    let expected: Vec<String> = (0..12).map(|number| format!("evt-{number}")).collect();
    for (subscriber, begin) in [
        (&mut next, 10),
        (&mut all, 0),
        (&mut behind, 6),
        (&mut resumed, 8),
        (&mut restarted, 9),
    ] {
        let frames = subscriber.collect(expected.len() - begin, SOON).await;
        assert_eq!(ids(&frames), expected[begin..]);
        for frame in &frames {
            assert_eq!(frame.id, text(&frame.json(), "cursor"));
        }
    }
    world.check(12).await;
}

#[tokio::test]
async fn begins_with_acknowledged_unstable_events() {
    let server = PostgresServer::new().await;
    let world = World::on(&server).await;
    let service = world.serve().await;
    publish_batch(&service, vec![event("orders", "stable")]).await;
    Scan::default().until(&service, "", 1, SOON).await;
    let mut foreign = server.unended_transaction().await;
    publish_batch(&service, vec![event("orders", "acknowledged")]).await;
    let mut subscriber = StreamSubscriber::open(&service, "", None).await;
    publish_batch(&service, vec![event("orders", "next")]).await;
    foreign.execute("rollback").await.expect("the connection of the test");
    assert_eq!(ids(&subscriber.collect(2, SOON).await), ["acknowledged", "next"]);
    world.check(3).await;
}

async fn topic_filter_excludes_other_topics(world: World) {
    let service = world.serve().await;
    publish_batch(&service, events("logins", 0..3)).await;
    let mut live = StreamSubscriber::open(&service, "topic=orders", None).await;
    let batch = [events("logins", 3..50), events("orders", 0..2), events("Orders", 0..2)].concat();
    let cursors = publish_batch(&service, batch).await;
    publish_batch(&service, events("orders", 2..4)).await;
    let expected = ["evt-0", "evt-1", "evt-2", "evt-3"];
    let mut from_the_beginning = StreamSubscriber::open(&service, "topic=orders&after=", None).await;
    let mut resumed = StreamSubscriber::open(&service, "topic=orders", Some(&cursors[0])).await;
    for subscriber in [&mut live, &mut from_the_beginning, &mut resumed] {
        let frames = subscriber.collect(4, SOON).await;
        assert_eq!(ids(&frames), expected);
        assert!(frames.iter().all(|frame| frame.json()["topic"] == "orders"));
    }
    world.check(56).await;
}

async fn catches_up_with_a_growing_log(world: World) {
    let service = world.serve().await;
    let load = ["--events", "6000", "--duplicate-rate", "0", "--batch-size", "200"];
    world.load(service.url(), &load).await;
    let mut subscriber = StreamSubscriber::open(&service, "after=", None).await;
    let more = ["--events", "2000", "--duplicate-rate", "0", "--batch-size", "10"];
    let (frames, _) = join(
        subscriber.collect(8000, Duration::from_secs(60)),
        world.load(service.url(), &more),
    )
    .await;
    assert_whole_log(&service, &frames).await;
    world.check(8000).await;
}

async fn invalid_cursor_is_rejected_by_name(world: World) {
    let service = world.serve().await;
    publish_batch(&service, events("orders", 0..3)).await;
    let bad = async |query: &str, id: Option<&str>| -> Answer {
        let mut request = service.get(&format!("/events/stream?{query}"));
        if let Some(id) = id {
            request = request.header("last-event-id", id);
        }
        ask(request).await
    };
    for cursor in ["nonsense", "0", "%20", "evt-1"] {
        let answer = bad(&format!("after={cursor}"), None).await;
        assert_eq!(
            answer.validation_errors(),
            [("cursor_invalid".to_owned(), json!(["query", "after"]))]
        );
    }
    for cursor in ["nonsense", "0", "evt-1"] {
        let answer = bad("after=", Some(cursor)).await;
        let expected = ("cursor_invalid".to_owned(), json!(["header", "last-event-id"]));
        assert_eq!(answer.validation_errors(), [expected]);
    }
    world.check(3).await;
}

async fn idle_stream_sends_comments(world: World) {
    // The idle time-out is shorter than the interval of comments: a subscriber that waits for events is not idle.
    let settings = world.settings().with("EVENTSIEVE_IDLE_TIMEOUT", "2s");
    let service = world.serve_with(settings).await;
    let mut response = service.get("/events/stream").send().await.expect("the service answers");
    assert_eq!(response.status(), 200);
    let opened = Instant::now();
    let mut text = String::new();
    let beat = async {
        loop {
            let piece = response.chunk().await.expect("the stream does not break");
            let piece = piece.expect("the stream does not end");
            text.push_str(std::str::from_utf8(&piece).expect("UTF-8"));
            let last = text.trim_end().lines().last().unwrap_or_default();
            // There may be one at the beginning, too.
            if last.starts_with(':') && opened.elapsed() > Duration::from_secs(5) {
                break opened.elapsed();
            }
        }
    };
    let beat = timeout(Duration::from_secs(25), beat)
        .await
        .expect("a comment every 15 s");
    assert!(beat < Duration::from_secs(20), "{beat:?}");
    assert!(!text.contains("data:"), "{text}");
    world.check(0).await;
}

/// The libraries that people read the stream with hand over each event, and nothing else: neither the opening line nor the comments of an
/// idle stream.
#[tokio::test]
async fn client_libraries_see_events_alone() {
    let world = World::embedded();
    let service = world.serve().await;
    service.publish(&event("orders", "1")).await;
    let url = format!("{}/events/stream?after=", service.url());
    let mut readers = Vec::new();
    for library in SSE_LIBRARIES {
        let mut reader = Command::new(PYTHON)
            .args([SSE_CLIENTS, library, &url, "3"])
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("it is there after `integration-tests/setup test`");
        let lines = BufReader::new(reader.stdout.take().expect("it is piped")).lines();
        readers.push((library, reader, lines));
    }
    let mut next = async |expected: &str| {
        for (library, _, lines) in &mut readers {
            let line = timeout(SOON, lines.next_line()).await;
            let line = line.unwrap_or_else(|_| panic!("{library} does not show {expected}"));
            assert_eq!(line.expect("UTF-8").as_deref(), Some(expected), "{library}");
        }
    };
    next("1").await;
    // A stream that is opened later has its first comment later, too.
    let mut response = service.get("/events/stream").send().await.expect("the service answers");
    let mut text = String::new();
    while !text.contains("\n:") {
        let piece = timeout(SOON, response.chunk()).await.expect("a comment every 15 s");
        let piece = piece
            .expect("the stream does not break")
            .expect("the stream does not end");
        text.push_str(std::str::from_utf8(&piece).expect("UTF-8"));
    }
    for number in ["2", "3"] {
        service.publish(&event("orders", number)).await;
        next(number).await;
    }
    for (library, mut reader, _) in readers {
        let ended = timeout(SOON, reader.wait())
            .await
            .expect("it has seen all")
            .expect("it ends");
        assert!(ended.success(), "{library}");
    }
}

#[tokio::test]
async fn continues_on_another_replica_without_gap() {
    let world = World::new().await;
    let replicas: [Service; 2] = world.serve_all([world.settings(), world.settings()]).await;
    let [mut one, other] = replicas;
    let mut subscriber = StreamSubscriber::open(&one, "after=", None).await;
    let load = [
        "--events",
        "1500",
        "--duplicate-rate",
        "0",
        "--rate",
        "500",
        "--batch-size",
        "10",
    ];
    let reading = async {
        let mut frames = subscriber.collect(300, SOON).await;
        one.signal(Signal::Term);
        frames.extend(subscriber.rest().await);
        // Subscribers are disconnected first; the end of the drain is for requests.
        assert_eq!(one.ended_within(SOON).await.code(), Some(0));
        let mut resumed = StreamSubscriber::open(&other, "", subscriber.last()).await;
        frames.extend(resumed.collect(1500 - frames.len(), SOON).await);
        frames
    };
    let (frames, _) = join(reading, world.load(other.url(), &load)).await;
    assert_whole_log(&other, &frames).await;
    world.check(1500).await;
}

/// Publishes events that are too large for one request.
async fn publish_bytes_in_parts(service: &Service, events: &[String]) {
    for part in events.chunks(20) {
        let answer = service
            .publish_bytes("application/json", format!("[{}]", part.join(",")))
            .await;
        assert_eq!(answer.status, 201, "{}", answer.text());
    }
}

async fn subscribers_do_not_delay_stop(world: World) {
    let mut service = world.serve().await;
    let mut subscribers = Vec::new();
    for _ in 0..20 {
        subscribers.push(StreamSubscriber::open(&service, "", None).await);
    }
    publish_batch(&service, events("orders", 0..5)).await;
    let asked = Instant::now();
    service.stop().await;
    assert!(asked.elapsed() < Duration::from_secs(10), "{:?}", asked.elapsed());
    let all: Vec<String> = (0..5).map(|number| format!("evt-{number}")).collect();
    for subscriber in &mut subscribers {
        let rest = ids(&subscriber.rest().await);
        assert_eq!(rest, all[..rest.len()]);
    }
    world.check(5).await;
}

async fn stalled_subscriber_does_not_delay_stop(world: World) {
    let mut service = world.serve().await;
    let long = "x".repeat(200_000);
    let large = |number: usize| event_with_payload("large", &number.to_string(), &format!(r#"{{"text":"{long}"}}"#));
    let large: Vec<String> = (0..40).map(large).collect();
    publish_bytes_in_parts(&service, &large).await;
    let begun = service.processor_time();
    let stalled = StalledSubscriber::open(&service, "after=").await;
    // The sockets are full once the service has worked and does not work any more.
    let before = Cell::new(begun);
    eventually(SOON, async || {
        let now = service.processor_time();
        ensure!(before.replace(now) == now && now > begun, "the service still sends");
        Ok(())
    })
    .await;
    let asked = Instant::now();
    service.stop().await;
    assert!(asked.elapsed() < Duration::from_secs(10), "{:?}", asked.elapsed());
    drop(stalled);
    world.check(40).await;
}

async fn line_break_in_payload_keeps_frame_intact(world: World) {
    let service = world.serve().await;
    let payloads = [
        "{\n  \"a\": 1,\r\n\t\"b\": [1,\r2]\n}",
        r#"{"text":"one\ntwo\r\nthree\u2028 \u0085 data: x\n\nid: 7"}"#,
    ];
    for (number, payload) in payloads.iter().enumerate() {
        let body = event_with_payload("orders", &format!("evt-{number}"), payload);
        let answer = service.publish_bytes("application/json", body).await;
        assert_eq!(answer.status, 201, "{}", answer.text());
    }
    let mut subscriber = StreamSubscriber::open(&service, "after=", None).await;
    let frames = subscriber.collect(2, SOON).await;
    let lines = ask(service.get("/events").header("accept", "application/x-ndjson")).await;
    let lines: Vec<&str> = lines.text().lines().collect();
    for (number, payload) in payloads.iter().enumerate() {
        assert_eq!(frames[number].data, lines[number]);
        assert!(frames[number].data.contains(&payload.replace(['\n', '\r'], " ")));
        let sent: Value = serde_json::from_str(payload).expect("JSON");
        assert_eq!(frames[number].json()["payload"], sent);
    }
    world.check(2).await;
}

async fn subscribers_over_limit_are_503(world: World) {
    let settings = world.settings().with("EVENTSIEVE_MAX_SUBSCRIBERS", "3");
    let service = world.serve_with(settings).await;
    let mut subscribers = Vec::new();
    for _ in 0..3 {
        subscribers.push(StreamSubscriber::open(&service, "", None).await);
    }
    for _ in 0..5 {
        service.fetch("/events/stream").await.problem(503);
    }
    publish_batch(&service, events("orders", 0..2)).await;
    for subscriber in &mut subscribers {
        assert_eq!(ids(&subscriber.collect(2, SOON).await), ["evt-0", "evt-1"]);
    }
    subscribers.pop();
    // Before the next comment, which would detect it, too.
    let mut late = eventually(Duration::from_secs(5), async || {
        StreamSubscriber::try_open(&service, "after=", None).await
    })
    .await;
    assert_eq!(late.collect(2, SOON).await.len(), 2);
    world.check(2).await;
}

async fn other_methods_than_get_are_405(world: World) {
    let service = world.serve().await;
    let posted = ask(service.post("/events/stream").json(&json!({}))).await;
    posted.problem(405);
    assert_eq!(posted.header("allow"), "GET,HEAD");
    world.check(0).await;
}

#[tokio::test]
async fn events_of_another_replica_arrive_within_1s() {
    const ROUNDS: usize = 10;

    // A server of its own, where no transactions of other tests hold back the last stable position.
    let server = PostgresServer::new().await;
    let world = World::on(&server).await;
    let [one, other] = world.serve_all([world.settings(), world.settings()]).await;
    let mut subscriber = StreamSubscriber::open(&other, "", None).await;
    let mut took = Vec::new();
    for round in 0..ROUNDS {
        let event_id = format!("evt-{round}");
        publish_batch(&one, vec![event("orders", &event_id)]).await;
        let published = Instant::now();
        assert_eq!(ids(&subscriber.collect(1, SOON).await), [event_id]);
        took.push(published.elapsed());
    }
    took.sort_unstable();
    assert!(took[ROUNDS / 2] < Duration::from_millis(1300), "{took:?}");
    world.check(10).await;
}

async fn events_of_this_replica_arrive_at_once(world: World) {
    const ROUNDS: usize = 20;

    let service = world.serve().await;
    let mut subscriber = StreamSubscriber::open(&service, "", None).await;
    let mut took = Vec::new();
    for round in 0..ROUNDS {
        let event_id = format!("evt-{round}");
        publish_batch(&service, vec![event("orders", &event_id)]).await;
        let published = Instant::now();
        assert_eq!(ids(&subscriber.collect(1, SOON).await), [event_id]);
        took.push(published.elapsed());
    }
    took.sort_unstable();
    // Polling once a second would take half a second.
    assert!(took[ROUNDS / 2] < Duration::from_millis(300), "{took:?}");
    world.check(20).await;
}

on_both_stores! {
    hundred_reconnects_see_each_event_once
    hundred_reconnects_with_redis_see_each_event_once
    slow_readers_are_cut_and_slow_no_other
    begins_at_the_requested_cursor
    topic_filter_excludes_other_topics
    catches_up_with_a_growing_log
    invalid_cursor_is_rejected_by_name
    idle_stream_sends_comments
    subscribers_do_not_delay_stop
    stalled_subscriber_does_not_delay_stop
    line_break_in_payload_keeps_frame_intact
    subscribers_over_limit_are_503
    other_methods_than_get_are_405
    events_of_this_replica_arrive_at_once
}
