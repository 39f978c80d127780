//! Redis behind Sentinels: the master is asked for, and a failover is followed.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::ensure;
use futures_util::future::join;
use integration_tests::eventually::{SOON, eventually};
use integration_tests::program::Program;
use integration_tests::publish::{Publish, event, events, text};
use integration_tests::redis::{RedisTarget, Subscriber};
use integration_tests::sentinels::{PASSWORD, Sentinels};
use integration_tests::service::{Service, Settings};
use integration_tests::world::World;
use serde_json::Value;

/// How many events are published at once.
const BATCH: usize = 5;

/// A service on these Sentinels.
fn settings(world: &World, sentinels: &Sentinels, target: &RedisTarget) -> Settings {
    let settings = world.settings().with_redis(target).with("REDIS_URL", &sentinels.url());
    settings.with("REDIS_SENTINEL_PASSWORD", PASSWORD)
}

/// Publishes one batch after another, each with ids that follow, until `stop`; returns how many events.
async fn publish_until(service: &Service, stop: &AtomicBool) -> usize {
    let mut count = 0;
    while !stop.load(Ordering::Relaxed) {
        let batch = Value::from(events("orders", count..count + BATCH));
        assert_eq!(service.publish(&batch).await.status, 201);
        count += BATCH;
    }
    count
}

#[tokio::test]
async fn failover_is_followed_and_loses_nothing() {
    let world = World::new().await;
    let mut sentinels = Sentinels::new().await;
    let target = RedisTarget::on(&sentinels.first);
    let mut subscribers = vec![target.subscribe().await];
    let service = world.serve_with(settings(&world, &sentinels, &target)).await;
    let url = sentinels.url();
    let arguments = [
        "tail",
        "--redis",
        "--url",
        service.url(),
        "--redis-url",
        &url,
        "--redis-channel",
        target.channel(),
    ];
    let tail = settings(&world, &sentinels, &target)
        .without("REDIS_URL")
        .arguments(&arguments);
    let tail = Program::start(&tail.without("HOST").without("PORT"));
    eventually(SOON, async || {
        ensure!(target.subscribers().await == 2, "{}", tail.stderr());
        Ok(())
    })
    .await;

    let stop = AtomicBool::new(false);
    let failover = async {
        subscribers[0].wait_for(20 * BATCH, SOON).await;
        sentinels.first.kill();
        eventually(SOON, async || {
            ensure!(sentinels.master().await == sentinels.second.port(), "no other master");
            Ok(())
        })
        .await;
        // The service publishes to the new master.
        subscribers.push(Subscriber::to(&sentinels.second.url(), &[target.channel()]).await);
        subscribers[1].wait_for(20 * BATCH, SOON).await;
        stop.store(true, Ordering::Relaxed);
    };
    let ((), count) = join(failover, publish_until(&service, &stop)).await;
    world
        .check_published(i64::try_from(count).expect("some thousands"))
        .await;
    let mut seen: BTreeSet<String> = subscribers.iter().flat_map(Subscriber::event_ids).collect();
    let at_second = target.by(&sentinels.second.url());
    seen.extend(at_second.entries().await.into_iter().map(|entry| entry.event_id));
    assert_eq!(seen.len(), count, "what arrived");
    eventually(Duration::from_secs(40), async || {
        let printed = tail.stdout();
        let ids: Vec<String> = printed
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok())
            .map(|event: Value| text(&event, "event_id"))
            .collect();
        let different: BTreeSet<&String> = ids.iter().collect();
        assert_eq!(different.len(), ids.len(), "an event was printed twice");
        ensure!(ids.len() == count, "{} of {count}: {}", ids.len(), tail.stderr());
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn master_that_steps_down_is_left() {
    let world = World::embedded();
    let sentinels = Sentinels::new().await;
    let target = RedisTarget::on(&sentinels.first);
    let service = world.serve_with(settings(&world, &sentinels, &target)).await;
    assert_eq!(service.publish(&event("t", "before")).await.status, 201);
    world.check_published(1).await;
    sentinels.step_down().await;
    let subscriber = Subscriber::to(&sentinels.second.url(), &[target.channel()]).await;
    assert_eq!(service.publish(&event("t", "after")).await.status, 201);
    subscriber.wait_for_event("after", SOON).await;
    world.check_published(2).await;
    let entries = target.by(&sentinels.second.url()).entries().await;
    let ids: Vec<&str> = entries.iter().map(|entry| entry.event_id.as_str()).collect();
    assert_eq!(ids, ["before", "after"]);
}

#[tokio::test]
async fn wrong_service_and_password_are_named() {
    let world = World::embedded();
    let sentinels = Sentinels::new().await;
    let target = RedisTarget::on(&sentinels.first);
    let right = settings(&world, &sentinels, &target);
    let as_server = format!("redis://:{PASSWORD}@127.0.0.1:{}", sentinels.port());
    for (settings, health, log) in [
        (
            right
                .clone()
                .with("REDIS_URL", &sentinels.url().replace("/shop/", "/store/")),
            "do not know the service",
            "knows no service",
        ),
        (
            right.clone().with("REDIS_SENTINEL_PASSWORD", "wrong"),
            "check the password",
            "failed to ask the Sentinel",
        ),
        (
            right.without("REDIS_SENTINEL_PASSWORD").with("REDIS_URL", &as_server),
            "another kind",
            "redis+sentinel://",
        ),
    ] {
        let service = world.serve_with(settings).await;
        eventually(SOON, async || {
            let found = service.json("/health").await;
            let reason = found["fanout"]["reason"].as_str().unwrap_or_default();
            ensure!(reason.contains(health), "{found}: {}", service.log());
            Ok(())
        })
        .await;
        assert!(service.log().contains(log), "{}", service.log());
    }
}
