//! Publishing to a healthy Redis: each stored event is on the channel and in the stream once, as `/events` lists it, and duplicates
//! are not.

use std::collections::{BTreeSet, HashSet};
use std::time::Duration;

use futures_util::future::{join, join3};
use integration_tests::eventually::{SOON, eventually};
use integration_tests::http::ask;
use integration_tests::on_both_stores;
use integration_tests::publish::{Publish, Scan, event, event_with_payload, events, publish_batch, text};
use integration_tests::redis::{Message, RedisServer, RedisTarget, Subscriber};
use integration_tests::service::{Service, Settings};
use integration_tests::stream_subscriber::StreamSubscriber;
use integration_tests::world::World;
use serde_json::Value;

/// How long the full load and its publication may take on a busy machine.
const MINUTE: Duration = Duration::from_secs(60);

async fn publish_one(service: &Service, topic: &str, event_id: &str) {
    let answer = service.publish(&event(topic, event_id)).await;
    assert_eq!(answer.status, 201, "{}", answer.text());
}

async fn flush(service: &Service) {
    let answer = ask(service.post("/_flush")).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
}

/// Publishes a last event, waits until the subscriber has received it, and returns the messages before it: there are no more.
async fn all_before_a_last_one(service: &Service, subscriber: &Subscriber) -> Vec<Message> {
    publish_one(service, "last", "last").await;
    let mut messages = subscriber.wait_for_event("last", SOON).await;
    let last = messages.pop().expect("the last one was received");
    assert_eq!(
        last.event_id(),
        "last",
        "it was published after all others were acknowledged"
    );
    messages
}

/// Asserts that each cursor occurs once, and returns them.
#[track_caller]
fn distinct(cursors: Vec<String>) -> BTreeSet<String> {
    let count = cursors.len();
    let distinct: BTreeSet<String> = cursors.into_iter().collect();
    assert_eq!(distinct.len(), count, "an event occurs twice");
    distinct
}

async fn full_load_is_published_exactly_once(world: World) {
    const UNIQUE: usize = 14_000;

    let target = RedisTarget::shared();
    let service = world.serve_with(world.settings().with_redis(&target)).await;
    let subscriber = target.subscribe().await;
    let mut stream_subscriber = StreamSubscriber::open(&service, "", None).await;
    let job = ["--events", "20000", "--duplicate-rate", "0.3"];
    let (publisher, frames) = join(
        world.load(service.url(), &job),
        stream_subscriber.collect(UNIQUE, MINUTE),
    )
    .await;
    assert_eq!(publisher.count("resent"), 0, "nothing failed, so nothing was resent");

    let messages = all_before_a_last_one(&service, &subscriber).await;
    let mut scan = Scan::default();
    scan.until(&service, "", UNIQUE + 1, SOON).await;
    scan.events.pop();
    let stored = distinct(scan.events.iter().map(|event| text(event, "cursor")).collect());
    assert_eq!(messages.len(), UNIQUE);
    assert_eq!(distinct(messages.iter().map(Message::cursor).collect()), stored);

    let streamed: Vec<String> = frames.into_iter().map(|frame| frame.id).collect();
    assert!(streamed.is_sorted(), "a stream_subscriber gets the log in its order");
    assert_eq!(distinct(streamed), stored);
    let next = stream_subscriber.collect(1, SOON).await;
    assert_eq!(next[0].event_id(), "last");

    flush(&service).await;
    let mut entries = target.entries().await;
    entries.retain(|entry| entry.event_id != "last");
    assert_eq!(
        distinct(entries.into_iter().map(|entry| entry.cursor).collect()),
        stored
    );

    let totals = world.check_published(14_001).await;
    assert_eq!(totals.received, 20_001);
    let stats = service.json("/stats").await;
    assert_eq!(stats["fanout"], "redis");
    assert_eq!(
        (&stats["outbox"]["batches"], &stats["outbox"]["parked"]),
        (&0.into(), &0.into())
    );
    target.clean_up().await;
}

