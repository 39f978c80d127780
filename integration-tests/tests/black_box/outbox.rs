//! Every stored event is published, perhaps later, whatever happens to Redis, the service or the network between them.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use anyhow::ensure;
use futures_util::future::{join, join_all};
use integration_tests::eventually::{SOON, eventually};
use integration_tests::http::ask;
use integration_tests::on_both_stores;
use integration_tests::postgres::free_port;
use integration_tests::proxy::{Network, Proxy};
use integration_tests::publish::{Publish, Scan, event, events, publish_batch, text};
use integration_tests::redis::{Entry, RedisServer, RedisTarget, Subscriber};
use integration_tests::service::{Finished, Service, Settings, Signal};
use integration_tests::world::World;
use serde_json::Value;

/// How long a backlog may take to be published once Redis is back, including the longest pause between two attempts.
const DRAIN: Duration = Duration::from_secs(40);

/// The lease in tests that wait for its expiry, and the time-out of Redis.
const SHORT_LEASE: [(&str, &str); 2] = [("EVENTSIEVE_OUTBOX_LEASE", "3s"), ("EVENTSIEVE_REDIS_TIMEOUT", "1s")];

/// Lets a replica synchronise at once.
const NO_SYNC_DELAY: [&str; 2] = ["--repl-diskless-sync-delay", "0"];

/// These settings with a short lease.
fn with_short_lease(settings: Settings) -> Settings {
    SHORT_LEASE
        .iter()
        .fold(settings, |settings, (variable, value)| settings.with(variable, value))
}

/// Waits until the store has received this many events.
async fn received(world: &World, count: i64) {
    eventually(SOON, async || {
        let received = world
            .number("select cast(coalesce(sum(received), 0) as bigint) from topic_counts")
            .await;
        ensure!(received >= count, "{received} of {count} received");
        Ok(())
    })
    .await;
}

/// Waits for this health of the service and its sink, and asserts that the service is ready.
async fn health_becomes(service: &Service, status: &str, fanout: &str) {
    eventually(DRAIN, async || {
        let health = service.json("/health").await;
        ensure!(
            health["status"] == status && health["fanout"]["status"] == fanout,
            "{health}"
        );
        assert_eq!(health["fanout"]["kind"], "redis");
        assert_eq!(service.fetch("/readyz").await.status, 200);
        Ok(())
    })
    .await;
}

/// Asserts that a load did not wait for Redis, which would have delayed nearly all its requests by a second or more. One in twenty
/// may be slow for another reason on a busy machine.
fn assert_as_fast(before: &Finished, during: &Finished) {
    let [before, during] = [before, during].map(|load| load.milliseconds("latency p95"));
    assert!(
        during <= before * 1.5 + 500.0,
        "p95: {before} ms before and {during} ms without Redis"
    );
}

/// All stored events, by cursor.
async fn stored(service: &Service, count: i64) -> BTreeMap<String, Value> {
    let mut scan = Scan::default();
    let count = usize::try_from(count).expect("a count");
    scan.until(service, "", count, SOON).await;
    scan.events
        .into_iter()
        .map(|event| (text(&event, "cursor"), event))
        .collect()
}

/// The number of entries with each cursor. Asserts that replays are equal byte for byte.
fn times(entries: &[Entry]) -> HashMap<&str, usize> {
    let mut first: HashMap<&str, &Entry> = HashMap::new();
    let mut times = HashMap::new();
    for entry in entries {
        assert_eq!(
            *first.entry(&entry.cursor).or_insert(entry),
            entry,
            "a replay is equal to the first entry"
        );
        *times.entry(entry.cursor.as_str()).or_default() += 1;
    }
    times
}

