//! Several replicas on one database: each event stored exactly once, and told so exactly once.

use std::cell::Cell;
use std::collections::HashMap;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::future::{join, join_all};
use futures_util::stream;
use integration_tests::http::ask;
use integration_tests::on_both_stores;
use integration_tests::publish::{Verdict, event, shuffled, verdicts};
use integration_tests::service::{Service, Signal};
use integration_tests::world::World;
use serde_json::Value;
use tokio::task::JoinSet;

/// Publishes these events in batches of `size`, eight requests at a time, and gives back all verdicts.
async fn publish_all(service: &Service, events: &[Value], size: usize) -> Vec<Verdict> {
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
            verdicts(&answer)
        })
        .buffer_unordered(8)
        .collect::<Vec<_>>()
        .await
        .concat()
}

/// Asserts that each event was stored once, and that every other verdict is a duplicate that names the first copy.
fn assert_each_stored_once(verdicts: Vec<Verdict>, events: usize, copies: usize) {
    let mut by_event: HashMap<String, Vec<Verdict>> = HashMap::new();
    for verdict in verdicts {
        by_event.entry(verdict.event_id.clone()).or_default().push(verdict);
    }
    assert_eq!(by_event.len(), events);
    for (event_id, verdicts) in by_event {
        assert_eq!(verdicts.len(), copies, "{event_id}");
        let stored: Vec<&Verdict> = verdicts.iter().filter(|verdict| verdict.status == "stored").collect();
        assert_eq!(stored.len(), 1, "{verdicts:?}");
        for verdict in &verdicts {
            assert_eq!(verdict.cursor, stored[0].cursor, "{verdicts:?}");
            assert_eq!(verdict.received_at, stored[0].received_at, "{verdicts:?}");
            assert!(
                ["stored", "duplicate"].contains(&verdict.status.as_str()),
                "{verdicts:?}"
            );
        }
    }
}

async fn two_replicas_sent_the_same_events_in_different_orders_store_each_once(world: World) {
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
    let stored_by = |verdicts: &[Verdict]| verdicts.iter().filter(|verdict| verdict.status == "stored").count();
    assert!(
        stored_by(&first) > 0 && stored_by(&second) > 0,
        "both replicas took part"
    );
    assert_each_stored_once([first, second].concat(), EVENTS, 2);
    // A connection tells its statistics when it ends.
    replicas.stop().await;
    assert_eq!(world.deadlocks().await, 0);
    let totals = world.check(20_000).await;
    assert_eq!((totals.received, totals.conflicts), (40_000, 0));
}

async fn many_clients_with_the_same_few_keys_over_two_replicas_never_deadlock(world: World) {
    const KEYS: usize = 200;
    const CLIENTS: u64 = 24;

    let replicas = world.serve_replicas().await;
    let (one, other) = (replicas.one(), replicas.other());
    // Each round has keys of its own, over fifty topics, and each client sends them in an order of its own.
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
        let verdicts = join_all(clients).await.concat();
        assert_each_stored_once(verdicts, KEYS, 24);
    }
    replicas.stop().await;
    assert_eq!(world.deadlocks().await, 0);
    assert_eq!(world.check(1000).await.received, 1000 * 24);
}

async fn one_event_sent_by_64_clients_to_two_replicas_at_once_is_stored_once(world: World) {
    let replicas = world.serve_replicas().await;
    let (one, other) = (replicas.one(), replicas.other());
    for round in 0..10 {
        let copy = [event("orders", &format!("evt-{round}"))];
        let clients = (0..64).map(|client| {
            let service = if client % 2 == 0 { one } else { other };
            publish_all(service, &copy, 1)
        });
        let verdicts = join_all(clients).await.concat();
        assert_each_stored_once(verdicts, 1, 64);
    }
    let totals = world.check(10).await;
    assert_eq!(totals.received, 640);
}

async fn an_event_published_after_another_was_acknowledged_comes_after_it_whatever_the_replica(world: World) {
    let replicas = world.serve_replicas().await;
    let (one, other) = (replicas.one(), replicas.other());
    let mut last = String::new();
    for number in 0..60 {
        let service = if number % 2 == 0 { one } else { other };
        let verdict = publish_all(service, &[event("orders", &format!("evt-{number}"))], 1)
            .await
            .remove(0);
        assert!(last < verdict.cursor, "{last} is not before {}", verdict.cursor);
        last = verdict.cursor;
    }
    world.check(60).await;
}

#[tokio::test]
async fn a_replica_that_is_frozen_holds_nobody_else_up() {
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
        // Each round freezes it a little later in its work.
        for _ in 0..round * 2 {
            tokio::task::yield_now().await;
        }
        frozen.signal(Signal::Stop);
        let asked = Instant::now();
        publish_all(&other, &copies, 50).await;
        assert!(
            asked.elapsed() < Duration::from_secs(8),
            "held up for {:?} by a frozen replica",
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
async fn an_index_may_be_rebuilt_while_events_are_stored() {
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

on_both_stores! {
    two_replicas_sent_the_same_events_in_different_orders_store_each_once
    many_clients_with_the_same_few_keys_over_two_replicas_never_deadlock
    one_event_sent_by_64_clients_to_two_replicas_at_once_is_stored_once
    an_event_published_after_another_was_acknowledged_comes_after_it_whatever_the_replica
}
