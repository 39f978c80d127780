//! The main job on real input: 20 000 events with 30 % duplicates go in, 14 000 rows come out, and the counters say so,
//! whatever is killed on the way.

use futures_util::future::join;
use integration_tests::eventually::{SOON, eventually};
use integration_tests::on_both_stores;
use integration_tests::postgres::{PostgresServer, free_port};
use integration_tests::publish::Walk;
use integration_tests::service::{Finished, Service};
use integration_tests::world::{Totals, World};

const EVENTS: i64 = 20_000;
const UNIQUE: i64 = 14_000;

async fn publish_main_job(world: &World, service: &Service) -> Finished {
    let arguments = [
        "load",
        "--events",
        "20000",
        "--duplicate-rate",
        "0.3",
        "--url",
        service.url(),
    ];
    world.run(&arguments).await
}

/// Waits until the store has received this many events.
async fn received(world: &World, count: i64) {
    eventually(SOON, async || {
        let received = world
            .number("select cast(coalesce(sum(received), 0) as bigint) from topic_counts")
            .await;
        anyhow::ensure!(received >= count, "{received} of {count} received");
        Ok(())
    })
    .await;
}

/// Asserts what holds after the main job, whatever was killed: and only what was resent may be counted more than once.
fn assert_done(publisher: &Finished, totals: Totals) {
    publisher.ended_with(0);
    assert_eq!(publisher.figure("sent"), EVENTS);
    assert_eq!(publisher.figure("unique"), UNIQUE);
    assert_eq!(publisher.figure("duplicates"), EVENTS - UNIQUE);
    let (again, resent) = (totals.received - EVENTS, publisher.figure("resent"));
    assert!(
        (0..=resent).contains(&again),
        "{again} events were counted once more, and {resent} were resent: {totals:?}"
    );
    assert_eq!((totals.unique, totals.conflicts), (UNIQUE, 0));
}

async fn twenty_thousand_events_with_thirty_percent_duplicates_are_stored_and_counted_exactly(world: World) {
    let service = world.serve().await;
    let publisher = publish_main_job(&world, &service).await;
    let totals = world.check(UNIQUE).await;
    assert_done(&publisher, totals);
    assert_eq!(totals.received, EVENTS, "nothing failed, so nothing was sent again");
    let stats = service.json("/stats").await;
    assert_eq!(
        [
            &stats["received"],
            &stats["unique_processed"],
            &stats["duplicate_dropped"],
            &stats["database_total_rows"]
        ],
        [20_000, 14_000, 6_000, 14_000]
    );
    let mut walk = Walk::default();
    walk.until(&service, "", 14_000, SOON).await;
}

async fn the_service_killed_ten_times_on_the_way_loses_nothing_and_counts_nothing_twice(world: World) {
    const KILLS: i64 = 10;

    // A port that no outgoing connection takes while the service is down.
    let port = free_port().to_string();
    let mut service = world.serve_with(world.settings().with("PORT", &port)).await;
    let url = service.url().to_owned();
    let arguments = ["load", "--events", "20000", "--duplicate-rate", "0.3", "--url", &url];
    let killing = async {
        for kill in 1..=KILLS {
            received(&world, kill * 1500).await;
            service.restart().await;
        }
    };
    let (publisher, ()) = join(world.run(&arguments), killing).await;
    assert_done(&publisher, world.check(UNIQUE).await);
    assert!(
        publisher.figure("resent") > 0,
        "ten kills under load met no request: {}",
        publisher.stdout
    );
    service.ready().await;
    let mut walk = Walk::default();
    walk.until(&service, "", 14_000, SOON).await;
}

#[tokio::test]
async fn postgresql_killed_on_the_way_loses_nothing_and_counts_nothing_twice() {
    let mut server = PostgresServer::new().await;
    let world = World::on(&server).await;
    let service = world.serve().await;
    let killing = async {
        for kill in 1..=3 {
            received(&world, kill * 5000).await;
            server.kill().await;
            server.start().await;
        }
    };
    let (publisher, ()) = join(publish_main_job(&world, &service), killing).await;
    assert_done(&publisher, world.check(UNIQUE).await);
    let mut walk = Walk::default();
    walk.until(&service, "", 14_000, SOON).await;
}

on_both_stores! {
    twenty_thousand_events_with_thirty_percent_duplicates_are_stored_and_counted_exactly
    the_service_killed_ten_times_on_the_way_loses_nothing_and_counts_nothing_twice
}