/// Waits until the outbox is empty, asserts that the stream has every stored event as `/events` lists it and nothing else, and returns
/// the number of replays.
async fn assert_complete(world: &World, service: &Service, target: &RedisTarget) -> usize {
    world.published(DRAIN).await;
    let rows = world.totals().await.rows;
    let stored = stored(service, rows).await;
    let entries = target.entries().await;
    let times = times(&entries);
    for (cursor, event) in &stored {
        assert!(times.contains_key(cursor.as_str()), "never published: {event}");
    }
    for entry in &entries {
        assert_eq!(
            stored.get(&entry.cursor),
            Some(&entry.json()),
            "published and not stored"
        );
    }
    world.check_published(rows).await;
    entries.len() - stored.len()
}

/// Asserts that a subscriber received each of these once.
#[track_caller]
fn assert_received_once(subscriber: &Subscriber, expected: &[String]) {
    let mut received = subscriber.cursors();
    received.sort_unstable();
    let mut expected = expected.to_vec();
    expected.sort_unstable();
    assert_eq!(received.len(), expected.len(), "each once on the channel");
    assert_eq!(received, expected);
}

async fn kills_between_commit_and_publish_lose_nothing(world: World) {
    const KILLS: i64 = 12;

    let target = RedisTarget::shared();
    let proxy = Proxy::to(target.url()).await;
    let port = free_port().to_string();
    let settings = with_short_lease(world.settings().with_redis(&target.through(&proxy))).with("PORT", &port);
    let mut service = world.serve_with(settings).await;
    let url = service.url().to_owned();
    let load = ["--events", "12000", "--rate", "1500", "--batch-size", "20"];
    let killing = async {
        for kill in 1..=KILLS {
            // In one round nothing reaches Redis, in the next one its answers are late.
            let network = match kill % 2 {
                0 => Network::BlackHole,
                _ => Network::Slow(Duration::from_millis(150)),
            };
            proxy.set(network);
            received(&world, kill * 700).await;
            eventually(SOON, async || {
                ensure!(world.unpublished().await > 0, "everything is published already");
                Ok(())
            })
            .await;
            service.restart().await;
            proxy.set(Network::Pass);
        }
    };
    let (publisher, ()) = join(world.load(&url, &load), killing).await;
    assert_eq!(publisher.count("unique"), 8400);
    service.ready().await;
    assert_complete(&world, &service, &target).await;
    assert_eq!(world.totals().await.rows, 8400);
    health_becomes(&service, "healthy", "up").await;
    target.clean_up().await;
}

async fn idle_redis_outage_is_noticed(world: World) {
    let mut redis = RedisServer::new().await;
    let target = RedisTarget::on(&redis);
    let service = world.serve_with(world.settings().with_redis(&target)).await;
    health_becomes(&service, "healthy", "up").await;
    redis.kill();
    health_becomes(&service, "degraded", "down").await;
    redis.start().await;
    health_becomes(&service, "healthy", "up").await;
    world.check(0).await;
}

async fn start_before_redis_catches_up(world: World) {
    let mut redis = RedisServer::absent(&[]);
    let target = RedisTarget::on(&redis);
    let service = world.serve_with(world.settings().with_redis(&target)).await;
    publish_batch(&service, events("orders", 0..500)).await;
    health_becomes(&service, "degraded", "down").await;
    for part in 1..10 {
        publish_batch(&service, events("orders", part * 500..part * 500 + 500)).await;
    }
    // A flush does not wait for an unreachable Redis.
    let begun = Instant::now();
    assert_eq!(ask(service.post("/_flush")).await.status, 200);
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    let outbox = service.json("/stats").await["outbox"].clone();
    assert_eq!(outbox["batches"], 10, "{outbox}");
    assert_eq!(outbox["parked"], 0, "{outbox}");
    assert!(outbox["oldest_seconds"].as_f64() > Some(0.0), "{outbox}");
    assert_eq!(service.json("/health").await["status"], "degraded");

    redis.start().await;
    assert_complete(&world, &service, &target).await;
    health_becomes(&service, "healthy", "up").await;
    let outbox = service.json("/stats").await["outbox"].clone();
    assert_eq!((&outbox["batches"], &outbox["parked"]), (&0.into(), &0.into()));
    assert_eq!(outbox["oldest_seconds"].as_f64(), Some(0.0), "{outbox}");
}

