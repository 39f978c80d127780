//! Several replicas on one database: each event is stored exactly once, and reported as stored exactly once.

use std::cell::Cell;
use std::collections::HashMap;
use std::time::{Duration, Instant};

use anyhow::ensure;
use futures_util::StreamExt;
use futures_util::future::{join, join_all};
use futures_util::stream;
use integration_tests::eventually::{SOON, eventually};
use integration_tests::http::ask;
use integration_tests::on_both_stores;
use integration_tests::publish::{Outcome, event, outcomes, shuffled};
use integration_tests::service::{Service, Settings, Signal};
use integration_tests::world::World;
use serde_json::Value;
use tokio::task::JoinSet;

/// Publishes these events in batches of `size`, eight requests at once, and returns all outcomes.
async fn publish_all(service: &Service, events: &[Value], size: usize) -> Vec<Outcome> {
    stream::iter(events.chunks(size))
        .map(async |batch| {
            let request = service
                .post("/publish")
                .header("prefer", "return=representation")
                .json(batch);
            let answer = ask(request).await;
            assert!(
                [200, 201].contains(&answer.status),
                "{}: {}",
                answer.status,
                answer.text()
            );
            outcomes(&answer)
        })
        .buffer_unordered(8)
        .collect::<Vec<_>>()
        .await
        .concat()
}

/// Asserts that each event was stored once, and that every other outcome is a duplicate that names the first copy.
fn assert_each_stored_once(outcomes: Vec<Outcome>, events: usize, copies: usize) {
    let mut by_event: HashMap<String, Vec<Outcome>> = HashMap::new();
    for outcome in outcomes {
        by_event.entry(outcome.event_id.clone()).or_default().push(outcome);
    }
    assert_eq!(by_event.len(), events);
    for (event_id, outcomes) in by_event {
        assert_eq!(outcomes.len(), copies, "{event_id}");
        let stored: Vec<&Outcome> = outcomes.iter().filter(|outcome| outcome.status == "stored").collect();
        assert_eq!(stored.len(), 1, "{outcomes:?}");
        for outcome in &outcomes {
            assert_eq!(outcome.cursor, stored[0].cursor, "{outcomes:?}");
            assert_eq!(outcome.received_at, stored[0].received_at, "{outcomes:?}");
            assert!(
                ["stored", "duplicate"].contains(&outcome.status.as_str()),
                "{outcomes:?}"
            );
        }
    }
}

async fn same_events_in_other_orders_are_stored_once(world: World) {
    const EVENTS: usize = 20_000;

    let replicas = world.serve_replicas().await;
    let (one, other) = (replicas.one(), replicas.other());
    let all: Vec<Value> = (0..EVENTS)
        .map(|number| event(&format!("topic-{}", number % 7), &format!("evt-{number}")))
        .collect();
    let in_order = |seed| -> Vec<Value> {
        shuffled(EVENTS, seed)
            .into_iter()
            .map(|number| all[number].clone())
            .collect()
    };
    let (orders, disorder) = (in_order(1), in_order(2));
    let (first, second) = join(publish_all(one, &orders, 100), publish_all(other, &disorder, 100)).await;
    let stored_by = |outcomes: &[Outcome]| outcomes.iter().filter(|outcome| outcome.status == "stored").count();
    assert!(
        stored_by(&first) > 0 && stored_by(&second) > 0,
        "both replicas took part"
    );
    assert_each_stored_once([first, second].concat(), EVENTS, 2);
    // A connection reports its statistics when it ends.
    replicas.stop().await;
    assert_eq!(world.deadlocks().await, 0);
    let totals = world.check(20_000).await;
    assert_eq!((totals.received, totals.conflicts), (40_000, 0));
}

async fn contended_keys_never_deadlock(world: World) {
    const KEYS: usize = 200;
    const CLIENTS: u64 = 24;

    let replicas = world.serve_replicas().await;
    let (one, other) = (replicas.one(), replicas.other());
    // Each round has its own keys in fifty topics, and each client sends them in another order.
    for round in 0..5 {
        let all: Vec<Value> = (0..KEYS)
            .map(|number| event(&format!("topic-{}", number % 50), &format!("evt-{round}-{number}")))
            .collect();
        let clients = (0..CLIENTS).map(|client| {
            let mut order = shuffled(KEYS, client);
            if client % 3 == 0 {
                order.sort_unstable();
            }
            let events: Vec<Value> = order.into_iter().map(|number| all[number].clone()).collect();
            let service = if client % 2 == 0 { one } else { other };
            async move { publish_all(service, &events, 20).await }
        });
        let outcomes = join_all(clients).await.concat();
        assert_each_stored_once(outcomes, KEYS, 24);
    }
    replicas.stop().await;
    assert_eq!(world.deadlocks().await, 0);
    assert_eq!(world.check(1000).await.received, 1000 * 24);
}

