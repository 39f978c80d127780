//! What is stored is published, whatever becomes of Redis, of the service or of the network between them: it is only late.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use anyhow::ensure;
use futures_util::future::{join, join_all};
use integration_tests::eventually::{SOON, eventually};
use integration_tests::http::ask;
use integration_tests::on_both_stores;
use integration_tests::postgres::free_port;
use integration_tests::proxy::{Network, Proxy};
use integration_tests::publish::{Publish, Walk, event, events, publish_batch, text};
use integration_tests::redis::{Entry, Outlet, RedisServer, Subscriber};
use integration_tests::service::{Finished, Service, Settings, Signal};
use integration_tests::world::World;
use serde_json::Value;

/// How long a backlog may take to be published once Redis is back, with the longest pause between two tries.
const DRAIN: Duration = Duration::from_secs(40);

/// How long a lease is in tests that wait for one to end, and how long Redis may take to answer.
const SHORT_LEASE: [(&str, &str); 2] = [("EVENTSIEVE_OUTBOX_LEASE", "3s"), ("EVENTSIEVE_REDIS_TIMEOUT", "1s")];

/// A replica's wish to be brisk, when a test makes one follow another.
const BRISK: [&str; 2] = ["--repl-diskless-sync-delay", "0"];

/// These settings with a lease that ends soon.
fn brisk(settings: Settings) -> Settings {
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

/// Waits until the service says so of its fan-out, and asserts that it takes events all the same.
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

/// Asserts that a load did not wait for Redis, which would have cost nearly all of its requests a second or more. One in twenty
/// may have met something else that a busy machine does.
fn assert_as_fast(before: &Finished, during: &Finished) {
    let [before, during] = [before, during].map(|load| load.milliseconds("latency p95"));
    assert!(
        during <= before * 1.5 + 500.0,
        "p95: {before} ms before and {during} ms without Redis"
    );
}

/// Everything that is stored, by cursor.
async fn stored(service: &Service, count: i64) -> BTreeMap<String, Value> {
    let mut walk = Walk::default();
    let count = usize::try_from(count).expect("a count");
    walk.until(service, "", count, SOON).await;
    walk.events
        .into_iter()
        .map(|event| (text(&event, "cursor"), event))
        .collect()
}

/// How often each cursor is in a stream; asserts that each replay is the same as the first time, byte for byte.
fn times(entries: &[Entry]) -> HashMap<&str, usize> {
    let mut first: HashMap<&str, &Entry> = HashMap::new();
    let mut times = HashMap::new();
    for entry in entries {
        assert_eq!(
            *first.entry(&entry.cursor).or_insert(entry),
            entry,
            "a replay is the same again"
        );
        *times.entry(entry.cursor.as_str()).or_default() += 1;
    }
    times
}

/// Waits until nothing is owed any more, asserts that the stream has every stored event as `/events` shows it and nothing
/// else, and gives back how many entries are replays.
async fn assert_complete(world: &World, service: &Service, outlet: &Outlet) -> usize {
    world.fanned_out(DRAIN).await;
    let rows = world.totals().await.rows;
    let stored = stored(service, rows).await;
    let entries = outlet.entries().await;
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
    world.check_fanned_out(rows).await;
    entries.len() - stored.len()
}

/// Asserts that a subscriber that was there all the time got each of these once.
#[track_caller]
fn assert_told_once(subscriber: &Subscriber, expected: &[String]) {
    let mut told = subscriber.cursors();
    told.sort_unstable();
    let mut expected = expected.to_vec();
    expected.sort_unstable();
    assert_eq!(told.len(), expected.len(), "each once on the channel");
    assert_eq!(told, expected);
}

async fn a_service_killed_again_and_again_between_commit_and_publish_leaves_nothing_unpublished(world: World) {
    const KILLS: i64 = 12;

    let outlet = Outlet::shared();
    let proxy = Proxy::to(outlet.url()).await;
    let port = free_port().to_string();
    let settings = brisk(world.settings().with_redis(&outlet.through(&proxy))).with("PORT", &port);
    let mut service = world.serve_with(settings).await;
    let url = service.url().to_owned();
    let load = ["--events", "12000", "--rate", "1500", "--batch-size", "20"];
    let killing = async {
        for kill in 1..=KILLS {
            // In one round nothing reaches Redis any more, in the next it does, and no answer comes back in time.
            let network = match kill % 2 {
                0 => Network::BlackHole,
                _ => Network::Slow(Duration::from_millis(150)),
            };
            proxy.set(network);
            received(&world, kill * 700).await;
            eventually(SOON, async || {
                ensure!(world.unpublished().await > 0, "all is published already");
                Ok(())
            })
            .await;
            service.restart().await;
            proxy.set(Network::Pass);
        }
    };
    let (publisher, ()) = join(world.load(&url, &load), killing).await;
    assert_eq!(publisher.figure("unique"), 8400);
    service.ready().await;
    assert_complete(&world, &service, &outlet).await;
    assert_eq!(world.totals().await.rows, 8400);
    health_becomes(&service, "healthy", "up").await;
    outlet.clean_up().await;
}

async fn a_redis_that_goes_while_nothing_is_published_is_noticed(world: World) {
    let mut redis = RedisServer::new().await;
    let outlet = Outlet::on(&redis);
    let service = world.serve_with(world.settings().with_redis(&outlet)).await;
    health_becomes(&service, "healthy", "up").await;
    redis.kill();
    health_becomes(&service, "degraded", "down").await;
    redis.start().await;
    health_becomes(&service, "healthy", "up").await;
    world.check(0).await;
}

async fn a_service_that_starts_before_its_redis_is_ready_and_catches_up_by_itself(world: World) {
    let mut redis = RedisServer::absent(&[]);
    let outlet = Outlet::on(&redis);
    let service = world.serve_with(world.settings().with_redis(&outlet)).await;
    publish_batch(&service, events("orders", 0..500)).await;
    health_becomes(&service, "degraded", "down").await;
    for part in 1..10 {
        publish_batch(&service, events("orders", part * 500..part * 500 + 500)).await;
    }
    // A flush does not wait for a Redis that is away: what it is owed is kept.
    let begun = Instant::now();
    assert_eq!(ask(service.post("/_flush")).await.status, 200);
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    let outbox = service.json("/stats").await["outbox"].clone();
    assert_eq!(outbox["batches"], 10, "{outbox}");
    assert_eq!(outbox["parked"], 0, "{outbox}");
    assert!(outbox["oldest_seconds"].as_f64() > Some(0.0), "{outbox}");
    assert_eq!(service.json("/health").await["status"], "degraded");

    redis.start().await;
    assert_complete(&world, &service, &outlet).await;
    health_becomes(&service, "healthy", "up").await;
    let outbox = service.json("/stats").await["outbox"].clone();
    assert_eq!((&outbox["batches"], &outbox["parked"]), (&0.into(), &0.into()));
    assert_eq!(outbox["oldest_seconds"].as_f64(), Some(0.0), "{outbox}");
}

#[tokio::test]
async fn redis_killed_under_full_load_costs_publishing_nothing_and_misses_nothing() {
    let mut redis = RedisServer::with(&["--appendonly", "yes", "--appendfsync", "always"]).await;
    let outlet = Outlet::on(&redis);
    let world = World::new().await;
    let service = world.serve_with(world.settings().with_redis(&outlet)).await;
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
    assert_complete(&world, &service, &outlet).await;
    health_becomes(&service, "healthy", "up").await;
}

#[tokio::test]
async fn redis_frozen_for_ten_seconds_costs_publishing_nothing_and_repeats_little() {
    let redis = RedisServer::new().await;
    let outlet = Outlet::on(&redis);
    let world = World::new().await;
    let service = world.serve_with(brisk(world.settings().with_redis(&outlet))).await;
    let paced = ["--rate", "500", "--batch-size", "10"];
    let before = world
        .load(service.url(), &[&paced[..], &["--events", "1000"]].concat())
        .await;
    redis.freeze();
    // It is the load that lasts for ten seconds.
    let during = world
        .load(service.url(), &[&paced[..], &["--events", "5000"]].concat())
        .await;
    health_becomes(&service, "degraded", "down").await;
    redis.thaw();
    assert_as_fast(&before, &during);
    let replays = assert_complete(&world, &service, &outlet).await;
    // What was on its way when it froze is published again; what was tried later never reached it.
    assert!(replays <= 2000, "{replays} of 3500 were published again");
    health_becomes(&service, "healthy", "up").await;
}

#[tokio::test]
async fn a_full_redis_is_told_nothing_twice_and_everything_once_there_is_room() {
    let redis = RedisServer::new().await;
    let outlet = Outlet::on(&redis);
    let world = World::new().await;
    let service = world.serve_with(world.settings().with_redis(&outlet)).await;
    let subscriber = outlet.subscribe().await;
    let mut cursors = publish_batch(&service, events("orders", 0..50)).await;
    subscriber.wait_for(50, SOON).await;

    redis.command::<()>(&["CONFIG", "SET", "maxmemory", "1"]).await;
    for part in 1..=10 {
        cursors.extend(publish_batch(&service, events("orders", part * 50..part * 50 + 50)).await);
    }
    health_becomes(&service, "degraded", "down").await;
    let mut refused = redis.errors("OOM").await;
    for _ in 0..5 {
        refused = eventually(SOON, async || {
            let now = redis.errors("OOM").await;
            ensure!(now > refused, "it is not tried again after {refused} refusals");
            Ok(now)
        })
        .await;
    }
    assert_eq!(
        subscriber.count(),
        50,
        "nothing is on the channel that is not in the stream"
    );
    assert_eq!(
        service.json("/stats").await["outbox"]["parked"],
        0,
        "no event is to blame"
    );

    redis.command::<()>(&["CONFIG", "SET", "maxmemory", "0"]).await;
    let replays = assert_complete(&world, &service, &outlet).await;
    assert_eq!(replays, 0, "a transaction that was refused left nothing behind");
    subscriber.wait_for(550, SOON).await;
    assert_told_once(&subscriber, &cursors);
}

#[tokio::test]
async fn a_redis_that_becomes_read_only_is_waited_for_until_it_leads_again() {
    let (one, other) = (RedisServer::with(&BRISK).await, RedisServer::with(&BRISK).await);
    let outlet = Outlet::on(&one);
    let world = World::new().await;
    let service = world.serve_with(world.settings().with_redis(&outlet)).await;
    publish_batch(&service, events("orders", 0..100)).await;
    world.fanned_out(SOON).await;
    // The two swap their parts, while there is nothing to be lost.
    other.follow(&one).await;
    other.lead().await;
    one.follow(&other).await;
    for part in 1..5 {
        publish_batch(&service, events("orders", part * 100..part * 100 + 100)).await;
    }
    // It may find that out by asking for the role, before anything is refused.
    eventually(SOON, async || {
        let health = service.json("/health").await;
        let reason = health["fanout"]["reason"].as_str().unwrap_or_default();
        ensure!(reason.contains("replica"), "{health}");
        Ok(())
    })
    .await;
    health_becomes(&service, "degraded", "down").await;
    assert_eq!(outlet.length().await, 100);
    one.lead().await;
    let replays = assert_complete(&world, &service, &outlet).await;
    assert_eq!(replays, 0, "what is refused as a whole leaves nothing behind");
    health_becomes(&service, "healthy", "up").await;
}

#[tokio::test]
async fn after_a_failover_the_new_master_is_published_to_within_five_seconds() {
    const FAILOVER: Duration = Duration::from_secs(5);

    let (one, other) = (RedisServer::with(&BRISK).await, RedisServer::with(&BRISK).await);
    let proxy = Proxy::to(&one.url()).await;
    let outlet = Outlet::on(&one);
    let world = World::new().await;
    let service = world
        .serve_with(world.settings().with_redis(&outlet.through(&proxy)))
        .await;
    publish_batch(&service, events("orders", 0..100)).await;
    world.fanned_out(SOON).await;
    other.follow(&one).await;
    other.lead().await;
    // The address leads to the new master, and the connections that exist still to the old one, which writes no more.
    proxy.lead_to(&other.url());
    one.follow(&other).await;
    let swapped = Instant::now();
    let there = outlet.by(&other.url());
    let mut number = 100;
    let arrived = loop {
        publish_batch(&service, events("orders", number..number + 10)).await;
        number += 10;
        if there.length().await > 100 {
            break swapped.elapsed();
        }
        assert!(swapped.elapsed() < FAILOVER, "nothing yet after {FAILOVER:?}");
    };
    assert!(arrived < FAILOVER, "{arrived:?}");
    assert_complete(&world, &service, &there).await;
    health_becomes(&service, "healthy", "up").await;
}

#[tokio::test]
async fn the_batches_of_a_replica_killed_while_it_published_are_taken_over_by_others() {
    let outlet = Outlet::shared();
    let proxy = Proxy::to(outlet.url()).await;
    let world = World::new().await;
    let healthy = brisk(world.settings().with_redis(&outlet));
    let slow = brisk(world.settings().with_redis(&outlet.through(&proxy)));
    let [mut doomed, second, third] = world.serve_all([slow, healthy.clone(), healthy]).await;
    publish_batch(&doomed, events("warm", 0..10)).await;
    world.fanned_out(SOON).await;

    // Nothing reaches Redis, and this soon after no time-out has told the replica to step aside.
    proxy.set(Network::BlackHole);
    join_all((0..10).map(|part| publish_batch(&doomed, events("doomed", part * 10..part * 10 + 10)))).await;
    doomed.kill().await;
    let killed = Instant::now();
    assert!(world.unpublished().await > 0, "it was killed with work to do");
    for (number, service) in [&second, &third].into_iter().enumerate() {
        publish_batch(service, events("others", number * 50..number * 50 + 50)).await;
    }
    world.fanned_out(Duration::from_secs(10)).await;
    assert!(killed.elapsed() < Duration::from_secs(10), "{:?}", killed.elapsed());
    let replays = assert_complete(&world, &second, &outlet).await;
    assert!(
        replays <= 10,
        "{replays} events of healthy replicas were published twice"
    );
    assert_eq!(world.totals().await.rows, 210);
    outlet.clean_up().await;
}

async fn a_replica_that_is_stopped_leaves_nothing_unpublished(world: World) {
    let outlet = Outlet::shared();
    let mut service = world.serve_with(world.settings().with_redis(&outlet)).await;
    let url = service.url().to_owned();
    for part in 0..40 {
        let batch = Value::from(events("orders", part * 50..part * 50 + 50));
        let accepted = service.publish_preferring("respond-async", &batch).await;
        assert_eq!(accepted.status, 202, "{}", accepted.text());
    }
    service.signal(Signal::Term);
    assert_eq!(service.ended_within(SOON).await.code(), Some(0), "{url}");
    assert_eq!(world.unpublished().await, 0, "all is published when it ends");
    assert_eq!(outlet.length().await, 2000);
    world.check_fanned_out(2000).await;
    outlet.clean_up().await;
}

async fn a_replica_that_is_stopped_while_redis_is_away_leaves_no_lease_behind(world: World) {
    let mut redis = RedisServer::new().await;
    let outlet = Outlet::on(&redis);
    let mut service = world.serve_with(world.settings().with_redis(&outlet)).await;
    publish_batch(&service, events("orders", 0..10)).await;
    world.fanned_out(SOON).await;
    redis.kill();
    for part in 1..10 {
        publish_batch(&service, events("orders", part * 10..part * 10 + 10)).await;
    }
    let begun = Instant::now();
    service.stop().await;
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
    assert!(world.unpublished().await > 0, "Redis was away");
    assert_eq!(world.leased().await, 0, "who is gone holds no lease");

    redis.start().await;
    let next = world.serve_with(world.settings().with_redis(&outlet)).await;
    let subscriber = outlet.subscribe().await;
    // Thirty seconds is how long a lease would have lasted.
    world.fanned_out(Duration::from_secs(15)).await;
    assert!(
        subscriber.count() <= 90,
        "of the ten before Redis was killed none comes again"
    );
    world.check_fanned_out(100).await;
    drop(next);
}

#[tokio::test]
async fn no_transaction_stays_open_while_redis_is_slow() {
    const OLD_TRANSACTIONS: &str = "
        select count(*) from pg_stat_activity
        where datname = current_database() and application_name like 'eventsieve%'
          and state like 'idle in transaction%' and state_change < now() - interval '1 second'";

    let outlet = Outlet::shared();
    let proxy = Proxy::to(outlet.url()).await;
    let world = World::new().await;
    let service = world
        .serve_with(world.settings().with_redis(&outlet.through(&proxy)))
        .await;
    publish_batch(&service, events("warm", 0..5)).await;
    world.fanned_out(SOON).await;
    let subscriber = outlet.subscribe().await;
    proxy.set(Network::Slow(Duration::from_secs(2)));
    let mut published = 0;
    eventually(DRAIN, async || {
        if published < 6 {
            publish_batch(&service, vec![event("slow", &format!("evt-{published}"))]).await;
            published += 1;
        }
        let open = world.number(OLD_TRANSACTIONS).await;
        assert_eq!(open, 0, "a transaction is open for as long as Redis takes");
        ensure!(
            published == 6 && subscriber.count() >= 6,
            "{} of {published}",
            subscriber.count()
        );
        Ok(())
    })
    .await;
    proxy.set(Network::Pass);
    assert_complete(&world, &service, &outlet).await;
    outlet.clean_up().await;
}

async fn a_backlog_without_redis_costs_neither_processor_nor_memory(world: World) {
    const WATCHED: Duration = Duration::from_secs(5);
    const MIB: u64 = 1 << 20;

    let redis = RedisServer::absent(&[]);
    let outlet = Outlet::on(&redis);
    let service = world.serve_with(world.settings().with_redis(&outlet)).await;
    let load = ["--batch-size", "200", "--duplicate-rate", "0"];
    world
        .load(service.url(), &[&load[..], &["--events", "80000"]].concat())
        .await;
    // By now what the embedded store keeps in memory of its own has grown to its bounds, with or without a Redis.
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
        ensure!(begun.elapsed() >= WATCHED, "not watched for long enough");
        Ok(service.processor_time() - worked)
    })
    .await;
    assert!(
        worked * 10 < begun.elapsed(),
        "{worked:?} of work in {:?} with nothing to do but to try again",
        begun.elapsed()
    );
    assert!(world.unpublished().await > 0);
    world.check(120_000).await;
}

