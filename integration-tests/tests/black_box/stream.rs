//! `GET /events/stream`: every event once and in the order of the log, however often a follower leaves and resumes, and
//! whatever other followers do.

use std::cell::Cell;
use std::time::{Duration, Instant};

use anyhow::ensure;
use futures_util::future::{join, join3};

use integration_tests::api::Api;
use integration_tests::eventually::{SOON, eventually};
use integration_tests::follower::{Follower, Frame, StalledFollower};
use integration_tests::http::{Answer, ask, encoded};
use integration_tests::on_both_stores;
use integration_tests::postgres::PostgresServer;
use integration_tests::publish::{Publish, Walk, event, event_with_payload, events, publish_batch, shuffled, text};
use integration_tests::redis::Outlet;
use integration_tests::service::{Service, Signal};
use integration_tests::world::{Replicas, World};
use serde_json::{Value, json};
use sqlx::Executor;

use tokio::time::timeout;

/// More memory than a service may need, whatever its followers do.
const MEMORY: u64 = 150 << 20;

/// Asserts that these are all events of the store, in the order of a walk and as a walk shows them.
async fn assert_whole_log(service: &Service, frames: &[Frame]) {
    let mut walk = Walk::default();
    walk.until(service, "", frames.len(), SOON).await;
    for (frame, event) in frames.iter().zip(&walk.events) {
        assert_eq!(frame.id, text(event, "cursor"));
        assert_eq!(frame.json(), *event);
    }
}

fn ids(frames: &[Frame]) -> Vec<String> {
    frames.iter().map(Frame::event_id).collect()
}

/// Follows `count` events from the beginning by connections that are each dropped after one to fifty of them, and resumed at
/// the other replica.
async fn follow_in_pieces(replicas: &Replicas, count: usize) -> Vec<Frame> {
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
            let mut follower = Follower::open(service, "after=", last.as_deref()).await;
            frames.extend(follower.collect((length + 1).min(count - frames.len()), SOON).await);
            pieces += 1;
            if frames.len() == count {
                assert!(pieces > 100, "only {pieces} pieces");
                return frames;
            }
        }
    }
    frames
}

async fn follow_in_pieces_while_both_publish(world: &World, replicas: &Replicas) {
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
        follow_in_pieces(replicas, 2800),
    )
    .await;
    assert_whole_log(one, &frames).await;
}

async fn a_follower_that_leaves_and_resumes_a_hundred_times_sees_everything_once(world: World) {
    let replicas = world.serve_replicas().await;
    follow_in_pieces_while_both_publish(&world, &replicas).await;
    world.check(2800).await;
}

async fn so_it_does_with_a_fan_out_to_redis(world: World) {
    let outlet = Outlet::shared();
    let replicas = world.serve_replicas_with(world.settings().with_redis(&outlet)).await;
    follow_in_pieces_while_both_publish(&world, &replicas).await;
    world.check_fanned_out(2800).await;
    outlet.clean_up().await;
}