async fn keeps_order_of_acknowledgements_under_load(world: World) {
    const PAIRS: usize = 200;

    let target = RedisTarget::shared();
    let service = world.serve_with(world.settings().with_redis(&target)).await;
    let subscriber = target.subscribe().await;
    let expected: Vec<String> = (0..PAIRS * 2).map(|number| format!("evt-{number}")).collect();
    let pairs = async {
        for event_id in &expected {
            publish_one(&service, "pairs", event_id).await;
        }
    };
    let load = ["--events", "8000", "--batch-size", "20", "--concurrency", "4"];
    join(world.load(service.url(), &load), pairs).await;

    let received: Vec<String> = all_before_a_last_one(&service, &subscriber)
        .await
        .iter()
        .map(Message::json)
        .filter(|event| event["topic"] == "pairs")
        .map(|event| text(&event, "event_id"))
        .collect();
    assert_eq!(received, expected, "the order of the channel");
    flush(&service).await;
    let appended: Vec<String> = target
        .entries()
        .await
        .into_iter()
        .filter(|entry| entry.topic == "pairs")
        .map(|entry| entry.event_id)
        .collect();
    assert_eq!(appended, expected, "the order of the stream");
    world.check_published(5600 + 401).await;
    target.clean_up().await;
}

async fn topic_channels_are_used_if_configured(world: World) {
    let target = RedisTarget::shared();
    let settings = world
        .settings()
        .with_redis(&target)
        .with("REDIS_TOPIC_CHANNELS", "true");
    let service = world.serve_with(settings).await;
    let channels = ["orders", "logins", "log:ins", "last"].map(|topic| target.channel_of(topic));
    let all: Vec<&str> = channels.iter().map(String::as_str).chain([target.channel()]).collect();
    let subscriber = Subscriber::to(target.url(), &all).await;
    let batch = [events("orders", 0..3), events("logins", 0..2), events("log:ins", 0..1)].concat();
    assert_eq!(service.publish(&Value::from(batch.clone())).await.status, 201);
    service.publish(&Value::from(batch)).await;
    publish_one(&service, "last", "last").await;
    let messages = subscriber.wait_for(14, SOON).await;

    for (topic, count) in [("orders", 3), ("logins", 2), ("log:ins", 1), ("last", 1)] {
        let channel = target.channel_of(topic);
        let received: Vec<Value> = messages
            .iter()
            .filter(|message| message.channel == channel)
            .map(Message::json)
            .collect();
        assert_eq!(received.len(), count, "{topic}");
        assert!(received.iter().all(|event| event["topic"] == topic), "{received:?}");
    }
    let on_main = messages.iter().filter(|message| message.channel == target.channel());
    assert_eq!(on_main.count(), 7);
    assert_eq!(messages.len(), 14);
    world.check_published(7).await;
    target.clean_up().await;
}

async fn topic_channels_are_off_by_default(world: World) {
    let target = RedisTarget::shared();
    let service = world.serve_with(world.settings().with_redis(&target)).await;
    let of_topic = target.channel_of("orders");
    let subscriber = Subscriber::to(target.url(), &[&of_topic, target.channel()]).await;
    publish_one(&service, "orders", "evt-1").await;
    let messages = all_before_a_last_one(&service, &subscriber).await;
    assert_eq!(messages.len(), 1);
    assert_eq!(messages[0].channel, target.channel());
    world.check_published(2).await;
    target.clean_up().await;
}

async fn stream_is_trimmed_to_its_configured_length(world: World) {
    let target = RedisTarget::shared();
    let settings = world.settings().with_redis(&target).with("REDIS_STREAM_MAXLEN", "100");
    let service = world.serve_with(settings).await;
    publish_batch(&service, events("orders", 0..2000)).await;
    flush(&service).await;
    // Redis trims whole nodes, of a hundred entries at most.
    let length = target.length().await;
    assert!((100..=200).contains(&length), "{length} entries");
    world.check_published(2000).await;
    target.clean_up().await;
}

