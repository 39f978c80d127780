//! `eventsieve prune`, beside a service that runs: what is old goes, and everything stays exact.

use std::cell::Cell;

use anyhow::ensure;
use futures_util::future::join;
use integration_tests::eventually::{SOON, eventually};
use integration_tests::on_both_stores;
use integration_tests::publish::{Publish, Walk, event, events, verdicts};
use integration_tests::service::{Finished, Service};
use integration_tests::world::World;
use serde_json::Value;

/// Makes the events that this condition of SQL selects ninety days older.
async fn age(world: &World, condition: &str) {
    let days = match world.store_name() {
        "sqlite" => "90 * 86400000000",
        _ => "interval '90 days'",
    };
    world
        .execute(&format!(
            "update events set received_at = received_at - {days} where {condition}"
        ))
        .await;
}

/// Prunes what was received longer ago than this.
async fn prune(world: &World, older_than: &str) -> Finished {
    let ended = world.run(&["prune", "--older-than", older_than]).await;
    ended.ended_with(0);
    ended
}

/// The number of events in the line of a prune that begins with these words; none without such a line.
fn told(prune: &Finished, words: &str) -> Option<i64> {
    let rest = prune.stdout.lines().find_map(|line| line.strip_prefix(words))?;
    rest.split_whitespace().next()?.parse().ok()
}

/// How many events a prune says that it removed.
#[track_caller]
fn pruned(prune: &Finished) -> i64 {
    told(prune, "pruned ").unwrap_or_else(|| panic!("it does not say: {}", prune.stdout))
}

/// Publishes `evt-FROM` to `evt-TO` in batches of 500.
async fn publish(service: &Service, topic: &str, numbers: std::ops::Range<usize>) {
    for batch in events(topic, numbers).chunks(500) {
        let answer = service.publish(&Value::from(batch)).await;
        assert_eq!(answer.status, 201, "{}", answer.text());
    }
}

async fn pruning_while_a_publisher_runs_removes_what_is_old_and_nothing_else(world: World) {
    let service = world.serve().await;
    publish(&service, "old", 0..6000).await;
    age(&world, "topic = 'old'").await;
    let arguments = [
        "load",
        "--events",
        "6000",
        "--duplicate-rate",
        "0.3",
        "--url",
        service.url(),
    ];
    let (publisher, first) = join(world.run(&arguments), prune(&world, "30d")).await;
    publisher.ended_with(0);
    assert_eq!((publisher.figure("unique"), publisher.figure("resent")), (4200, 0));
    assert_eq!(pruned(&first), 6000);
    let totals = world.check(4200).await;
    assert_eq!((totals.unique, totals.pruned, totals.received), (10_200, 6000, 12_000));
    let stats = service.json("/stats").await;
    assert_eq!(
        (&stats["unique_processed"], &stats["database_total_rows"]),
        (&Value::from(10_200), &Value::from(4200))
    );
    assert_eq!(pruned(&prune(&world, "30d").await), 0, "there is nothing more to do");
}

async fn pruning_again_and_again_what_is_just_being_published_keeps_every_counter_exact(world: World) {
    let service = world.serve().await;
    let done = Cell::new(false);
    let publishing = async {
        let mut published = 0;
        while !done.get() {
            for topic in ["orders", "logins"] {
                publish(&service, topic, published..published + 100).await;
            }
            published += 100;
        }
        2 * i64::try_from(published).expect("a few")
    };
    let pruning = async {
        let mut removed = 0;
        while removed < 3000 {
            removed += pruned(&prune(&world, "0s").await);
        }
        done.set(true);
        removed
    };
    let (published, removed) = join(publishing, pruning).await;
    let totals = world.check(published - removed).await;
    assert_eq!(
        (totals.unique, totals.received, totals.pruned),
        (published, published, removed)
    );
}

async fn a_walk_that_began_before_a_prune_sees_each_event_that_is_left_once(world: World) {
    let service = world.serve().await;
    publish(&service, "orders", 0..2500).await;
    Walk::default().until(&service, "", 2500, SOON).await;
    let mut walk = Walk::default();
    assert_eq!(walk.step(&service, "").await, 1000, "a page");
    // Half of what is pruned the walk has seen, and half of it it has not.
    world
        .execute("create table old as select event_id from events order by batch, position limit 1500")
        .await;
    age(
        &world,
        "event_id in (select event_id from old) and event_id not in ('evt-100', 'evt-1100')",
    )
    .await;
    assert_eq!(pruned(&prune(&world, "30d").await), 1498);
    publish(&service, "orders", 2500..2700).await;

    walk.until(&service, "", 1000 + 1 + 1000 + 200, SOON).await;
    let rest: Vec<String> = (1500..2700).map(|number| format!("evt-{number}")).collect();
    assert_eq!(walk.event_ids()[1000], "evt-1100");
    assert_eq!(walk.event_ids()[1001..], rest);
    let mut anew = Walk::default();
    anew.until(&service, "", 1202, SOON).await;
    assert_eq!(anew.event_ids()[..2], ["evt-100", "evt-1100"]);
    world.check(1202).await;
}

