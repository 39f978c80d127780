//! 20 000 events with 30 % duplicates are published, 14 000 are stored, and all counters agree, whatever is killed meanwhile.

use futures_util::future::join;
use integration_tests::eventually::{SOON, eventually};
use integration_tests::on_both_stores;
use integration_tests::postgres::{PostgresServer, free_port};
use integration_tests::publish::Scan;
use integration_tests::service::{Finished, Service};
use integration_tests::world::{Totals, World};

const EVENTS: i64 = 20_000;
const UNIQUE: i64 = 14_000;

async fn publish_all(world: &World, service: &Service) -> Finished {
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

/// Asserts the result, whatever was killed. Events may have been received once more only if they were resent.
fn assert_done(publisher: &Finished, totals: Totals) {
    publisher.ended_with(0);
    assert_eq!(publisher.count("sent"), EVENTS);
    assert_eq!(publisher.count("unique"), UNIQUE);
    assert_eq!(publisher.count("duplicates"), EVENTS - UNIQUE);
    // Each event that was sent again may have been received once more.
    let (again, resent) = (totals.received - EVENTS, publisher.count("resent"));
    assert!(
        (0..=resent).contains(&again),
        "{again} events were received once more, {resent} were resent: {totals:?}"
    );
    assert_eq!((totals.unique, totals.conflicts), (UNIQUE, 0));
}

async fn twenty_thousand_events_are_counted_exactly(world: World) {
    let service = world.serve().await;
    let publisher = publish_all(&world, &service).await;
    let totals = world.check(UNIQUE).await;
    assert_done(&publisher, totals);
    assert_eq!(totals.received, EVENTS, "nothing failed, so nothing was resent");
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
    let mut scan = Scan::default();
    scan.until(&service, "", 14_000, SOON).await;
}

async fn ten_service_kills_lose_and_repeat_nothing(world: World) {
    const KILLS: i64 = 10;

    // A port that no outgoing connection gets while the service is down.
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
        publisher.count("resent") > 0,
        "ten kills under load interrupted no request: {}",
        publisher.stdout
    );
    service.ready().await;
    let mut scan = Scan::default();
    scan.until(&service, "", 14_000, SOON).await;
}

#[tokio::test]
async fn postgres_kills_lose_and_repeat_nothing() {
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
    let (publisher, ()) = join(publish_all(&world, &service), killing).await;
    assert_done(&publisher, world.check(UNIQUE).await);
    let mut scan = Scan::default();
    scan.until(&service, "", 14_000, SOON).await;
}

on_both_stores! {
    twenty_thousand_events_are_counted_exactly
    ten_service_kills_lose_and_repeat_nothing
}
