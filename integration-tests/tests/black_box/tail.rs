//! `eventsieve tail`: each event once and in one line, whatever fails meanwhile.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::ensure;
use futures_util::future::join;
use integration_tests::eventually::{SOON, eventually};
use integration_tests::on_both_stores;
use integration_tests::postgres::free_port;
use integration_tests::program::Program;
use integration_tests::publish::{Publish, Scan, event, event_with_payload, events, publish_batch, text};
use integration_tests::redis::{RedisServer, RedisTarget};
use integration_tests::service::{Service, Settings, Signal};
use integration_tests::world::World;
use serde_json::Value;

/// How long a gap may take to be filled, including the longest pause between two attempts.
const CATCH_UP: Duration = Duration::from_secs(40);

/// A `tail` without environment variables.
fn tail(url: &str, arguments: &[&str]) -> Program {
    let arguments = [&["tail", "--url", url], arguments].concat();
    Program::start(
        &Settings::new("unused")
            .without("DATABASE_URL")
            .without("HOST")
            .without("PORT")
            .arguments(&arguments),
    )
}

/// A `tail` of a channel, after it has subscribed.
async fn tail_redis(service: &Service, target: &RedisTarget, arguments: &[&str]) -> Program {
    let redis = [
        "--redis",
        "--redis-url",
        target.url(),
        "--redis-channel",
        target.channel(),
    ];
    let tail = tail(service.url(), &[&redis, arguments].concat());
    eventually(SOON, async || {
        ensure!(target.subscribers().await > 0, "not subscribed: {}", tail.stderr());
        Ok(())
    })
    .await;
    tail
}

/// The events of all complete lines.
fn printed(stdout: &str) -> Vec<Value> {
    let whole = stdout.rfind('\n').map_or("", |end| &stdout[..end]);
    whole
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect()
}

fn ids(events: &[Value]) -> Vec<String> {
    events.iter().map(|event| text(event, "event_id")).collect()
}

/// Waits until it has printed `count` events, and returns them.
async fn prints(tail: &Program, count: usize) -> Vec<Value> {
    eventually(CATCH_UP, async || {
        let events = printed(&tail.stdout());
        ensure!(events.len() >= count, "{} of {count}: {}", events.len(), tail.stderr());
        Ok(events)
    })
    .await
}

/// Waits until the store has this many events.
async fn stored(world: &World, count: i64) {
    eventually(SOON, async || {
        let rows = world.number("select count(*) from events").await;
        ensure!(rows >= count, "{rows} of {count}");
        Ok(())
    })
    .await;
}

/// Asserts that these are all stored events, each once and as a cursor read returns it.
async fn assert_all(service: &Service, printed: &[Value]) {
    let mut scan = Scan::default();
    scan.until(service, "", printed.len(), SOON).await;
    let cursors: BTreeSet<String> = printed.iter().map(|event| text(event, "cursor")).collect();
    assert_eq!(cursors.len(), printed.len(), "an event was printed twice");
    for event in &scan.events {
        assert!(cursors.contains(&text(event, "cursor")), "never printed: {event}");
    }
}

async fn continues_after_service_is_killed_or_stopped(world: World) {
    let port = free_port().to_string();
    let mut service = world.serve_with(world.settings().with("PORT", &port)).await;
    let url = service.url().to_owned();
    let events_tail = tail(&url, &["--after", "", "--limit", "4000"]);
    let load = [
        "--events",
        "4000",
        "--duplicate-rate",
        "0",
        "--rate",
        "1000",
        "--batch-size",
        "20",
    ];
    let killing = async {
        for round in 1..=4 {
            stored(&world, round * 700).await;
            if round == 2 {
                service.stop().await;
                service = world.serve_with(world.settings().with("PORT", &port)).await;
            } else {
                service.restart().await;
            }
        }
    };
    join(world.load(&url, &load), killing).await;
    service.ready().await;
    prints(&events_tail, 4000).await;
    let ended = events_tail.ended().await;
    ended.ended_with(0);
    let events = printed(&ended.stdout);
    assert_eq!(events.len(), 4000);
    assert!(
        events.is_sorted_by(|one, next| text(one, "cursor") < text(next, "cursor")),
        "in log order"
    );
    assert_all(&service, &events).await;
    assert!(!ended.stderr.is_empty(), "the outage is reported");
    world.check(4000).await;
}

