//! Many subscribers of `/events/stream` at once.

use futures_util::{StreamExt, stream};
use integration_tests::eventually::SOON;
use integration_tests::follower::Follower;
use integration_tests::publish::{Walk, text};
use integration_tests::world::World;
use tokio::task::JoinSet;

use crate::alone;

/// The most memory that a service may take, in bytes.
const MEMORY: u64 = 150 << 20;

#[tokio::test]
async fn five_hundred_followers_get_everything_and_do_not_slow_publishing() {
    const FOLLOWERS: usize = 500;
    const EVENTS: usize = 400;
    // What else the machine does may spoil one run or another.
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
            fastest = fastest.max(world.load(service.url(), &load).await.figure("events/s"));
        }
        fastest
    };
    let alone = fastest().await;
    let followers: Vec<Follower> = stream::iter(0..FOLLOWERS)
        .map(|_| Follower::open(&service, "", None))
        .buffer_unordered(16)
        .collect()
        .await;
    let mut following = JoinSet::new();
    for mut follower in followers {
        following.spawn(async move {
            let frames = follower.collect(RUNS * EVENTS, 4 * SOON).await;
            let cursors: Vec<String> = frames.into_iter().map(|frame| frame.id).collect();
            (cursors, follower)
        });
    }
    let followed = fastest().await;
    let followers = following.join_all().await;
    assert!(
        followed * 10 >= alone * 9,
        "{alone} events/s alone, {followed} with {FOLLOWERS} followers"
    );
    assert!(service.resident_bytes() < MEMORY, "{} bytes", service.resident_bytes());
    let expected = &followers[0].0;
    assert!(
        expected.is_sorted_by(|one, next| one < next),
        "in the order of the log, once"
    );
    assert!(followers.iter().all(|(cursors, _)| cursors == expected));
    let mut walk = Walk::default();
    walk.until(&service, "", 2 * RUNS * EVENTS, SOON).await;
    let stored: Vec<String> = walk.events[RUNS * EVENTS..]
        .iter()
        .map(|event| text(event, "cursor"))
        .collect();
    assert_eq!(*expected, stored);
    world.check(i64::try_from(2 * RUNS * EVENTS).expect("a few")).await;
}
