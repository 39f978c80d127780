//! Many subscribers of `/events/stream` at once.

use futures_util::{StreamExt, stream};
use integration_tests::eventually::SOON;
use integration_tests::publish::{Scan, text};
use integration_tests::stream_subscriber::StreamSubscriber;
use integration_tests::world::World;
use tokio::task::JoinSet;

use crate::alone;

/// The most memory that the service may use, in bytes.
const MEMORY: u64 = 150 << 20;

#[tokio::test]
async fn get_each_event_and_do_not_slow_publishing() {
    const SUBSCRIBERS: usize = 500;
    const EVENTS: usize = 400;
    // Other work of the machine may slow down a run.
    const RUNS: usize = 3;

    let _alone = alone().await;
    let world = World::new().await;
    let service = world.serve().await;
    let load = [
        "--events",
        "400",
        "--duplicate-rate",
        "0",
        "--rate",
        "100",
        "--batch-size",
        "10",
    ];
    let fastest = async || {
        let mut fastest = 0;
        for _ in 0..RUNS {
            fastest = fastest.max(world.load(service.url(), &load).await.count("events/s"));
        }
        fastest
    };
    let alone = fastest().await;
    let subscribers: Vec<StreamSubscriber> = stream::iter(0..SUBSCRIBERS)
        .map(|_| StreamSubscriber::open(&service, "", None))
        .buffer_unordered(16)
        .collect()
        .await;
    let mut reading = JoinSet::new();
    for mut subscriber in subscribers {
        reading.spawn(async move {
            let frames = subscriber.collect(RUNS * EVENTS, 4 * SOON).await;
            let cursors: Vec<String> = frames.into_iter().map(|frame| frame.id).collect();
            (cursors, subscriber)
        });
    }
    let subscribed = fastest().await;
    let subscribers = reading.join_all().await;
    assert!(
        subscribed * 10 >= alone * 9,
        "{alone} events/s alone, {subscribed} with {SUBSCRIBERS} subscribers"
    );
    assert!(service.resident_bytes() < MEMORY, "{} bytes", service.resident_bytes());
    let expected = &subscribers[0].0;
    assert!(
        expected.is_sorted_by(|one, next| one < next),
        "in the order of the log, once"
    );
    assert!(subscribers.iter().all(|(cursors, _)| cursors == expected));
    let mut scan = Scan::default();
    scan.until(&service, "", 2 * RUNS * EVENTS, SOON).await;
    let stored: Vec<String> = scan.events[RUNS * EVENTS..]
        .iter()
        .map(|event| text(event, "cursor"))
        .collect();
    assert_eq!(*expected, stored);
    world.check(i64::try_from(2 * RUNS * EVENTS).expect("a few")).await;
}
