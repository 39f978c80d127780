//! A Redis Cluster: the stream and the channels on the nodes that have them, also when these change.

use std::collections::BTreeSet;

use anyhow::ensure;
use integration_tests::eventually::{SOON, eventually};
use integration_tests::program::Program;
use integration_tests::publish::{Publish, events, text};
use integration_tests::redis::{RedisTarget, Subscriber};
use integration_tests::redis_cluster::RedisCluster;
use integration_tests::service::{Service, Settings};
use integration_tests::world::World;
use serde_json::Value;

/// A `tail --redis` of a Cluster's channel that a test may read.
struct Tail(Program);

impl Tail {
    fn of(service: &Service, cluster: &RedisCluster, target: &RedisTarget, flags: &[&str]) -> Self {
        let url = cluster.url();
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
        let settings = Settings::new("unused")
            .without("DATABASE_URL")
            .without("HOST")
            .without("PORT");
        Self(Program::start(&settings.arguments(&[&arguments, flags].concat())))
    }

    /// Waits until it has printed this many events, and none twice.
    async fn prints(&self, count: usize) {
        eventually(SOON, async || {
            let printed = self.0.stdout();
            let events = printed
                .lines()
                .filter_map(|line| serde_json::from_str::<Value>(line).ok());
            let ids: Vec<String> = events.map(|event| text(&event, "event_id")).collect();
            let different: BTreeSet<&String> = ids.iter().collect();
            assert_eq!(different.len(), ids.len(), "an event was printed twice");
            ensure!(ids.len() == count, "{} of {count}: {}", ids.len(), self.0.stderr());
            Ok(())
        })
        .await;
    }
}

async fn publish(service: &Service, numbers: std::ops::Range<usize>) {
    let batch = Value::from(events("orders", numbers));
    assert_eq!(service.publish(&batch).await.status, 201);
}

/// The ids in the stream of the node that has it.
async fn in_stream(cluster: &RedisCluster, target: &RedisTarget, node: usize) -> BTreeSet<String> {
    let entries = target.by(&cluster.node(node).url()).entries().await;
    entries.into_iter().map(|entry| entry.event_id).collect()
}

#[tokio::test]
async fn stream_and_channels_follow_slot_and_failover() {
    let world = World::new().await;
    let mut cluster = RedisCluster::new().await;
    let target = RedisTarget::on(cluster.node(0));
    let settings = world.settings().with_redis(&target).with("REDIS_URL", &cluster.url());
    let service = world.serve_with(settings.with("REDIS_TOPIC_CHANNELS", "true")).await;
    let owner = cluster.owner(target.stream()).await;
    // A message reaches the subscribers of every node, wherever it is published.
    let survivor = (0..3).find(|node| *node != owner).expect("there are three");
    let channels = [target.channel().to_owned(), target.channel_of("orders")];
    let channels = channels.each_ref().map(String::as_str);
    let subscriber = Subscriber::to(&cluster.node(survivor).url(), &channels).await;
    let tail = Tail::of(&service, &cluster, &target, &[]);
    eventually(SOON, async || {
        ensure!(
            subscribers(&cluster, target.channel(), "NUMSUB").await == 2,
            "{}",
            tail.0.stderr()
        );
        Ok(())
    })
    .await;
    publish(&service, 0..5).await;
    subscriber.wait_for(10, SOON).await;
    assert_eq!(in_stream(&cluster, &target, owner).await.len(), 5);

    let moved_to = cluster.move_slot(target.stream()).await;
    publish(&service, 5..10).await;
    world.check_published(10).await;
    assert_eq!(in_stream(&cluster, &target, moved_to).await.len(), 10);

    let survivor = (0..3).find(|node| *node != moved_to).expect("there are three");
    let subscriber = Subscriber::to(&cluster.node(survivor).url(), &channels).await;
    // What a master has acknowledged and not replicated is lost with it.
    cluster.replicated(moved_to).await;
    let promoted = cluster.fail_over(moved_to, target.stream()).await;
    publish(&service, 10..15).await;
    world.check_published(15).await;
    subscriber.wait_for(10, SOON).await;
    assert_eq!(in_stream(&cluster, &target, promoted).await.len(), 15);
    tail.prints(15).await;
}

/// The number of subscribers of a channel on all nodes that run.
async fn subscribers(cluster: &RedisCluster, channel: &str, what: &str) -> i64 {
    let mut sum = 0;
    for node in cluster.masters() {
        let (_, count): (String, i64) = node.command(&["PUBSUB", what, channel]).await;
        sum += count;
    }
    sum
}

#[tokio::test]
async fn sharded_channels_follow_slot_and_failover() {
    let world = World::new().await;
    let mut cluster = RedisCluster::new().await;
    let target = RedisTarget::on(cluster.node(0));
    let settings = world.settings().with_redis(&target).with("REDIS_URL", &cluster.url());
    let settings = settings
        .with("REDIS_SHARDED", "true")
        .with("REDIS_TOPIC_CHANNELS", "true");
    let service = world.serve_with(settings).await;
    let tail = Tail::of(&service, &cluster, &target, &["--redis-sharded"]);
    let is_subscribed = async |cluster: &RedisCluster| {
        eventually(SOON, async || {
            let owner = cluster.owner(target.channel()).await;
            let (_, count): (String, i64) = cluster
                .node(owner)
                .command(&["PUBSUB", "SHARDNUMSUB", target.channel()])
                .await;
            ensure!(count == 1, "{}", tail.0.stderr());
            Ok(())
        })
        .await;
    };
    is_subscribed(&cluster).await;
    publish(&service, 0..5).await;
    tail.prints(5).await;
    // No node but the channel's has the messages.
    assert_eq!(subscribers(&cluster, target.channel(), "NUMSUB").await, 0);

    cluster.move_slot(target.channel()).await;
    is_subscribed(&cluster).await;
    publish(&service, 5..10).await;
    tail.prints(10).await;
    world.check_published(10).await;

    let owner = cluster.owner(target.channel()).await;
    let stream_owner = cluster.owner(target.stream()).await;
    cluster.replicated(stream_owner).await;
    cluster.fail_over(owner, target.channel()).await;
    publish(&service, 10..15).await;
    world.check_published(15).await;
    tail.prints(15).await;
    let node = cluster.owner_now(owner, target.stream()).await;
    assert_eq!(in_stream(&cluster, &target, node).await.len(), 15);
}

#[tokio::test]
async fn single_server_url_of_a_cluster_is_named() {
    let world = World::embedded();
    let cluster = RedisCluster::new().await;
    let target = RedisTarget::on(cluster.node(0));
    let other = (cluster.owner(target.stream()).await + 1) % 3;
    let settings = world.settings().with_redis(&target.by(&cluster.node(other).url()));
    let service = world.serve_with(settings).await;
    eventually(SOON, async || {
        let health = service.json("/health").await;
        let reason = health["fanout"]["reason"].as_str().unwrap_or_default();
        ensure!(reason.contains("another kind of Redis"), "{health}");
        Ok(())
    })
    .await;
    let log = service.log();
    assert!(log.contains("MOVED") && log.contains("redis+cluster://"), "{log}");
}
