//! The fan-out to Redis in a world that is well: each stored event is on the channel and in the stream once, as `/events`
//! shows it, and a duplicate never.

use std::collections::{BTreeSet, HashSet};
use std::time::Duration;

use futures_util::future::{join, join3};
use integration_tests::eventually::{SOON, eventually};
use integration_tests::follower::Follower;
use integration_tests::http::ask;
use integration_tests::on_both_stores;
use integration_tests::publish::{Publish, Walk, event, event_with_payload, events, publish_batch, text};
use integration_tests::redis::{Message, Outlet, RedisServer, Subscriber};
use integration_tests::service::{Service, Settings};
use integration_tests::world::World;
use serde_json::Value;

/// How long the main job and its fan-out may take, on a busy machine.
const MINUTE: Duration = Duration::from_secs(60);

async fn publish_one(service: &Service, topic: &str, event_id: &str) {
    let answer = service.publish(&event(topic, event_id)).await;
    assert_eq!(answer.status, 201, "{}", answer.text());
}

async fn flush(service: &Service) {
    let answer = ask(service.post("/_flush")).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
}

/// Publishes one event more, waits until the subscriber has it, and gives back what came before it: there is nothing to wait
/// for any more.
async fn all_before_a_last_one(service: &Service, subscriber: &Subscriber) -> Vec<Message> {
    publish_one(service, "last", "last").await;
    let mut messages = subscriber.wait_for_event("last", SOON).await;
    let last = messages.pop().expect("the last one has come");
    assert_eq!(
        last.event_id(),
        "last",
        "it was published after all others were acknowledged"
    );
    messages
}

/// Asserts that each cursor is there once, and gives them back.
#[track_caller]
fn distinct(cursors: Vec<String>) -> BTreeSet<String> {
    let count = cursors.len();
    let distinct: BTreeSet<String> = cursors.into_iter().collect();
    assert_eq!(distinct.len(), count, "something came twice");
    distinct
}

async fn the_main_job_reaches_the_channel_the_stream_and_a_follower_exactly_once(world: World) {
    const UNIQUE: usize = 14_000;

    let outlet = Outlet::shared();
    let service = world.serve_with(world.settings().with_redis(&outlet)).await;
    let subscriber = outlet.subscribe().await;
    let mut follower = Follower::open(&service, "", None).await;
    let job = ["--events", "20000", "--duplicate-rate", "0.3"];
    let (publisher, frames) = join(world.load(service.url(), &job), follower.collect(UNIQUE, MINUTE)).await;
    assert_eq!(
        publisher.figure("resent"),
        0,
        "nothing failed, so nothing was sent again"
    );

    let messages = all_before_a_last_one(&service, &subscriber).await;
    let mut walk = Walk::default();
    walk.until(&service, "", UNIQUE + 1, SOON).await;
    walk.events.pop();
    let stored = distinct(walk.events.iter().map(|event| text(event, "cursor")).collect());
    assert_eq!(messages.len(), UNIQUE);
    assert_eq!(distinct(messages.iter().map(Message::cursor).collect()), stored);

    let followed: Vec<String> = frames.into_iter().map(|frame| frame.id).collect();
    assert!(followed.is_sorted(), "a follower gets the log in its order");
    assert_eq!(distinct(followed), stored);
    let next = follower.collect(1, SOON).await;
    assert_eq!(next[0].event_id(), "last");

    flush(&service).await;
    let mut entries = outlet.entries().await;
    entries.retain(|entry| entry.event_id != "last");
    assert_eq!(
        distinct(entries.into_iter().map(|entry| entry.cursor).collect()),
        stored
    );

    let totals = world.check_fanned_out(14_001).await;
    assert_eq!(totals.received, 20_001);
    let stats = service.json("/stats").await;
    assert_eq!(stats["fanout"], "redis");
    assert_eq!(
        (&stats["outbox"]["batches"], &stats["outbox"]["parked"]),
        (&0.into(), &0.into())
    );
    outlet.clean_up().await;
}