#[tokio::test]
async fn redis_killed_under_load_slows_and_loses_nothing() {
    let mut redis = RedisServer::with(&["--appendonly", "yes", "--appendfsync", "always"]).await;
    let target = RedisTarget::on(&redis);
    let world = World::new().await;
    let service = world.serve_with(world.settings().with_redis(&target)).await;
    world.load(service.url(), &["--events", "2000"]).await;
    let before = world.load(service.url(), &["--events", "8000"]).await;
    let killing = async {
        for kill in 0..2 {
            received(&world, 10_000 + kill * 8000 + 2000).await;
            redis.kill();
            received(&world, 10_000 + kill * 8000 + 6000).await;
            redis.start().await;
        }
    };
    let load = ["--events", "18000"];
    let (during, ()) = join(world.load(service.url(), &load), killing).await;
    assert_as_fast(&before, &during);
    assert_complete(&world, &service, &target).await;
    health_becomes(&service, "healthy", "up").await;
}

#[tokio::test]
async fn redis_frozen_for_10s_slows_nothing() {
    let redis = RedisServer::new().await;
    let target = RedisTarget::on(&redis);
    let world = World::new().await;
    let service = world
        .serve_with(with_short_lease(world.settings().with_redis(&target)))
        .await;
    let paced = ["--rate", "500", "--batch-size", "10"];
    let before = world
        .load(service.url(), &[&paced[..], &["--events", "1000"]].concat())
        .await;
    redis.freeze();
    // The load lasts for ten seconds.
    let during = world
        .load(service.url(), &[&paced[..], &["--events", "5000"]].concat())
        .await;
    health_becomes(&service, "degraded", "down").await;
    redis.thaw();
    assert_as_fast(&before, &during);
    let replays = assert_complete(&world, &service, &target).await;
    // Events in flight when it froze are published again; later attempts never reached it.
    assert!(replays <= 2000, "{replays} of 3500 were published again");
    health_becomes(&service, "healthy", "up").await;
}

#[tokio::test]
async fn full_redis_gets_each_event_once_it_has_memory() {
    let redis = RedisServer::new().await;
    let target = RedisTarget::on(&redis);
    let world = World::new().await;
    let service = world.serve_with(world.settings().with_redis(&target)).await;
    let subscriber = target.subscribe().await;
    let mut cursors = publish_batch(&service, events("orders", 0..50)).await;
    subscriber.wait_for(50, SOON).await;

    redis.command::<()>(&["CONFIG", "SET", "maxmemory", "1"]).await;
    for part in 1..=10 {
        cursors.extend(publish_batch(&service, events("orders", part * 50..part * 50 + 50)).await);
    }
    health_becomes(&service, "degraded", "down").await;
    let mut rejected = redis.errors("OOM").await;
    for _ in 0..5 {
        rejected = eventually(SOON, async || {
            let now = redis.errors("OOM").await;
            ensure!(now > rejected, "no attempt after {rejected} rejections");
            Ok(now)
        })
        .await;
    }
    assert_eq!(
        subscriber.count(),
        50,
        "no event is on the channel before it is in the stream"
    );
    assert_eq!(
        service.json("/stats").await["outbox"]["parked"],
        0,
        "no event is poison"
    );

    redis.command::<()>(&["CONFIG", "SET", "maxmemory", "0"]).await;
    let replays = assert_complete(&world, &service, &target).await;
    assert_eq!(replays, 0, "a rejected transaction has no effect");
    subscriber.wait_for(550, SOON).await;
    assert_received_once(&subscriber, &cursors);
}

