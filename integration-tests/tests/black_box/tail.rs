//! `eventsieve tail`: events as they come, one line each, none missing and none twice, whatever breaks on the way.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::ensure;
use futures_util::future::join;
use integration_tests::eventually::{SOON, eventually};
use integration_tests::on_both_stores;
use integration_tests::postgres::free_port;
use integration_tests::program::Program;
use integration_tests::publish::{Publish, Walk, event, event_with_payload, events, publish_batch, text};
use integration_tests::redis::{Outlet, RedisServer};
use integration_tests::service::{Service, Settings, Signal};
use integration_tests::world::World;
use serde_json::Value;

/// How long a gap may take to be filled, with the longest pause between two tries.
const CATCH_UP: Duration = Duration::from_secs(40);

/// A `tail` that knows nothing but its arguments.
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

/// A `tail` of a channel, that is subscribed.
async fn tail_redis(service: &Service, outlet: &Outlet, arguments: &[&str]) -> Program {
    let redis = [
        "--redis",
        "--redis-url",
        outlet.url(),
        "--redis-channel",
        outlet.channel(),
    ];
    let tail = tail(service.url(), &[&redis, arguments].concat());
    eventually(SOON, async || {
        ensure!(outlet.subscribers().await > 0, "not subscribed: {}", tail.stderr());
        Ok(())
    })
    .await;
    tail
}

/// The events of whole lines.
fn told(stdout: &str) -> Vec<Value> {
    let whole = stdout.rfind('\n').map_or("", |end| &stdout[..end]);
    whole
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect()
}

fn ids(events: &[Value]) -> Vec<String> {
    events.iter().map(|event| text(event, "event_id")).collect()
}