async fn followers_that_stop_reading_are_cut_and_cost_the_others_nothing(world: World) {
    const STALLED: usize = 20;
    const EVENTS: usize = 100;

    let settings = world.settings().with("EVENTSIEVE_IDLE_TIMEOUT", "1s");
    let service = world.serve_with(settings).await;
    let mut follower = Follower::open(&service, "", None).await;
    let before = service.open_connections();
    let mut stalled = Vec::new();
    for _ in 0..STALLED {
        stalled.push(StalledFollower::open(&service, "after=").await);
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
    let (frames, ()) = join(follower.collect(EVENTS, 3 * SOON), publishing).await;
    assert_eq!(frames.len(), EVENTS);
    assert!(service.resident_bytes() < MEMORY, "{} bytes", service.resident_bytes());
    eventually(SOON, async || {
        // The one that the test publishes on may have come, and may have been cut.
        let open = service.open_connections();
        ensure!(open <= before + 1, "{open} connections, before {before}");
        Ok(())
    })
    .await;
    for stalled in stalled {
        let read = stalled.read_rest().await.expect("it was cut");
        assert!(read < EVENTS * large.len(), "{read} bytes: it had it all");
    }
    // Who has nothing to read is not cut for that, though a second has passed.
    // The connection that the test has published on may be cut at this moment, for it was idle for a second as well.
    publish_batch(&Api::at(service.url()), vec![event("orders", "last")]).await;
    assert_eq!(ids(&follower.collect(1, SOON).await), ["last"]);
    world.check(101).await;
}

async fn a_follower_begins_where_it_asks_to(world: World) {
    let service = world.serve().await;
    let cursors = publish_batch(&service, events("orders", 0..10)).await;
    // What is not settled yet comes next.
    Walk::default().until(&service, "", 10, SOON).await;
    let mut next = Follower::open(&service, "", None).await;
    let after = encoded(&cursors[5]);
    let mut all = Follower::open(&service, "after=", None).await;
    let mut behind = Follower::open(&service, &format!("after={after}"), None).await;
    let mut resumed = Follower::open(&service, &format!("after={after}"), Some(&cursors[7])).await;
    let mut restarted = Follower::open(&service, "after=", Some(&cursors[8])).await;
    publish_batch(&service, events("orders", 10..12)).await;

    let expected: Vec<String> = (0..12).map(|number| format!("evt-{number}")).collect();
    for (follower, begin) in [
        (&mut next, 10),
        (&mut all, 0),
        (&mut behind, 6),
        (&mut resumed, 8),
        (&mut restarted, 9),
    ] {
        let frames = follower.collect(expected.len() - begin, SOON).await;
        assert_eq!(ids(&frames), expected[begin..]);
        for frame in &frames {
            assert_eq!(frame.id, text(&frame.json(), "cursor"));
        }
    }
    world.check(12).await;
}

#[tokio::test]
async fn a_follower_begins_with_what_was_acknowledged_and_is_not_settled_yet() {
    let server = PostgresServer::new().await;
    let world = World::on(&server).await;
    let service = world.serve().await;
    publish_batch(&service, vec![event("orders", "settled")]).await;
    Walk::default().until(&service, "", 1, SOON).await;
    let mut foreign = server.unended_transaction().await;
    publish_batch(&service, vec![event("orders", "acknowledged")]).await;
    let mut follower = Follower::open(&service, "", None).await;
    publish_batch(&service, vec![event("orders", "next")]).await;
    foreign.execute("rollback").await.expect("the connection of the test");
    assert_eq!(ids(&follower.collect(2, SOON).await), ["acknowledged", "next"]);
    world.check(3).await;
}

async fn a_follower_of_a_topic_gets_that_topic_alone(world: World) {
    let service = world.serve().await;
    publish_batch(&service, events("logins", 0..3)).await;
    let mut live = Follower::open(&service, "topic=orders", None).await;
    let batch = [events("logins", 3..50), events("orders", 0..2), events("Orders", 0..2)].concat();
    let cursors = publish_batch(&service, batch).await;
    publish_batch(&service, events("orders", 2..4)).await;
    let expected = ["evt-0", "evt-1", "evt-2", "evt-3"];
    let mut from_the_beginning = Follower::open(&service, "topic=orders&after=", None).await;
    let mut resumed = Follower::open(&service, "topic=orders", Some(&cursors[0])).await;
    for follower in [&mut live, &mut from_the_beginning, &mut resumed] {
        let frames = follower.collect(4, SOON).await;
        assert_eq!(ids(&frames), expected);
        assert!(frames.iter().all(|frame| frame.json()["topic"] == "orders"));
    }
    world.check(56).await;
}

async fn a_long_log_is_caught_up_with_while_it_grows(world: World) {
    let service = world.serve().await;
    let load = ["--events", "6000", "--duplicate-rate", "0", "--batch-size", "200"];
    world.load(service.url(), &load).await;
    let mut follower = Follower::open(&service, "after=", None).await;
    let more = ["--events", "2000", "--duplicate-rate", "0", "--batch-size", "10"];
    let (frames, _) = join(
        follower.collect(8000, Duration::from_secs(60)),
        world.load(service.url(), &more),
    )
    .await;
    assert_whole_log(&service, &frames).await;
    world.check(8000).await;
}

async fn a_place_that_is_none_is_refused_with_its_name(world: World) {
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
            answer.faults(),
            [("cursor_invalid".to_owned(), json!(["query", "after"]))]
        );
    }
    for cursor in ["nonsense", "0", "evt-1"] {
        let answer = bad("after=", Some(cursor)).await;
        let expected = ("cursor_invalid".to_owned(), json!(["header", "last-event-id"]));
        assert_eq!(answer.faults(), [expected]);
    }
    world.check(3).await;
}

