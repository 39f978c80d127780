//! The bound of the Redis stream in bytes, and a Redis that the stream has filled.

use anyhow::ensure;
use integration_tests::eventually::{SOON, eventually};
use integration_tests::publish::{Publish, event_with_payload};
use integration_tests::redis::{RedisServer, RedisTarget};
use integration_tests::service::Service;
use integration_tests::world::World;

const MIB: usize = 1 << 20;

/// Publishes events of some 200 KB each.
async fn publish_large(service: &Service, numbers: std::ops::Range<usize>) {
    let payload = format!(r#"{{"text":"{}"}}"#, "x".repeat(200_000));
    for number in numbers {
        let event = event_with_payload("large", &format!("{number}"), &payload);
        let answer = service.publish_bytes("application/json", event).await;
        assert_eq!(answer.status, 201, "{}", answer.text());
    }
}

async fn usage(server: &RedisServer, target: &RedisTarget) -> usize {
    server
        .command(&["MEMORY", "USAGE", target.stream(), "SAMPLES", "0"])
        .await
}

#[tokio::test]
async fn stream_is_kept_within_its_bytes() {
    let world = World::new().await;
    let server = RedisServer::new().await;
    let target = RedisTarget::on(&server);
    let settings = world
        .settings()
        .with_redis(&target)
        .with("REDIS_STREAM_MAX_BYTES", "8MiB");
    let service = world.serve_with(settings).await;
    // Small ones before large ones: an average over all entries says nothing of either.
    let small: Vec<_> = integration_tests::publish::events("small", 0..2000);
    assert_eq!(service.publish(&serde_json::Value::from(small)).await.status, 201);
    publish_large(&service, 0..100).await;
    world.published(SOON).await;
    let bytes = usage(&server, &target).await;
    assert!((4 * MIB..8 * MIB + MIB / 2).contains(&bytes), "{bytes}");
    let entries = target.entries().await;
    assert!(entries.len() >= 20, "{}", entries.len());
    assert_eq!(entries.last().map(|entry| entry.event_id.as_str()), Some("99"));
    world.check_published(2100).await;
}

#[tokio::test]
async fn redis_full_of_the_stream_makes_room() {
    let world = World::embedded();
    let server = RedisServer::with(&["--maxmemory", "24mb", "--maxmemory-policy", "noeviction"]).await;
    let target = RedisTarget::on(&server);
    let service = world.serve_with(world.settings().with_redis(&target)).await;
    let subscriber = target.subscribe().await;
    publish_large(&service, 0..200).await;
    // 40 MB of events: each was published at once, and the newest are in the stream.
    subscriber.wait_for(200, SOON).await;
    world.check_published(200).await;
    assert!(server.errors("OOM").await > 0, "Redis was never full");
    let entries = target.entries().await;
    assert!(entries.len() > 30, "{}", entries.len());
    assert_eq!(entries.last().map(|entry| entry.event_id.as_str()), Some("199"));
    assert_eq!(service.json("/health").await["status"], "healthy");
}

#[tokio::test]
async fn redis_full_of_other_data_keeps_the_stream() {
    let world = World::embedded();
    let server = RedisServer::with(&["--maxmemory", "24mb", "--maxmemory-policy", "noeviction"]).await;
    let target = RedisTarget::on(&server);
    let service = world.serve_with(world.settings().with_redis(&target)).await;
    publish_large(&service, 0..10).await;
    world.published(SOON).await;
    let other = "x".repeat(30 * MIB);
    server.command::<()>(&["CONFIG", "SET", "maxmemory", "0"]).await;
    server.command::<()>(&["SET", "other", &other]).await;
    server.command::<()>(&["CONFIG", "SET", "maxmemory", "24mb"]).await;
    publish_large(&service, 10..12).await;
    eventually(SOON, async || {
        let health = service.json("/health").await;
        ensure!(health["fanout"]["reason"] == "Redis is full.", "{health}");
        Ok(())
    })
    .await;
    assert_eq!(target.length().await, 10);
    server.command::<()>(&["DEL", "other"]).await;
    world.check_published(12).await;
    assert_eq!(target.length().await, 12);
}

#[tokio::test]
async fn user_without_memory_command_still_publishes() {
    let world = World::embedded();
    let rules = ["--user", "me", "on", ">secret", "~*", "&*", "+@all", "-memory", "-info"];
    let server = RedisServer::with(&rules).await;
    let target = RedisTarget::on(&server).by(&server.url_for("me", "secret"));
    let service = world.serve_with(world.settings().with_redis(&target)).await;
    publish_large(&service, 0..2).await;
    world.check_published(2).await;
    let log = service.log();
    assert_eq!(log.matches("REDIS_STREAM_MAX_BYTES").count(), 1, "{log}");
}