async fn redis_outage_leaves_no_gap(world: World) {
    let mut redis = RedisServer::new().await;
    let target = RedisTarget::on(&redis);
    let service = world.serve_with(world.settings().with_redis(&target)).await;
    publish_batch(&service, events("before", 0..10)).await;
    world.published(SOON).await;
    // It begins at the last stable position, which transactions of other tests may hold back.
    Scan::default().until(&service, "", 10, SOON).await;
    let events_tail = tail_redis(&service, &target, &[]).await;
    let load = [
        "--events",
        "4000",
        "--duplicate-rate",
        "0",
        "--rate",
        "800",
        "--batch-size",
        "20",
    ];
    let killing = async {
        for round in 0..2 {
            stored(&world, 10 + round * 1600 + 400).await;
            redis.kill();
            stored(&world, 10 + round * 1600 + 1200).await;
            redis.start().await;
        }
    };
    join(world.load(service.url(), &load), killing).await;
    world.published(CATCH_UP).await;
    prints(&events_tail, 4000).await;
    // An event that is printed twice would come before this one, or instead of it.
    publish_batch(&service, vec![event("after", "last")]).await;
    prints(&events_tail, 4001).await;
    let ended = events_tail.stop(Signal::Term).await;
    ended.ended_with(0);
    let mut events = printed(&ended.stdout);
    assert_eq!(events.len(), 4001);
    assert_eq!(ids(&events[4000..]), ["last"]);
    assert!(
        events.iter().all(|event| event["topic"] != "before"),
        "without --after it begins with the next event"
    );
    let mut scan = Scan::default();
    scan.until(&service, "", 4011, SOON).await;
    events.extend_from_slice(&scan.events[..10]);
    assert_all(&service, &events).await;
    world.check_published(4011).await;
}

async fn redis_source_respects_after_and_limit(world: World) {
    let target = RedisTarget::shared();
    let service = world.serve_with(world.settings().with_redis(&target)).await;
    let cursors = publish_batch(&service, events("orders", 0..20)).await;
    publish_batch(&service, events("logins", 0..20)).await;
    let all = tail_redis(&service, &target, &["--after", "", "--limit", "45"]).await;
    let orders = ["--after", &cursors[14], "--topic", "orders", "--limit", "10"];
    let orders = tail_redis(&service, &target, &orders).await;
    prints(&all, 40).await;
    prints(&orders, 5).await;
    publish_batch(&service, [events("orders", 20..25), events("logins", 20..25)].concat()).await;
    let ended = orders.ended().await;
    ended.ended_with(0);
    let expected: Vec<String> = (15..25).map(|number| format!("evt-{number}")).collect();
    assert_eq!(ids(&printed(&ended.stdout)), expected);
    let ended = all.ended().await;
    ended.ended_with(0);
    assert_eq!(printed(&ended.stdout).len(), 45);
    world.check_published(50).await;
    target.clean_up().await;
}

async fn respects_topic_after_and_limit(world: World) {
    let service = world.serve().await;
    let batch = [events("orders", 0..10), events("logins", 0..10)].concat();
    let cursors = publish_batch(&service, batch).await;
    let expected =
        |numbers: std::ops::Range<usize>| -> Vec<String> { numbers.map(|number| format!("evt-{number}")).collect() };
    for (arguments, begin, end) in [
        (&["--after", "", "--topic", "orders", "--limit", "10"][..], 0, 10),
        (&["--after", "", "--topic", "logins", "--limit", "3"], 0, 3),
        (&["--after", &cursors[6], "--topic", "orders", "--limit", "3"], 7, 10),
    ] {
        let ended = tail(service.url(), arguments).ended().await;
        ended.ended_with(0);
        assert_eq!(ids(&printed(&ended.stdout)), expected(begin..end), "{arguments:?}");
    }
    let all = tail(service.url(), &["--after", "", "--limit", "20"]).ended().await;
    all.ended_with(0);
    assert_all(&service, &printed(&all.stdout)).await;
    world.check(20).await;
}