/// Waits until it has told of `count` events, and gives them back.
async fn tells(tail: &Program, count: usize) -> Vec<Value> {
    eventually(CATCH_UP, async || {
        let told = told(&tail.stdout());
        ensure!(told.len() >= count, "{} of {count}: {}", told.len(), tail.stderr());
        Ok(told)
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

/// Asserts that these are all events that are stored, each once and as a walk shows it.
async fn assert_all(service: &Service, told: &[Value]) {
    let mut walk = Walk::default();
    walk.until(service, "", told.len(), SOON).await;
    let cursors: BTreeSet<String> = told.iter().map(|event| text(event, "cursor")).collect();
    assert_eq!(cursors.len(), told.len(), "something was told twice");
    for event in &walk.events {
        assert!(cursors.contains(&text(event, "cursor")), "never told: {event}");
    }
}

async fn tail_goes_on_by_itself_when_the_service_is_killed_and_stopped(world: World) {
    let port = free_port().to_string();
    let mut service = world.serve_with(world.settings().with("PORT", &port)).await;
    let url = service.url().to_owned();
    let following = tail(&url, &["--after", "", "--limit", "4000"]);
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
    tells(&following, 4000).await;
    let ended = following.ended().await;
    ended.ended_with(0);
    let told = told(&ended.stdout);
    assert_eq!(told.len(), 4000);
    assert!(
        told.is_sorted_by(|one, next| text(one, "cursor") < text(next, "cursor")),
        "the log in its order"
    );
    assert_all(&service, &told).await;
    assert!(!ended.stderr.is_empty(), "it says that the service was away");
    world.check(4000).await;
}

async fn tail_of_redis_fills_the_gap_when_redis_was_away(world: World) {
    let mut redis = RedisServer::new().await;
    let outlet = Outlet::on(&redis);
    let service = world.serve_with(world.settings().with_redis(&outlet)).await;
    publish_batch(&service, events("before", 0..10)).await;
    world.fanned_out(SOON).await;
    // It begins at the settled edge, which transactions of others on the server hold back.
    Walk::default().until(&service, "", 10, SOON).await;
    let following = tail_redis(&service, &outlet, &[]).await;
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
    world.fanned_out(CATCH_UP).await;
    tells(&following, 4000).await;
    // What is told twice would come before this, or instead of it.
    publish_batch(&service, vec![event("after", "last")]).await;
    tells(&following, 4001).await;
    let ended = following.stop(Signal::Term).await;
    ended.ended_with(0);
    let mut told = told(&ended.stdout);
    assert_eq!(told.len(), 4001);
    assert_eq!(ids(&told[4000..]), ["last"]);
    assert!(
        told.iter().all(|event| event["topic"] != "before"),
        "without --after it begins with what comes next"
    );
    let mut walk = Walk::default();
    walk.until(&service, "", 4011, SOON).await;
    told.extend_from_slice(&walk.events[..10]);
    assert_all(&service, &told).await;
    world.check_fanned_out(4011).await;
}

async fn tail_of_redis_begins_where_it_is_asked_to_and_ends_at_its_limit(world: World) {
    let outlet = Outlet::shared();
    let service = world.serve_with(world.settings().with_redis(&outlet)).await;
    let cursors = publish_batch(&service, events("orders", 0..20)).await;
    publish_batch(&service, events("logins", 0..20)).await;
    let all = tail_redis(&service, &outlet, &["--after", "", "--limit", "45"]).await;
    let orders = ["--after", &cursors[14], "--topic", "orders", "--limit", "10"];
    let orders = tail_redis(&service, &outlet, &orders).await;
    tells(&all, 40).await;
    tells(&orders, 5).await;
    publish_batch(&service, [events("orders", 20..25), events("logins", 20..25)].concat()).await;
    let ended = orders.ended().await;
    ended.ended_with(0);
    let expected: Vec<String> = (15..25).map(|number| format!("evt-{number}")).collect();
    assert_eq!(ids(&told(&ended.stdout)), expected);
    let ended = all.ended().await;
    ended.ended_with(0);
    assert_eq!(told(&ended.stdout).len(), 45);
    world.check_fanned_out(50).await;
    outlet.clean_up().await;
}

async fn tail_shows_a_topic_from_a_place_on_and_ends_at_its_limit(world: World) {
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
        assert_eq!(ids(&told(&ended.stdout)), expected(begin..end), "{arguments:?}");
    }
    let all = tail(service.url(), &["--after", "", "--limit", "20"]).ended().await;
    all.ended_with(0);
    assert_all(&service, &told(&all.stdout)).await;
    world.check(20).await;
}

async fn an_event_is_one_line_as_it_comes_whatever_its_payload(world: World) {
    let service = world.serve().await;
    let following = tail(service.url(), &["--after", ""]);
    let body = event_with_payload("orders", "evt-1", "{\n\"a\":\r\n9007199254740993, \"text\":\"\\n\"}");
    assert_eq!(service.publish_bytes("application/json", body).await.status, 201);
    tells(&following, 1).await;
    publish_batch(&service, events("orders", 2..4)).await;
    let told = tells(&following, 3).await;
    assert_eq!(ids(&told), ["evt-1", "evt-2", "evt-3"]);
    assert!(
        following
            .stdout()
            .lines()
            .next()
            .is_some_and(|line| line.contains("9007199254740993"))
    );
    let ended = following.stop(Signal::Interrupt).await;
    ended.ended_with(0);
    assert_eq!(ended.stdout.lines().count(), 3, "{}", ended.stdout);
    world.check(3).await;
}

async fn tail_ends_well_when_it_is_told_to(world: World) {
    let outlet = Outlet::shared();
    let service = world.serve_with(world.settings().with_redis(&outlet)).await;
    for signal in [Signal::Interrupt, Signal::Term] {
        let following = tail(service.url(), &["--after", ""]);
        let of_redis = tail_redis(&service, &outlet, &[]).await;
        publish_batch(&service, vec![event("orders", &format!("evt-{signal:?}"))]).await;
        tells(&following, 1).await;
        tells(&of_redis, 1).await;
        following.stop(signal).await.ended_with(0);
        of_redis.stop(signal).await.ended_with(0);
    }
    // Also while there is nobody to follow.
    let mut alone = tail(&format!("http://127.0.0.1:{}", free_port()), &[]);
    eventually(SOON, async || {
        ensure!(!alone.stderr().is_empty(), "it says nothing");
        Ok(())
    })
    .await;
    alone.runs();
    alone.stop(Signal::Interrupt).await.ended_with(0);
    world.check_fanned_out(2).await;
    outlet.clean_up().await;
}

async fn tail_waits_for_a_service_that_is_not_there_and_says_so(world: World) {
    let port = free_port();
    let url = format!("http://127.0.0.1:{port}");
    let mut following = tail(&url, &["--after", "", "--limit", "3"]);
    eventually(SOON, async || {
        ensure!(following.stderr().contains(&port.to_string()), "{}", following.stderr());
        Ok(())
    })
    .await;
    following.runs();
    assert_eq!(following.stdout(), "", "what it has to say of itself is no event");
    let service = world.serve_with(world.settings().with("PORT", &port.to_string())).await;
    publish_batch(&service, events("orders", 0..3)).await;
    let ended = following.ended().await;
    ended.ended_with(0);
    assert_eq!(ids(&told(&ended.stdout)), ["evt-0", "evt-1", "evt-2"]);
    world.check(3).await;
}

async fn wrong_usage_of_tail_is_told_at_once(world: World) {
    let service = world.serve().await;
    for (arguments, code) in [
        (&["tail", "--url", "no url"][..], 64),
        (&["tail", "--limit", "many"], 64),
        (&["tail", "--redis", "--redis-url", "http://localhost"], 64),
        (&["tail", "--no-such-flag"], 64),
    ] {
        world.run(arguments).await.ended_with(code);
    }
    // A cursor is the service's to judge: that it is none will not change by trying again.
    let refused = world
        .run(&["tail", "--url", service.url(), "--after", "nonsense"])
        .await;
    assert!(
        refused.code == Some(1) || refused.code == Some(64),
        "{}",
        refused.stderr
    );
    assert!(!refused.stderr.is_empty());
    world.check(0).await;
}

on_both_stores! {
    tail_goes_on_by_itself_when_the_service_is_killed_and_stopped
    tail_of_redis_fills_the_gap_when_redis_was_away
    tail_of_redis_begins_where_it_is_asked_to_and_ends_at_its_limit
    tail_shows_a_topic_from_a_place_on_and_ends_at_its_limit
    an_event_is_one_line_as_it_comes_whatever_its_payload
    tail_ends_well_when_it_is_told_to
    tail_waits_for_a_service_that_is_not_there_and_says_so
    wrong_usage_of_tail_is_told_at_once
}
