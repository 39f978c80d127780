//! `eventsieve prune`, beside a running service: old events are removed, and all counters stay exact.

use std::cell::Cell;

use anyhow::ensure;
use futures_util::future::join;
use integration_tests::eventually::{SOON, eventually};
use integration_tests::on_both_stores;
use integration_tests::publish::{Publish, Scan, event, events, outcomes};
use integration_tests::service::{Finished, Service};
use integration_tests::world::World;
use serde_json::Value;

/// Makes the events that an SQL condition selects ninety days older.
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

/// Prunes events that were received longer ago than this.
async fn prune(world: &World, older_than: &str) -> Finished {
    let ended = world.run(&["prune", "--older-than", older_than]).await;
    ended.ended_with(0);
    ended
}

/// The number of events in the output line that begins with this word; none without such a line.
fn reported(prune: &Finished, words: &str) -> Option<i64> {
    let rest = prune.stdout.lines().find_map(|line| line.strip_prefix(words))?;
    rest.split_whitespace().next()?.parse().ok()
}

/// The number of removed events in the output.
#[track_caller]
fn pruned(prune: &Finished) -> i64 {
    reported(prune, "pruned ").unwrap_or_else(|| panic!("no number in the output: {}", prune.stdout))
}

/// Publishes `evt-FROM` to `evt-TO` in batches of 500.
async fn publish(service: &Service, topic: &str, numbers: std::ops::Range<usize>) {
    for batch in events(topic, numbers).chunks(500) {
        let answer = service.publish(&Value::from(batch)).await;
        assert_eq!(answer.status, 201, "{}", answer.text());
    }
}

async fn removes_only_old_events_during_load(world: World) {
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
    assert_eq!((publisher.count("unique"), publisher.count("resent")), (4200, 0));
    assert_eq!(pruned(&first), 6000);
    let totals = world.check(4200).await;
    assert_eq!((totals.unique, totals.pruned, totals.received), (10_200, 6000, 12_000));
    let stats = service.json("/stats").await;
    assert_eq!(
        (&stats["unique_processed"], &stats["database_total_rows"]),
        (&Value::from(10_200), &Value::from(4200))
    );
    assert_eq!(pruned(&prune(&world, "30d").await), 0, "there is nothing left to prune");
}