async fn what_was_published_after_an_acknowledgement_comes_after_it_under_load(world: World) {
    const PAIRS: usize = 200;

    let outlet = Outlet::shared();
    let service = world.serve_with(world.settings().with_redis(&outlet)).await;
    let subscriber = outlet.subscribe().await;
    let expected: Vec<String> = (0..PAIRS * 2).map(|number| format!("evt-{number}")).collect();
    let pairs = async {
        for event_id in &expected {
            publish_one(&service, "pairs", event_id).await;
        }
    };
    let load = ["--events", "8000", "--batch-size", "20", "--concurrency", "4"];
    join(world.load(service.url(), &load), pairs).await;

    let told: Vec<String> = all_before_a_last_one(&service, &subscriber)
        .await
        .iter()
        .map(Message::json)
        .filter(|event| event["topic"] == "pairs")
        .map(|event| text(&event, "event_id"))
        .collect();
    assert_eq!(told, expected, "the order of the channel");
    flush(&service).await;
    let appended: Vec<String> = outlet
        .entries()
        .await
        .into_iter()
        .filter(|entry| entry.topic == "pairs")
        .map(|entry| entry.event_id)
        .collect();
    assert_eq!(appended, expected, "the order of the stream");
    world.check_fanned_out(5600 + 401).await;
    outlet.clean_up().await;
}

async fn each_topic_has_a_channel_of_its_own_where_that_is_wished(world: World) {
    let outlet = Outlet::shared();
    let settings = world
        .settings()
        .with_redis(&outlet)
        .with("REDIS_TOPIC_CHANNELS", "true");
    let service = world.serve_with(settings).await;
    let channels = ["orders", "logins", "log:ins", "last"].map(|topic| outlet.channel_of(topic));
    let all: Vec<&str> = channels.iter().map(String::as_str).chain([outlet.channel()]).collect();
    let subscriber = Subscriber::to(outlet.url(), &all).await;
    let batch = [events("orders", 0..3), events("logins", 0..2), events("log:ins", 0..1)].concat();
    assert_eq!(service.publish(&Value::from(batch.clone())).await.status, 201);
    service.publish(&Value::from(batch)).await;
    publish_one(&service, "last", "last").await;
    let messages = subscriber.wait_for(14, SOON).await;

    for (topic, count) in [("orders", 3), ("logins", 2), ("log:ins", 1), ("last", 1)] {
        let channel = outlet.channel_of(topic);
        let told: Vec<Value> = messages
            .iter()
            .filter(|message| message.channel == channel)
            .map(Message::json)
            .collect();
        assert_eq!(told.len(), count, "{topic}");
        assert!(told.iter().all(|event| event["topic"] == topic), "{told:?}");
    }
    let on_main = messages.iter().filter(|message| message.channel == outlet.channel());
    assert_eq!(on_main.count(), 7);
    assert_eq!(messages.len(), 14);
    world.check_fanned_out(7).await;
    outlet.clean_up().await;
}

async fn topics_have_no_channels_unless_that_is_wished(world: World) {
    let outlet = Outlet::shared();
    let service = world.serve_with(world.settings().with_redis(&outlet)).await;
    let of_topic = outlet.channel_of("orders");
    let subscriber = Subscriber::to(outlet.url(), &[&of_topic, outlet.channel()]).await;
    publish_one(&service, "orders", "evt-1").await;
    let messages = all_before_a_last_one(&service, &subscriber).await;
    assert_eq!(messages.len(), 1);
    assert_eq!(messages[0].channel, outlet.channel());
    world.check_fanned_out(2).await;
    outlet.clean_up().await;
}

async fn the_stream_keeps_about_as_many_events_as_it_is_told_to(world: World) {
    let outlet = Outlet::shared();
    let settings = world.settings().with_redis(&outlet).with("REDIS_STREAM_MAXLEN", "100");
    let service = world.serve_with(settings).await;
    publish_batch(&service, events("orders", 0..2000)).await;
    flush(&service).await;
    // Redis trims whole nodes, of a hundred entries at most.
    let length = outlet.length().await;
    assert!((100..=200).contains(&length), "{length} entries");
    world.check_fanned_out(2000).await;
    outlet.clean_up().await;
}