async fn event_sent_by_64_clients_is_stored_once(world: World) {
    let replicas = world.serve_replicas().await;
    let (one, other) = (replicas.one(), replicas.other());
    for round in 0..10 {
        let copy = [event("orders", &format!("evt-{round}"))];
        let clients = (0..64).map(|client| {
            let service = if client % 2 == 0 { one } else { other };
            publish_all(service, &copy, 1)
        });
        let outcomes = join_all(clients).await.concat();
        assert_each_stored_once(outcomes, 1, 64);
    }
    let totals = world.check(10).await;
    assert_eq!(totals.received, 640);
}

async fn acknowledged_event_precedes_later_ones(world: World) {
    let replicas = world.serve_replicas().await;
    let (one, other) = (replicas.one(), replicas.other());
    let mut last = String::new();
    for number in 0..60 {
        let service = if number % 2 == 0 { one } else { other };
        let outcome = publish_all(service, &[event("orders", &format!("evt-{number}"))], 1)
            .await
            .remove(0);
        assert!(last < outcome.cursor, "{last} is not before {}", outcome.cursor);
        last = outcome.cursor;
    }
    world.check(60).await;
}

#[tokio::test]
async fn frozen_replica_does_not_block_others() {
    let world = World::new().await;
    let (frozen, other) = join(world.serve(), world.serve()).await;
    for round in 0..20 {
        let copies: Vec<Value> = (0..200)
            .map(|number| event("orders", &format!("evt-{round}-{number}")))
            .collect();
        let mut requests = JoinSet::new();
        for batch in copies.chunks(50) {
            requests.spawn(ask(frozen.post("/publish").json(batch)));
        }
        // Each round freezes it a little later.
        for _ in 0..round * 2 {
            tokio::task::yield_now().await;
        }
        frozen.signal(Signal::Stop);
        let asked = Instant::now();
        publish_all(&other, &copies, 50).await;
        assert!(
            asked.elapsed() < Duration::from_secs(8),
            "delayed by {:?} by a frozen replica",
            asked.elapsed()
        );
        frozen.signal(Signal::Continue);
        for answer in requests.join_all().await {
            assert!([200, 201].contains(&answer.status), "{}", answer.text());
        }
    }
    assert_eq!(world.check(4000).await.received, 8000);
}

#[tokio::test]
async fn index_can_be_rebuilt_during_publishing() {
    let world = World::new().await;
    let service = world.serve().await;
    let done = Cell::new(false);
    let rebuilding = async {
        for index in ["events_pkey", "batches_flush_id_key", "topic_counts_pkey"].repeat(3) {
            world.execute(&format!("reindex index concurrently {index}")).await;
        }
        done.set(true);
    };
    let publishing = async {
        let mut count = 0;
        while !done.get() {
            let batch: Vec<Value> = (count..count + 400)
                .map(|number| event("orders", &format!("evt-{number}")))
                .collect();
            // Half of each round was sent in the round before.
            publish_all(&service, &batch, 50).await;
            count += 200;
        }
        count
    };
    let ((), count) = join(rebuilding, publishing).await;
    world.check(count + 200).await;
}

/// Two logs in two schemas of one database: each has its own events, identities, numbers, leases and partitions.
#[tokio::test]
async fn two_logs_share_a_database() {
    let world = World::new().await;
    let keeping = |settings: Settings| settings.with("EVENTSIEVE_RETAIN", "2s");
    let second = || world.settings().with("EVENTSIEVE_SCHEMA", "log_2");
    let services = [
        world.serve_with(keeping(world.settings())).await,
        world.serve_with(keeping(second())).await,
    ];
    for (service, number) in [(&services[0], 1), (&services[1], 2)] {
        let events: Vec<Value> = (0..100 * number)
            .map(|id| event("orders", &format!("evt-{id}")))
            .collect();
        let outcomes = publish_all(service, &events, 50).await;
        assert_each_stored_once(outcomes, events.len(), 1);
    }
    for (service, unique) in [(&services[0], 100), (&services[1], 200)] {
        eventually(SOON, async || {
            let stats = service.json("/stats").await;
            assert_eq!(stats["unique_processed"], unique);
            ensure!(stats["database_total_rows"] == 0, "{}", stats["database_total_rows"]);
            Ok(())
        })
        .await;
    }
    world.check(0).await;
    second().arguments(&["verify"]).run().await.ended_with(0);
    let left_over = "select count(*) from log_2.identities where key in (select key from eventsieve.identities)";
    assert_eq!(world.number(left_over).await, 100);
}

on_both_stores! {
    same_events_in_other_orders_are_stored_once
    contended_keys_never_deadlock
    event_sent_by_64_clients_is_stored_once
    acknowledged_event_precedes_later_ones
}