/// A Redis that lets its user `service` publish on the channel and on those of topics that begin with `ok`.
async fn redis_that_is_choosy(redis: &RedisServer) -> Outlet {
    let outlet = Outlet::at(&redis.url_for("service", "secret"));
    let patterns = [
        format!("&{}", outlet.channel()),
        format!("&{}", outlet.channel_of("ok*")),
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
    outlet
}

/// The lines of `eventsieve outbox` that tell of parked events: those with one of these ids.
fn parked_lines<'a>(told: &'a Finished, event_ids: &[&str]) -> Vec<&'a str> {
    told.stdout
        .lines()
        .filter(|line| event_ids.iter().any(|event_id| line.contains(event_id)))
        .collect()
}

async fn an_event_that_redis_refuses_is_parked_listed_and_sent_again(world: World) {
    const REFUSED: [&str; 3] = ["evt-refused-1", "evt-refused-2", "evt-refused-3"];

    let redis = RedisServer::new().await;
    let outlet = redis_that_is_choosy(&redis).await;
    let settings = world
        .settings()
        .with_redis(&outlet)
        .with("REDIS_TOPIC_CHANNELS", "true");
    let service = world.serve_with(settings.clone()).await;
    let (open, closed) = (outlet.channel_of("ok-1"), outlet.channel_of("closed"));
    let subscriber = Subscriber::to(&redis.url(), &[&open, &closed]).await;
    let mut batch = events("ok-1", 0..10);
    batch.insert(3, event("closed", REFUSED[0]));
    batch.push(event("closed", REFUSED[1]));
    batch.extend(events("ok-1", 10..20));
    publish_batch(&service, batch).await;
    let cursor = publish_batch(&service, vec![event("closed", REFUSED[2])])
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
        let mut told = subscriber.event_ids();
        told.sort_unstable();
        told.dedup();
        ensure!(told.len() == 30, "{told:?}");
        Ok(())
    })
    .await;
    assert_eq!(service.json("/health").await["fanout"]["status"], "up");

    let outbox = |arguments: &[&str]| {
        let arguments = [&["outbox"], arguments].concat();
        let settings = settings.clone().arguments(&arguments);
        async move { settings.run().await }
    };
    let told = outbox(&[]).await;
    told.ended_with(0);
    assert_eq!(parked_lines(&told, &REFUSED).len(), 3, "{}", told.stdout);
    let line = parked_lines(&told, &REFUSED[2..])[0];
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
    assert!(parked_lines(&outbox(&[]).await, &REFUSED).is_empty());
    assert_complete(&world, &service, &outlet).await;
}