#[tokio::test]
async fn read_only_redis_is_waited_for() {
    let (one, other) = (
        RedisServer::with(&NO_SYNC_DELAY).await,
        RedisServer::with(&NO_SYNC_DELAY).await,
    );
    let target = RedisTarget::on(&one);
    let world = World::new().await;
    let service = world.serve_with(world.settings().with_redis(&target)).await;
    publish_batch(&service, events("orders", 0..100)).await;
    world.published(SOON).await;
    // The two swap roles while the outbox is empty.
    other.replicate(&one).await;
    other.promote().await;
    one.replicate(&other).await;
    for part in 1..5 {
        publish_batch(&service, events("orders", part * 100..part * 100 + 100)).await;
    }
    // The service may notice it by asking for the role, before a transaction is rejected.
    eventually(SOON, async || {
        let health = service.json("/health").await;
        let reason = health["fanout"]["reason"].as_str().unwrap_or_default();
        ensure!(reason.contains("replica"), "{health}");
        Ok(())
    })
    .await;
    health_becomes(&service, "degraded", "down").await;
    assert_eq!(target.length().await, 100);
    one.promote().await;
    let replays = assert_complete(&world, &service, &target).await;
    assert_eq!(replays, 0, "a rejected transaction has no effect");
    health_becomes(&service, "healthy", "up").await;
}

#[tokio::test]
async fn failover_reaches_new_master_within_5s() {
    const FAILOVER: Duration = Duration::from_secs(5);

    let (one, other) = (
        RedisServer::with(&NO_SYNC_DELAY).await,
        RedisServer::with(&NO_SYNC_DELAY).await,
    );
    let proxy = Proxy::to(&one.url()).await;
    let target = RedisTarget::on(&one);
    let world = World::new().await;
    let service = world
        .serve_with(world.settings().with_redis(&target.through(&proxy)))
        .await;
    publish_batch(&service, events("orders", 0..100)).await;
    world.published(SOON).await;
    other.replicate(&one).await;
    other.promote().await;
    // New connections reach the new master; existing ones still reach the old one, which is read-only.
    proxy.forward_to(&other.url());
    one.replicate(&other).await;
    let swapped = Instant::now();
    let promoted = target.by(&other.url());
    let mut number = 100;
    let arrived = loop {
        publish_batch(&service, events("orders", number..number + 10)).await;
        number += 10;
        if promoted.length().await > 100 {
            break swapped.elapsed();
        }
        assert!(swapped.elapsed() < FAILOVER, "nothing yet after {FAILOVER:?}");
    };
    assert!(arrived < FAILOVER, "{arrived:?}");
    assert_complete(&world, &service, &promoted).await;
    health_becomes(&service, "healthy", "up").await;
}

#[tokio::test]
async fn batches_of_killed_replica_are_taken_over() {
    let target = RedisTarget::shared();
    let proxy = Proxy::to(target.url()).await;
    let world = World::new().await;
    let healthy = with_short_lease(world.settings().with_redis(&target));
    let slow = with_short_lease(world.settings().with_redis(&target.through(&proxy)));
    let [mut killed, second, third] = world.serve_all([slow, healthy.clone(), healthy]).await;
    publish_batch(&killed, events("warm", 0..10)).await;
    world.published(SOON).await;

    // Nothing reaches Redis, and no time-out has expired yet.
    proxy.set(Network::BlackHole);
    join_all((0..10).map(|part| publish_batch(&killed, events("killed", part * 10..part * 10 + 10)))).await;
    killed.kill().await;
    let killed_at = Instant::now();
    assert!(world.unpublished().await > 0, "it was killed with a backlog");
    for (number, service) in [&second, &third].into_iter().enumerate() {
        publish_batch(service, events("others", number * 50..number * 50 + 50)).await;
    }
    world.published(Duration::from_secs(10)).await;
    assert!(
        killed_at.elapsed() < Duration::from_secs(10),
        "{:?}",
        killed_at.elapsed()
    );
    let replays = assert_complete(&world, &second, &target).await;
    assert!(
        replays <= 10,
        "{replays} events of healthy replicas were published twice"
    );
    assert_eq!(world.totals().await.rows, 210);
    target.clean_up().await;
}