async fn prints_each_event_as_one_line(world: World) {
    let service = world.serve().await;
    let events_tail = tail(service.url(), &["--after", ""]);
    let body = event_with_payload("orders", "evt-1", "{\n\"a\":\r\n9007199254740993, \"text\":\"\\n\"}");
    assert_eq!(service.publish_bytes("application/json", body).await.status, 201);
    prints(&events_tail, 1).await;
    publish_batch(&service, events("orders", 2..4)).await;
    let printed = prints(&events_tail, 3).await;
    assert_eq!(ids(&printed), ["evt-1", "evt-2", "evt-3"]);
    assert!(
        events_tail
            .stdout()
            .lines()
            .next()
            .is_some_and(|line| line.contains("9007199254740993"))
    );
    let ended = events_tail.stop(Signal::Interrupt).await;
    ended.ended_with(0);
    assert_eq!(ended.stdout.lines().count(), 3, "{}", ended.stdout);
    world.check(3).await;
}

async fn exits_with_0_on_signal(world: World) {
    let target = RedisTarget::shared();
    let service = world.serve_with(world.settings().with_redis(&target)).await;
    for signal in [Signal::Interrupt, Signal::Term] {
        let events_tail = tail(service.url(), &["--after", ""]);
        let of_redis = tail_redis(&service, &target, &[]).await;
        publish_batch(&service, vec![event("orders", &format!("evt-{signal:?}"))]).await;
        prints(&events_tail, 1).await;
        prints(&of_redis, 1).await;
        events_tail.stop(signal).await.ended_with(0);
        of_redis.stop(signal).await.ended_with(0);
    }
    // Also without a service.
    let mut waiting = tail(&format!("http://127.0.0.1:{}", free_port()), &[]);
    eventually(SOON, async || {
        ensure!(!waiting.stderr().is_empty(), "no message yet");
        Ok(())
    })
    .await;
    waiting.runs();
    waiting.stop(Signal::Interrupt).await.ended_with(0);
    world.check_published(2).await;
    target.clean_up().await;
}

async fn waits_for_a_missing_service(world: World) {
    let port = free_port();
    let url = format!("http://127.0.0.1:{port}");
    let mut events_tail = tail(&url, &["--after", "", "--limit", "3"]);
    eventually(SOON, async || {
        ensure!(
            events_tail.stderr().contains(&port.to_string()),
            "{}",
            events_tail.stderr()
        );
        Ok(())
    })
    .await;
    events_tail.runs();
    assert_eq!(events_tail.stdout(), "", "messages are not printed to standard output");
    let service = world.serve_with(world.settings().with("PORT", &port.to_string())).await;
    publish_batch(&service, events("orders", 0..3)).await;
    let ended = events_tail.ended().await;
    ended.ended_with(0);
    assert_eq!(ids(&printed(&ended.stdout)), ["evt-0", "evt-1", "evt-2"]);
    world.check(3).await;
}

async fn wrong_usage_fails_at_once(world: World) {
    let service = world.serve().await;
    for (arguments, code) in [
        (&["tail", "--url", "no url"][..], 64),
        (&["tail", "--limit", "many"], 64),
        (&["tail", "--redis", "--redis-url", "http://localhost"], 64),
        (&["tail", "--no-such-flag"], 64),
    ] {
        world.run(arguments).await.ended_with(code);
    }
    // Only the service can validate a cursor, and a retry would not help.
    let rejected = world
        .run(&["tail", "--url", service.url(), "--after", "nonsense"])
        .await;
    assert!(
        rejected.code == Some(1) || rejected.code == Some(64),
        "{}",
        rejected.stderr
    );
    assert!(!rejected.stderr.is_empty());
    world.check(0).await;
}

on_both_stores! {
    continues_after_service_is_killed_or_stopped
    redis_outage_leaves_no_gap
    redis_source_respects_after_and_limit
    respects_topic_after_and_limit
    prints_each_event_as_one_line
    exits_with_0_on_signal
    waits_for_a_missing_service
    wrong_usage_fails_at_once
}