async fn a_message_is_byte_for_byte_what_the_events_are_listed_as(world: World) {
    let outlet = Outlet::shared();
    let service = world.serve_with(world.settings().with_redis(&outlet)).await;
    let subscriber = outlet.subscribe().await;
    let large = format!(r#"{{"text":"{}"}}"#, "x".repeat(200_000));
    let payloads = [
        "{}",
        r#"{"z": 1, "a":2,  "z":3}"#,
        r#"{"n": 9007199254740993, "f": 1.0, "e": 1e2}"#,
        "{\n\t\"lines\" : [1,\r\n 2]\n}",
        r#"{"text":"ü \u00fc \u2028 \" \\ / \n ","🦀":null}"#,
        &large,
    ];
    for (number, payload) in payloads.iter().enumerate() {
        let body = event_with_payload("orders-ü", &format!("evt \"{number}\""), payload);
        let answer = service.publish_bytes("application/json", body).await;
        assert_eq!(answer.status, 201, "{}", answer.text());
    }
    let messages = subscriber.wait_for(payloads.len(), SOON).await;
    flush(&service).await;
    let entries = outlet.entries().await;
    let listed = service.fetch("/events").await;
    let events = listed.json()["events"].as_array().expect("a list").clone();
    assert_eq!((messages.len(), entries.len(), events.len()), (6, 6, 6));
    for (number, payload) in payloads.iter().enumerate() {
        let (message, entry) = (&messages[number], &entries[number]);
        assert_eq!(message.json(), events[number]);
        assert!(
            listed.text().contains(&message.event),
            "{} is not listed so",
            message.event
        );
        assert!(
            message.event.contains(payload),
            "{} is not as it was sent",
            message.event
        );
        assert_eq!(message.event, entry.event);
        for (field, member) in [
            (&entry.topic, "topic"),
            (&entry.event_id, "event_id"),
            (&entry.cursor, "cursor"),
        ] {
            assert_eq!(*field, text(&events[number], member));
        }
    }
    world.check_fanned_out(6).await;
    outlet.clean_up().await;
}

async fn a_flush_returns_once_redis_has_all_that_was_accepted(world: World) {
    let outlet = Outlet::shared();
    let service = world.serve_with(world.settings().with_redis(&outlet)).await;
    for round in 1..=5 {
        let batch = Value::from(events(&format!("round-{round}"), 0..1000));
        let accepted = service.publish_preferring("respond-async", &batch).await;
        assert_eq!(accepted.status, 202, "{}", accepted.text());
        flush(&service).await;
        assert_eq!(
            outlet.length().await,
            round * 1000,
            "in Redis as soon as the answer is there"
        );
    }
    world.check_fanned_out(5000).await;
    outlet.clean_up().await;
}

async fn what_several_replicas_are_sent_at_once_is_published_once(world: World) {
    let outlet = Outlet::shared();
    let replicas = world.serve_replicas_with(world.settings().with_redis(&outlet)).await;
    let subscriber = outlet.subscribe().await;
    let same = ["--events", "5000", "--seed", "7", "--duplicate-rate", "0.2"];
    // The publisher counts what its own events became, and here somebody else is as often the first.
    let sent = async |service: &Service| {
        let arguments = [&["load", "--url", service.url()], &same[..]].concat();
        world.run(&arguments).await
    };
    join(sent(replicas.one()), sent(replicas.other())).await;
    flush(replicas.one()).await;
    flush(replicas.other()).await;
    let messages = all_before_a_last_one(replicas.one(), &subscriber).await;
    assert_eq!(messages.len(), 4000);
    distinct(messages.iter().map(Message::cursor).collect());
    let ids: HashSet<String> = messages.iter().map(Message::event_id).collect();
    assert!(!ids.contains("last"));
    world.check_fanned_out(4001).await;
    outlet.clean_up().await;
}

async fn without_a_redis_the_fan_out_stays_inside_the_process_and_owes_nothing(world: World) {
    let service = world.serve().await;
    let mut follower = Follower::open(&service, "", None).await;
    service.publish(&Value::from(events("orders", 0..10))).await;
    service.publish(&Value::from(events("orders", 5..15))).await;
    flush(&service).await;
    assert_eq!(follower.collect(15, SOON).await.len(), 15);
    let stats = service.json("/stats").await;
    assert_eq!(stats["fanout"], "process");
    assert_eq!(stats["outbox"]["batches"], 0);
    assert_eq!(world.unpublished().await, 0);
    let health = service.json("/health").await;
    assert_eq!(
        (&health["status"], &health["fanout"]["kind"]),
        (&"healthy".into(), &"process".into())
    );
    world.check(15).await;
}

async fn what_was_stored_before_there_was_a_redis_is_not_published_later(world: World) {
    let mut service = world.serve().await;
    service.publish(&Value::from(events("orders", 0..10))).await;
    service.stop().await;
    let outlet = Outlet::shared();
    let service = world.serve_with(world.settings().with_redis(&outlet)).await;
    let subscriber = outlet.subscribe().await;
    service.publish(&Value::from(events("orders", 5..12))).await;
    assert_eq!(all_before_a_last_one(&service, &subscriber).await.len(), 2);
    flush(&service).await;
    assert_eq!(outlet.length().await, 3);
    world.check_fanned_out(13).await;
    outlet.clean_up().await;
}

#[tokio::test]
async fn a_redis_with_a_password_is_used_and_its_password_never_shown() {
    const PASSWORD: &str = "right-Sw0rdfish";

    let server = RedisServer::with(&["--requirepass", PASSWORD]).await;
    let outlet = Outlet::at(&server.url_for("", PASSWORD));
    let world = World::embedded();
    let file = world.sqlite().folder().join("redis-url");
    std::fs::write(&file, format!("{}\n", outlet.url())).expect("a file in a folder of our own");
    let from_a_file = world
        .settings()
        .with_redis(&outlet)
        .without("REDIS_URL")
        .with("REDIS_URL_FILE", file.to_str().expect("UTF-8"));
    let service = world.serve_with(from_a_file.with("RUST_LOG", "debug")).await;
    let subscriber = outlet.subscribe().await;
    publish_one(&service, "orders", "evt-1").await;
    subscriber.wait_for(1, SOON).await;
    world.check_fanned_out(1).await;

    let wrong = Outlet::at(&server.url_for("", "wrong-Sw0rdfish"));
    let refused = World::embedded();
    let settings: Settings = refused.settings().with_redis(&wrong);
    let unlucky = refused.serve_with(settings).await;
    publish_one(&unlucky, "orders", "evt-1").await;
    eventually(SOON, async || {
        let health = unlucky.json("/health").await;
        anyhow::ensure!(health["fanout"]["status"] == "down", "{health}");
        assert!(health["fanout"]["reason"].is_string(), "{health}");
        assert_eq!(health["status"], "degraded");
        assert!(!health.to_string().contains("Sw0rdfish"), "{health}");
        Ok(())
    })
    .await;
    for service in [&service, &unlucky] {
        assert!(!service.log().contains("Sw0rdfish"), "{}", service.log());
    }
}

#[tokio::test]
async fn three_replicas_publish_what_each_of_them_stored() {
    let outlet = Outlet::shared();
    let world = World::new().await;
    let settings = world.settings().with_redis(&outlet);
    let services = world.serve_all([settings.clone(), settings.clone(), settings]).await;
    let subscriber = outlet.subscribe().await;
    let [first, second, third] = &services;
    let part = ["--events", "3000", "--duplicate-rate", "0.3"];
    join3(
        world.load(first.url(), &part),
        world.load(second.url(), &part),
        world.load(third.url(), &part),
    )
    .await;
    let messages = subscriber.wait_for(6300, SOON).await;
    world.check_fanned_out(6300).await;
    assert_eq!(distinct(messages.iter().map(Message::cursor).collect()).len(), 6300);
    assert_eq!(outlet.length().await, 6300);
    assert_eq!(subscriber.count(), 6300);
    outlet.clean_up().await;
}

on_both_stores! {
    the_main_job_reaches_the_channel_the_stream_and_a_follower_exactly_once
    what_was_published_after_an_acknowledgement_comes_after_it_under_load
    each_topic_has_a_channel_of_its_own_where_that_is_wished
    topics_have_no_channels_unless_that_is_wished
    the_stream_keeps_about_as_many_events_as_it_is_told_to
    a_message_is_byte_for_byte_what_the_events_are_listed_as
    a_flush_returns_once_redis_has_all_that_was_accepted
    what_several_replicas_are_sent_at_once_is_published_once
    without_a_redis_the_fan_out_stays_inside_the_process_and_owes_nothing
    what_was_stored_before_there_was_a_redis_is_not_published_later
}