async fn message_equals_listed_event_byte_for_byte(world: World) {
    let target = RedisTarget::shared();
    let service = world.serve_with(world.settings().with_redis(&target)).await;
    let subscriber = target.subscribe().await;
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
    let entries = target.entries().await;
    let listed = service.fetch("/events").await;
    let events = listed.json()["events"].as_array().expect("a list").clone();
    assert_eq!((messages.len(), entries.len(), events.len()), (6, 6, 6));
    for (number, payload) in payloads.iter().enumerate() {
        let (message, entry) = (&messages[number], &entries[number]);
        assert_eq!(message.json(), events[number]);
        assert!(
            listed.text().contains(&message.event),
            "{} is not listed like this",
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
    world.check_published(6).await;
    target.clean_up().await;
}

async fn flush_waits_for_redis(world: World) {
    let target = RedisTarget::shared();
    let service = world.serve_with(world.settings().with_redis(&target)).await;
    for round in 1..=5 {
        let batch = Value::from(events(&format!("round-{round}"), 0..1000));
        let accepted = service.publish_preferring("respond-async", &batch).await;
        assert_eq!(accepted.status, 202, "{}", accepted.text());
        flush(&service).await;
        assert_eq!(
            target.length().await,
            round * 1000,
            "everything is in Redis when the flush is answered"
        );
    }
    world.check_published(5000).await;
    target.clean_up().await;
}

async fn event_sent_to_two_replicas_is_published_once(world: World) {
    let target = RedisTarget::shared();
    let replicas = world.serve_replicas_with(world.settings().with_redis(&target)).await;
    let subscriber = target.subscribe().await;
    let same = ["--events", "5000", "--seed", "7", "--duplicate-rate", "0.2"];
    // The load generator reports an error, because half of its events are duplicates of the other one's.
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
    world.check_published(4001).await;
    target.clean_up().await;
}

/// A Redis that is paused answers nothing, and that is no reason to set an event aside.
async fn pause_of_redis_makes_no_dead_letter(world: World) {
    let redis = RedisServer::new().await;
    let target = RedisTarget::on(&redis);
    let settings = world.settings().with_redis(&target);
    let service = world
        .serve_with(settings.with("EVENTSIEVE_REDIS_TIMEOUT", "200ms"))
        .await;
    let _: String = redis.command(&["CLIENT", "PAUSE", "600000", "WRITE"]).await;
    publish_one(&service, "orders", "1").await;
    eventually(MINUTE, async || {
        let errors = service
            .metric("eventsieve_sink_errors_total{kind=\"unreachable\"}")
            .await;
        anyhow::ensure!(errors > 6.0, "{errors} errors");
        Ok(())
    })
    .await;
    let stats = service.fetch("/stats").await.json();
    assert_eq!(stats["outbox"]["parked"], 0, "{stats}");
    let _: String = redis.command(&["CLIENT", "UNPAUSE"]).await;
    world.check_published(1).await;
}

/// A Redis that ends connections with much unread input, as by `maxmemory-clients`, gets less at a time: a batch must not be sent for ever,
/// and hold up what comes behind it.
async fn batch_that_is_too_much_for_redis_is_published_in_parts(world: World) {
    const EVENTS: usize = 30;

    let redis = RedisServer::with(&["--maxmemory-clients", "3mb"]).await;
    let target = RedisTarget::on(&redis);
    let service = world.serve_with(world.settings().with_redis(&target)).await;
    let large: Vec<Value> = (0..EVENTS)
        .map(|number| {
            let mut event = event("large", &format!("large-{number}"));
            event["payload"] = serde_json::json!({"text": "x".repeat(200_000)});
            event
        })
        .collect();
    assert_eq!(service.publish(&Value::from(large)).await.status, 201);
    publish_one(&service, "small", "1").await;
    world.check_published(i64::try_from(EVENTS + 1).expect("a count")).await;
    // Some may be there twice. All of them would be too much for one answer.
    assert!(target.length().await > EVENTS);
    let stats = service.fetch("/stats").await.json();
    assert_eq!(stats["outbox"]["parked"], 0, "{stats}");
}

async fn without_redis_outbox_stays_empty(world: World) {
    let service = world.serve().await;
    let mut stream_subscriber = StreamSubscriber::open(&service, "", None).await;
    service.publish(&Value::from(events("orders", 0..10))).await;
    service.publish(&Value::from(events("orders", 5..15))).await;
    flush(&service).await;
    assert_eq!(stream_subscriber.collect(15, SOON).await.len(), 15);
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

async fn events_stored_before_redis_are_not_published(world: World) {
    let mut service = world.serve().await;
    service.publish(&Value::from(events("orders", 0..10))).await;
    service.stop().await;
    let target = RedisTarget::shared();
    let service = world.serve_with(world.settings().with_redis(&target)).await;
    let subscriber = target.subscribe().await;
    service.publish(&Value::from(events("orders", 5..12))).await;
    assert_eq!(all_before_a_last_one(&service, &subscriber).await.len(), 2);
    flush(&service).await;
    assert_eq!(target.length().await, 3);
    world.check_published(13).await;
    target.clean_up().await;
}

#[tokio::test]
async fn password_works_and_is_never_shown() {
    const PASSWORD: &str = "right-Sw0rdfish";

    let server = RedisServer::with(&["--requirepass", PASSWORD]).await;
    let target = RedisTarget::at(&server.url_for("", PASSWORD));
    let world = World::embedded();
    let file = world.sqlite().folder().join("redis-url");
    std::fs::write(&file, format!("{}\n", target.url())).expect("a file in a folder of our own");
    let from_a_file = world
        .settings()
        .with_redis(&target)
        .without("REDIS_URL")
        .with("REDIS_URL_FILE", file.to_str().expect("UTF-8"));
    let service = world.serve_with(from_a_file.with("RUST_LOG", "debug")).await;
    let subscriber = target.subscribe().await;
    publish_one(&service, "orders", "evt-1").await;
    subscriber.wait_for(1, SOON).await;
    world.check_published(1).await;

    let wrong = RedisTarget::at(&server.url_for("", "wrong-Sw0rdfish"));
    let other = World::embedded();
    let settings: Settings = other.settings().with_redis(&wrong);
    let rejected = other.serve_with(settings).await;
    publish_one(&rejected, "orders", "evt-1").await;
    eventually(SOON, async || {
        let health = rejected.json("/health").await;
        anyhow::ensure!(health["fanout"]["status"] == "down", "{health}");
        assert!(health["fanout"]["reason"].is_string(), "{health}");
        assert_eq!(health["status"], "degraded");
        assert!(!health.to_string().contains("Sw0rdfish"), "{health}");
        Ok(())
    })
    .await;
    for service in [&service, &rejected] {
        assert!(!service.log().contains("Sw0rdfish"), "{}", service.log());
    }
}

#[tokio::test]
async fn each_replica_publishes_its_own_events() {
    let target = RedisTarget::shared();
    let world = World::new().await;
    let settings = world.settings().with_redis(&target);
    let services = world.serve_all([settings.clone(), settings.clone(), settings]).await;
    let subscriber = target.subscribe().await;
    let [first, second, third] = &services;
    let part = ["--events", "3000", "--duplicate-rate", "0.3"];
    join3(
        world.load(first.url(), &part),
        world.load(second.url(), &part),
        world.load(third.url(), &part),
    )
    .await;
    let messages = subscriber.wait_for(6300, SOON).await;
    world.check_published(6300).await;
    assert_eq!(distinct(messages.iter().map(Message::cursor).collect()).len(), 6300);
    assert_eq!(target.length().await, 6300);
    assert_eq!(subscriber.count(), 6300);
    target.clean_up().await;
}

on_both_stores! {
    pause_of_redis_makes_no_dead_letter
    batch_that_is_too_much_for_redis_is_published_in_parts
    full_load_is_published_exactly_once
    keeps_order_of_acknowledgements_under_load
    topic_channels_are_used_if_configured
    topic_channels_are_off_by_default
    stream_is_trimmed_to_its_configured_length
    message_equals_listed_event_byte_for_byte
    flush_waits_for_redis
    event_sent_to_two_replicas_is_published_once
    without_redis_outbox_stays_empty
    events_stored_before_redis_are_not_published
}