async fn stopped_replica_publishes_everything(world: World) {
    let target = RedisTarget::shared();
    let mut service = world.serve_with(world.settings().with_redis(&target)).await;
    let url = service.url().to_owned();
    for part in 0..40 {
        let batch = Value::from(events("orders", part * 50..part * 50 + 50));
        let accepted = service.publish_preferring("respond-async", &batch).await;
        assert_eq!(accepted.status, 202, "{}", accepted.text());
    }
    service.signal(Signal::Term);
    assert_eq!(service.ended_within(SOON).await.code(), Some(0), "{url}");
    assert_eq!(world.unpublished().await, 0, "everything is published when it ends");
    assert_eq!(target.length().await, 2000);
    world.check_published(2000).await;
    target.clean_up().await;
}

async fn stop_during_redis_outage_releases_leases(world: World) {
    let mut redis = RedisServer::new().await;
    let target = RedisTarget::on(&redis);
    let mut service = world.serve_with(world.settings().with_redis(&target)).await;
    publish_batch(&service, events("orders", 0..10)).await;
    world.published(SOON).await;
    redis.kill();
    for part in 1..10 {
        publish_batch(&service, events("orders", part * 10..part * 10 + 10)).await;
    }
    let begun = Instant::now();
    service.stop().await;
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
    assert!(world.unpublished().await > 0, "Redis was unreachable");
    assert_eq!(world.leased().await, 0, "a stopped replica holds no lease");

    redis.start().await;
    let next = world.serve_with(world.settings().with_redis(&target)).await;
    let subscriber = target.subscribe().await;
    // A lease would have lasted for thirty seconds.
    world.published(Duration::from_secs(15)).await;
    assert!(
        subscriber.count() <= 90,
        "the ten events from before the outage are not published again"
    );
    world.check_published(100).await;
    drop(next);
}

#[tokio::test]
async fn slow_redis_holds_no_transaction_open() {
    const OLD_TRANSACTIONS: &str = "
        select count(*) from pg_stat_activity
        where datname = current_database() and application_name like 'eventsieve%'
          and state like 'idle in transaction%' and state_change < now() - interval '1 second'";

    let target = RedisTarget::shared();
    let proxy = Proxy::to(target.url()).await;
    let world = World::new().await;
    let service = world
        .serve_with(world.settings().with_redis(&target.through(&proxy)))
        .await;
    publish_batch(&service, events("warm", 0..5)).await;
    world.published(SOON).await;
    let subscriber = target.subscribe().await;
    proxy.set(Network::Slow(Duration::from_secs(2)));
    let mut published = 0;
    eventually(DRAIN, async || {
        if published < 6 {
            publish_batch(&service, vec![event("slow", &format!("evt-{published}"))]).await;
            published += 1;
        }
        let open = world.number(OLD_TRANSACTIONS).await;
        assert_eq!(open, 0, "a transaction stays open while Redis is slow");
        ensure!(
            published == 6 && subscriber.count() >= 6,
            "{} of {published}",
            subscriber.count()
        );
        Ok(())
    })
    .await;
    proxy.set(Network::Pass);
    assert_complete(&world, &service, &target).await;
    target.clean_up().await;
}