async fn what_is_not_published_yet_is_kept_and_told_of(world: World) {
    let service = world.serve().await;
    publish(&service, "owed", 0..10).await;
    publish(&service, "done", 0..5).await;
    age(&world, "true").await;
    let owed = "where batch = (select min(batch) from batches)";
    world
        .execute(&format!("update batches set published_at = null {owed}"))
        .await;
    for removed in [5, 0] {
        let ended = prune(&world, "30d").await;
        assert_eq!(
            (pruned(&ended), told(&ended, "kept ")),
            (removed, Some(10)),
            "{}",
            ended.stdout
        );
        world.check(10).await;
    }
    world
        .execute(&format!("update batches set published_at = received_at {owed}"))
        .await;
    let ended = prune(&world, "30d").await;
    assert_eq!((pruned(&ended), told(&ended, "kept ")), (10, None), "{}", ended.stdout);
    world.check(0).await;
}

async fn a_pruned_identity_is_accepted_anew_and_comes_later_in_the_log(world: World) {
    let service = world.serve().await;
    let first = service.publish(&event("orders", "evt-1")).await;
    let ended = prune(&world, "0s").await;
    assert!(ended.stdout.contains("stored again"), "{}", ended.stdout);
    assert_eq!(service.json("/events").await["count"], 0);
    let again = service.publish(&event("orders", "evt-1")).await;
    assert_eq!((first.status, again.status), (201, 201));
    let (first, again) = (verdicts(&first).remove(0), verdicts(&again).remove(0));
    assert_eq!(again.status, "stored");
    assert!(
        again.cursor > first.cursor,
        "{} is not after {}",
        again.cursor,
        first.cursor
    );
    let totals = world.check(1).await;
    assert_eq!((totals.received, totals.unique, totals.pruned), (2, 2, 1));
}

async fn a_dry_run_says_what_a_run_would_do_and_changes_nothing(world: World) {
    let service = world.serve().await;
    publish(&service, "orders", 0..2300).await;
    publish(&service, "logins", 0..50).await;
    age(&world, "topic = 'orders'").await;
    let before = world.check(2350).await;
    let ended = world.run(&["prune", "--older-than", "30d", "--dry-run"]).await;
    ended.ended_with(0);
    assert_eq!(told(&ended, "would prune "), Some(2300), "{}", ended.stdout);
    assert_eq!(world.check(2350).await, before);
    assert_eq!(pruned(&prune(&world, "30d").await), 2300);
    world.check(50).await;
}

/// The bytes that the events take in the store, once it had time to use what is free.
async fn size(world: &World) -> i64 {
    if world.store_name() == "sqlite" {
        // All of the write-ahead log into the file; not while a read or a flush is under way.
        eventually(SOON, async || {
            let busy = world.number("pragma wal_checkpoint(truncate)").await;
            ensure!(busy == 0, "it is in use");
            Ok(())
        })
        .await;
        return world
            .number("select page_count * page_size from pragma_page_count(), pragma_page_size()")
            .await;
    }
    // It keeps what a query that is under way may see, and that reaches back to the oldest transaction of the server.
    eventually(SOON, async || {
        let queries = "select count(*) from pg_stat_activity
            where datname = current_database() and backend_xmin is not null and pid <> pg_backend_pid()";
        ensure!(world.number(queries).await == 0, "a query is under way");
        Ok(())
    })
    .await;
    world.execute("vacuum events").await;
    world.number("select pg_relation_size('events')").await
}

async fn the_room_of_pruned_events_is_used_again(world: World) {
    const EVENTS: usize = 5000;

    let service = world.serve().await;
    publish(&service, "orders", 0..EVENTS).await;
    let before = size(&world).await;
    for round in 1..=2 {
        assert_eq!(pruned(&prune(&world, "0s").await), 5000);
        size(&world).await;
        publish(&service, "orders", round * EVENTS..(round + 1) * EVENTS).await;
        let after = size(&world).await;
        assert!(
            after < before * 5 / 4,
            "it took {before} bytes, and takes {after} after {round} round(s)"
        );
    }
    world.check(5000).await;
}

on_both_stores! {
    pruning_while_a_publisher_runs_removes_what_is_old_and_nothing_else
    pruning_again_and_again_what_is_just_being_published_keeps_every_counter_exact
    a_walk_that_began_before_a_prune_sees_each_event_that_is_left_once
    what_is_not_published_yet_is_kept_and_told_of
    a_pruned_identity_is_accepted_anew_and_comes_later_in_the_log
    a_dry_run_says_what_a_run_would_do_and_changes_nothing
    the_room_of_pruned_events_is_used_again
}