async fn during_publishing_keeps_counters_exact(world: World) {
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

async fn cursor_read_survives_it(world: World) {
    let service = world.serve().await;
    publish(&service, "orders", 0..2500).await;
    Scan::default().until(&service, "", 2500, SOON).await;
    let mut scan = Scan::default();
    assert_eq!(scan.step(&service, "").await, 1000, "a page");
    // The cursor read has seen half of the events that are pruned.
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

    scan.until(&service, "", 1000 + 1 + 1000 + 200, SOON).await;
    let rest: Vec<String> = (1500..2700).map(|number| format!("evt-{number}")).collect();
    assert_eq!(scan.event_ids()[1000], "evt-1100");
    assert_eq!(scan.event_ids()[1001..], rest);
    let mut fresh = Scan::default();
    fresh.until(&service, "", 1202, SOON).await;
    assert_eq!(fresh.event_ids()[..2], ["evt-100", "evt-1100"]);
    world.check(1202).await;
}

async fn keeps_and_reports_unpublished_events(world: World) {
    let service = world.serve().await;
    publish(&service, "unpublished", 0..10).await;
    publish(&service, "published", 0..5).await;
    age(&world, "true").await;
    let of_first_batch = "where batch = (select min(batch) from batches)";
    world
        .execute(&format!("update batches set published_at = null {of_first_batch}"))
        .await;
    for removed in [5, 0] {
        let ended = prune(&world, "30d").await;
        assert_eq!(
            (pruned(&ended), reported(&ended, "kept ")),
            (removed, Some(10)),
            "{}",
            ended.stdout
        );
        world.check(10).await;
    }
    world
        .execute(&format!(
            "update batches set published_at = received_at {of_first_batch}"
        ))
        .await;
    let ended = prune(&world, "30d").await;
    assert_eq!(
        (pruned(&ended), reported(&ended, "kept ")),
        (10, None),
        "{}",
        ended.stdout
    );
    world.check(0).await;
}

async fn pruned_event_is_a_duplicate_when_it_comes_again(world: World) {
    let service = world.serve().await;
    let first = service.publish(&event("orders", "evt-1")).await;
    assert_eq!(pruned(&prune(&world, "0s").await), 1);
    assert_eq!(service.json("/events").await["count"], 0);
    let again = service.publish(&event("orders", "evt-1")).await;
    assert_eq!((first.status, again.status), (201, 200));
    let (first, again) = (outcomes(&first).remove(0), outcomes(&again).remove(0));
    assert_eq!(again.status, "duplicate");
    assert_eq!(again.cursor, first.cursor);
    let totals = world.check(0).await;
    assert_eq!((totals.received, totals.unique, totals.pruned), (2, 1, 1));
}

async fn only_topics_that_match_are_pruned(world: World) {
    let service = world.serve().await;
    publish(&service, "debug.a", 0..20).await;
    publish(&service, "orders", 0..30).await;
    let run = async |arguments: &[&str]| {
        let arguments = [&["prune", "--older-than", "0s", "--topic", "debug.*"], arguments].concat();
        let ended = world.run(&arguments).await;
        ended.ended_with(0);
        ended
    };
    assert_eq!(reported(&run(&["--dry-run"]).await, "would prune "), Some(20));
    world.check(50).await;
    assert_eq!(pruned(&run(&[]).await), 20);
    world.check(30).await;
    let refused = world.run(&["prune", "--older-than", "0s", "--topic", "a b"]).await;
    refused.ended_with(64);
    assert!(refused.stderr.contains("white space"), "{}", refused.stderr);
}

async fn dry_run_reports_and_changes_nothing(world: World) {
    let service = world.serve().await;
    publish(&service, "orders", 0..2300).await;
    publish(&service, "logins", 0..50).await;
    age(&world, "topic = 'orders'").await;
    let before = world.check(2350).await;
    let ended = world.run(&["prune", "--older-than", "30d", "--dry-run"]).await;
    ended.ended_with(0);
    assert_eq!(reported(&ended, "would prune "), Some(2300), "{}", ended.stdout);
    assert_eq!(world.check(2350).await, before);
    assert_eq!(pruned(&prune(&world, "30d").await), 2300);
    world.check(50).await;
}

/// What the events take on disk in bytes; of an embedded store, the size of its file.
async fn size(world: &World) -> i64 {
    if world.store_name() == "sqlite" {
        // The write-ahead log is copied to the file, which fails during a read or a commit.
        eventually(SOON, async || {
            let busy = world.number("pragma wal_checkpoint(truncate)").await;
            ensure!(busy == 0, "it is in use");
            Ok(())
        })
        .await;
        return i64::try_from(world.sqlite().path().metadata().expect("the file is there").len()).expect("it is small");
    }
    world
        .number("select sum(pg_total_relation_size(relid))::bigint from pg_partition_tree('events')")
        .await
}

async fn space_of_pruned_events_is_back_at_once(world: World) {
    let service = world.serve().await;
    publish(&service, "orders", 0..5000).await;
    let before = size(&world).await;
    assert_eq!(pruned(&prune(&world, "0s").await), 5000);
    let after = size(&world).await;
    // Identities stay.
    assert!(after * 2 < before, "{before} bytes, then {after}");
    publish(&service, "orders", 5000..5100).await;
    world.check(100).await;
}

on_both_stores! {
    removes_only_old_events_during_load
    during_publishing_keeps_counters_exact
    cursor_read_survives_it
    keeps_and_reports_unpublished_events
    pruned_event_is_a_duplicate_when_it_comes_again
    only_topics_that_match_are_pruned
    dry_run_reports_and_changes_nothing
    space_of_pruned_events_is_back_at_once
}