async fn the_command_outbox_tells_what_is_owed_while_redis_is_away(world: World) {
    let redis = RedisServer::absent(&[]);
    let settings = world.settings().with_redis(&Outlet::on(&redis));
    let service = world.serve_with(settings.clone()).await;
    for part in 0..7 {
        publish_batch(&service, events("orders", part * 10..part * 10 + 10)).await;
    }
    let told = settings.clone().arguments(&["outbox"]).run().await;
    told.ended_with(0);
    let figures: Vec<&str> = told.stdout.split_whitespace().collect();
    assert!(figures.contains(&"7"), "seven batches are owed: {}", told.stdout);
    // Nothing is parked, so there is nothing to send again.
    settings.arguments(&["outbox", "--retry"]).run().await.ended_with(0);
    world.check(70).await;
}

#[tokio::test]
async fn a_lease_that_a_slow_answer_could_outlast_is_refused_at_the_start() {
    let world = World::embedded();
    let outlet = Outlet::shared();
    let settings = |lease, timeout| {
        world
            .settings()
            .with_redis(&outlet)
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
    world.check_fanned_out(3).await;
    outlet.clean_up().await;
}

#[tokio::test]
async fn a_redis_url_that_is_none_is_refused_at_the_start_without_showing_it() {
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
    a_service_killed_again_and_again_between_commit_and_publish_leaves_nothing_unpublished
    a_redis_that_goes_while_nothing_is_published_is_noticed
    a_service_that_starts_before_its_redis_is_ready_and_catches_up_by_itself
    a_replica_that_is_stopped_leaves_nothing_unpublished
    a_replica_that_is_stopped_while_redis_is_away_leaves_no_lease_behind
    a_backlog_without_redis_costs_neither_processor_nor_memory
    an_event_that_redis_refuses_is_parked_listed_and_sent_again
    the_command_outbox_tells_what_is_owed_while_redis_is_away
}