async fn backlog_costs_neither_cpu_nor_memory(world: World) {
    const OBSERVED: Duration = Duration::from_secs(5);
    const MIB: u64 = 1 << 20;

    let redis = RedisServer::absent(&[]);
    let target = RedisTarget::on(&redis);
    let service = world.serve_with(world.settings().with_redis(&target)).await;
    let load = ["--batch-size", "200", "--duplicate-rate", "0"];
    world
        .load(service.url(), &[&load[..], &["--events", "80000"]].concat())
        .await;
    // By now the caches of the embedded store have reached their limits.
    let before = service.resident_bytes();
    world
        .load(service.url(), &[&load[..], &["--events", "40000"]].concat())
        .await;
    let after = service.resident_bytes();
    assert!(
        after < before + 20 * MIB,
        "{} MiB with 80 000 events in the outbox, {} MiB with 120 000",
        before / MIB,
        after / MIB
    );
    health_becomes(&service, "degraded", "down").await;

    let (begun, worked) = (Instant::now(), service.processor_time());
    let worked = eventually(SOON, async || {
        ensure!(begun.elapsed() >= OBSERVED, "observe it for longer");
        Ok(service.processor_time() - worked)
    })
    .await;
    assert!(
        worked * 10 < begun.elapsed(),
        "{worked:?} of processor time in {:?} with nothing to do but retry",
        begun.elapsed()
    );
    assert!(world.unpublished().await > 0);
    world.check(120_000).await;
}

/// A Redis whose user `service` may publish only on the channel, and on those of topics that begin with `ok`.
async fn redis_with_limited_user(redis: &RedisServer) -> RedisTarget {
    let target = RedisTarget::at(&redis.url_for("service", "secret"));
    let patterns = [
        format!("&{}", target.channel()),
        format!("&{}", target.channel_of("ok*")),
    ];
    let user = [
        "ACL",
        "SETUSER",
        "service",
        "on",
        ">secret",
        "~*",
        "+@all",
        "resetchannels",
    ];
    let rule: Vec<&str> = user.into_iter().chain(patterns.iter().map(String::as_str)).collect();
    redis.command::<()>(&rule).await;
    target
}

/// The lines of `eventsieve outbox` for dead letters: those with one of these event ids.
fn dead_letters<'a>(ended: &'a Finished, event_ids: &[&str]) -> Vec<&'a str> {
    ended
        .stdout
        .lines()
        .filter(|line| event_ids.iter().any(|event_id| line.contains(event_id)))
        .collect()
}

async fn rejected_event_is_dead_lettered_and_resent(world: World) {
    const REJECTED: [&str; 3] = ["evt-rejected-1", "evt-rejected-2", "evt-rejected-3"];

    let redis = RedisServer::new().await;
    let target = redis_with_limited_user(&redis).await;
    let settings = world
        .settings()
        .with_redis(&target)
        .with("REDIS_TOPIC_CHANNELS", "true");
    let service = world.serve_with(settings.clone()).await;
    let (open, closed) = (target.channel_of("ok-1"), target.channel_of("closed"));
    let subscriber = Subscriber::to(&redis.url(), &[&open, &closed]).await;
    let mut batch = events("ok-1", 0..10);
    batch.insert(3, event("closed", REJECTED[0]));
    batch.push(event("closed", REJECTED[1]));
    batch.extend(events("ok-1", 10..20));
    publish_batch(&service, batch).await;
    let cursor = publish_batch(&service, vec![event("closed", REJECTED[2])])
        .await
        .remove(0);
    publish_batch(&service, events("ok-1", 20..30)).await;
    eventually(DRAIN, async || {
        let outbox = service.json("/stats").await["outbox"].clone();
        ensure!(outbox["parked"] == 3 && outbox["batches"] == 0, "{outbox}");
        Ok(())
    })
    .await;
    eventually(SOON, async || {
        let mut received = subscriber.event_ids();
        received.sort_unstable();
        received.dedup();
        ensure!(received.len() == 30, "{received:?}");
        Ok(())
    })
    .await;
    assert_eq!(service.json("/health").await["fanout"]["status"], "up");

    let outbox = |arguments: &[&str]| {
        let arguments = [&["outbox"], arguments].concat();
        let settings = settings.clone().arguments(&arguments);
        async move { settings.run().await }
    };
    let listed = outbox(&[]).await;
    listed.ended_with(0);
    assert_eq!(dead_letters(&listed, &REJECTED).len(), 3, "{}", listed.stdout);
    let line = dead_letters(&listed, &REJECTED[2..])[0];
    for part in ["closed", &cursor, "NOPERM"] {
        assert!(line.contains(part), "no {part} in {line}");
    }

    outbox(&["--retry"]).await.ended_with(1);
    assert_eq!(service.json("/stats").await["outbox"]["parked"], 3);
    redis.command::<()>(&["ACL", "SETUSER", "service", "allchannels"]).await;
    outbox(&["--retry"]).await.ended_with(0);
    eventually(SOON, async || {
        let messages = subscriber.messages();
        let late = messages.iter().filter(|message| message.channel == closed).count();
        ensure!(late == 3, "{late} of the three");
        Ok(())
    })
    .await;
    assert_eq!(service.json("/stats").await["outbox"]["parked"], 0);
    assert!(dead_letters(&outbox(&[]).await, &REJECTED).is_empty());
    assert_complete(&world, &service, &target).await;
}