async fn a_follower_hears_a_comment_while_nothing_happens(world: World) {
    // An idle time-out shorter than the interval of comments: who waits for events is not idle.
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
            // There may be one at the beginning as well.
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

#[tokio::test]
async fn a_stream_ends_when_its_replica_stops_and_goes_on_at_another_without_a_hole() {
    let world = World::new().await;
    let replicas: [Service; 2] = world.serve_all([world.settings(), world.settings()]).await;
    let [mut one, other] = replicas;
    let mut follower = Follower::open(&one, "after=", None).await;
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
    let following = async {
        let mut frames = follower.collect(300, SOON).await;
        one.signal(Signal::Term);
        frames.extend(follower.rest().await);
        // The last of a drain is for requests: followers have been sent away before.
        assert_eq!(one.ended_within(SOON).await.code(), Some(0));
        let mut resumed = Follower::open(&other, "", follower.last()).await;
        frames.extend(resumed.collect(1500 - frames.len(), SOON).await);
        frames
    };
    let (frames, _) = join(following, world.load(other.url(), &load)).await;
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

async fn a_service_with_followers_stops_as_soon_as_one_without(world: World) {
    let mut service = world.serve().await;
    let mut followers = Vec::new();
    for _ in 0..20 {
        followers.push(Follower::open(&service, "", None).await);
    }
    publish_batch(&service, events("orders", 0..5)).await;
    let asked = Instant::now();
    service.stop().await;
    assert!(asked.elapsed() < Duration::from_secs(10), "{:?}", asked.elapsed());
    let all: Vec<String> = (0..5).map(|number| format!("evt-{number}")).collect();
    for follower in &mut followers {
        let rest = ids(&follower.rest().await);
        assert_eq!(rest, all[..rest.len()]);
    }
    world.check(5).await;
}

async fn a_follower_that_does_not_read_does_not_hold_up_a_stop(world: World) {
    let mut service = world.serve().await;
    let long = "x".repeat(200_000);
    let large = |number: usize| event_with_payload("large", &number.to_string(), &format!(r#"{{"text":"{long}"}}"#));
    let large: Vec<String> = (0..40).map(large).collect();
    publish_bytes_in_parts(&service, &large).await;
    let begun = service.processor_time();
    let stalled = StalledFollower::open(&service, "after=").await;
    // It has been sent as much as the sockets hold once the service has worked and does not work any more.
    let before = Cell::new(begun);
    eventually(SOON, async || {
        let now = service.processor_time();
        ensure!(before.replace(now) == now && now > begun, "it is still being sent");
        Ok(())
    })
    .await;
    let asked = Instant::now();
    service.stop().await;
    assert!(asked.elapsed() < Duration::from_secs(10), "{:?}", asked.elapsed());
    drop(stalled);
    world.check(40).await;
}

async fn a_line_break_in_a_payload_does_not_break_the_frame(world: World) {
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
    let mut follower = Follower::open(&service, "after=", None).await;
    let frames = follower.collect(2, SOON).await;
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

async fn more_followers_than_the_limit_are_sent_away_until_one_leaves(world: World) {
    let settings = world.settings().with("EVENTSIEVE_MAX_FOLLOWERS", "3");
    let service = world.serve_with(settings).await;
    let mut followers = Vec::new();
    for _ in 0..3 {
        followers.push(Follower::open(&service, "", None).await);
    }
    for _ in 0..5 {
        service.fetch("/events/stream").await.problem(503);
    }
    publish_batch(&service, events("orders", 0..2)).await;
    for follower in &mut followers {
        assert_eq!(ids(&follower.collect(2, SOON).await), ["evt-0", "evt-1"]);
    }
    followers.pop();
    // Sooner than the next comment, which would find out, too.
    let mut late = eventually(Duration::from_secs(5), async || {
        Follower::try_open(&service, "after=", None).await
    })
    .await;
    assert_eq!(late.collect(2, SOON).await.len(), 2);
    world.check(2).await;
}

async fn other_methods_than_get_are_refused(world: World) {
    let service = world.serve().await;
    let posted = ask(service.post("/events/stream").json(&json!({}))).await;
    posted.problem(405);
    assert_eq!(posted.header("allow"), "GET,HEAD");
    world.check(0).await;
}

#[tokio::test]
async fn what_another_replica_stored_is_heard_of_within_a_second_without_a_redis() {
    const ROUNDS: usize = 10;

    // On a server of its own, for there no other test's transactions hold the settled edge back.
    let server = PostgresServer::new().await;
    let world = World::on(&server).await;
    let [one, other] = world.serve_all([world.settings(), world.settings()]).await;
    let mut follower = Follower::open(&other, "", None).await;
    let mut took = Vec::new();
    for round in 0..ROUNDS {
        let event_id = format!("evt-{round}");
        publish_batch(&one, vec![event("orders", &event_id)]).await;
        let published = Instant::now();
        assert_eq!(ids(&follower.collect(1, SOON).await), [event_id]);
        took.push(published.elapsed());
    }
    took.sort_unstable();
    assert!(took[ROUNDS / 2] < Duration::from_millis(1300), "{took:?}");
    world.check(10).await;
}

async fn what_this_replica_stored_is_heard_of_at_once(world: World) {
    const ROUNDS: usize = 20;

    let service = world.serve().await;
    let mut follower = Follower::open(&service, "", None).await;
    let mut took = Vec::new();
    for round in 0..ROUNDS {
        let event_id = format!("evt-{round}");
        publish_batch(&service, vec![event("orders", &event_id)]).await;
        let published = Instant::now();
        assert_eq!(ids(&follower.collect(1, SOON).await), [event_id]);
        took.push(published.elapsed());
    }
    took.sort_unstable();
    // Asking once a second would take half of one.
    assert!(took[ROUNDS / 2] < Duration::from_millis(300), "{took:?}");
    world.check(20).await;
}

on_both_stores! {
    a_follower_that_leaves_and_resumes_a_hundred_times_sees_everything_once
    so_it_does_with_a_fan_out_to_redis
    followers_that_stop_reading_are_cut_and_cost_the_others_nothing
    a_follower_begins_where_it_asks_to
    a_follower_of_a_topic_gets_that_topic_alone
    a_long_log_is_caught_up_with_while_it_grows
    a_place_that_is_none_is_refused_with_its_name
    a_follower_hears_a_comment_while_nothing_happens
    a_service_with_followers_stops_as_soon_as_one_without
    a_follower_that_does_not_read_does_not_hold_up_a_stop
    a_line_break_in_a_payload_does_not_break_the_frame
    more_followers_than_the_limit_are_sent_away_until_one_leaves
    other_methods_than_get_are_refused
    what_this_replica_stored_is_heard_of_at_once
}