async fn command_shows_backlog_during_redis_outage(world: World) {
    let redis = RedisServer::absent(&[]);
    let settings = world.settings().with_redis(&RedisTarget::on(&redis));
    let service = world.serve_with(settings.clone()).await;
    for part in 0..7 {
        publish_batch(&service, events("orders", part * 10..part * 10 + 10)).await;
    }
    let listed = settings.clone().arguments(&["outbox"]).run().await;
    listed.ended_with(0);
    let words: Vec<&str> = listed.stdout.split_whitespace().collect();
    assert!(
        words.contains(&"7"),
        "seven batches are not published: {}",
        listed.stdout
    );
    // There are no dead letters to send again.
    settings.arguments(&["outbox", "--retry"]).run().await.ended_with(0);
    world.check(70).await;
}

#[tokio::test]
async fn lease_shorter_than_redis_timeout_is_rejected() {
    let world = World::embedded();
    let target = RedisTarget::shared();
    let settings = |lease, timeout| {
        world
            .settings()
            .with_redis(&target)
            .with("EVENTSIEVE_OUTBOX_LEASE", lease)
            .with("EVENTSIEVE_REDIS_TIMEOUT", timeout)
    };
    for (lease, timeout) in [
        ("5999ms", "2s"),
        ("1s", "5s"),
        ("0s", "1s"),
        ("30s", "0s"),
        ("soon", "1s"),
    ] {
        let ended = settings(lease, timeout).run().await;
        ended.ended_with(64);
        let last = ended.stderr.trim_end().lines().last().unwrap_or_default();
        let named = ["EVENTSIEVE_OUTBOX_LEASE", "EVENTSIEVE_REDIS_TIMEOUT"];
        assert!(
            named.iter().any(|name| last.contains(name)),
            "{lease}, {timeout}: {}",
            ended.stderr
        );
    }
    let service = world.serve_with(settings("6s", "2s")).await;
    publish_batch(&service, events("orders", 0..3)).await;
    world.check_published(3).await;
    target.clean_up().await;
}

#[tokio::test]
async fn invalid_redis_url_is_rejected_and_not_shown() {
    let world = World::embedded();
    for url in [
        "http://secret-Sw0rdfish@localhost",
        "redis://:secret-Sw0rdfish@",
        "secret-Sw0rdfish",
    ] {
        let ended = world.settings().with("REDIS_URL", url).run().await;
        ended.ended_with(64);
        assert!(ended.stderr.contains("REDIS_URL"), "{url}: {}", ended.stderr);
        assert!(!ended.stderr.contains("Sw0rdfish"), "{}", ended.stderr);
    }
}

on_both_stores! {
    kills_between_commit_and_publish_lose_nothing
    idle_redis_outage_is_noticed
    start_before_redis_catches_up
    stopped_replica_publishes_everything
    stop_during_redis_outage_releases_leases
    backlog_costs_neither_cpu_nor_memory
    rejected_event_is_dead_lettered_and_resent
    command_shows_backlog_during_redis_outage
}
