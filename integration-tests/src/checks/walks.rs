//! Walks: each event once, in the order of the log, whatever is being committed meanwhile.

use std::cell::Cell;

use anyhow::ensure;
use futures_util::future::{join, join_all};
use serde_json::Value;

use super::answers::{assert_counts, ids, ids_of};
use crate::deployment::{Deployment, PROMPTLY};
use crate::eventually::eventually;
use crate::http::encoded;
use crate::publish::{Publish, Walk, event, events, page, text};

pub(super) async fn a_walk_sees_each_event_once_in_log_order(deployment: &Deployment) {
    let topic = deployment.topic();
    let filter = format!("&topic={topic}");
    assert_counts(
        &deployment.publish(&Value::from(events(&topic, 0..25))).await,
        201,
        25,
        0,
    );
    let mut walk = Walk::default();
    walk.until(deployment, &filter, 25, PROMPTLY).await;
    assert_eq!(walk.event_ids(), ids(0..25), "a walk from the beginning");
    assert_eq!(walk.step(deployment, &filter).await, 0, "nothing is new");
    assert_counts(
        &deployment.publish(&Value::from(events(&topic, 20..30))).await,
        201,
        5,
        5,
    );
    walk.until(deployment, &filter, 30, PROMPTLY).await;
    assert_eq!(walk.event_ids(), ids(0..30), "its end is a place to go on from");

    // Small pages, from a cursor in the middle.
    let mut next = text(&walk.events[9], "cursor");
    let mut seen = Vec::new();
    for _ in 0..100 {
        let page = page(deployment, &format!("after={}&limit=7{filter}", encoded(&next))).await;
        assert!(page.events.len() <= 7, "{} events on a page of 7", page.events.len());
        seen.extend(ids_of(&page.events));
        next = page.next;
        if seen.len() >= 20 {
            break;
        }
    }
    assert_eq!(seen, ids(10..30), "a walk from the tenth event, in pages of seven");
}

pub(super) async fn a_walk_while_many_publish_misses_nothing(deployment: &Deployment) {
    const PUBLISHERS: usize = 8;
    const ROUNDS: usize = 15;

    let topic = deployment.topic();
    let filter = format!("&topic={topic}");
    let done = Cell::new(false);
    let publishing = async {
        join_all((0..PUBLISHERS).map(async |publisher| {
            for round in 0..ROUNDS {
                let batch: Vec<Value> = (0..4)
                    .map(|number| event(&topic, &format!("{publisher}-{round}-{number}")))
                    .collect();
                assert_counts(&deployment.publish(&Value::from(batch)).await, 201, 4, 0);
            }
        }))
        .await;
        done.set(true);
    };
    let walking = async {
        // It notices itself what comes twice or out of order.
        let mut walk = Walk::default();
        while !done.get() {
            walk.step(deployment, &filter).await;
        }
        walk.until(deployment, &filter, PUBLISHERS * ROUNDS * 4, PROMPTLY).await;
        walk
    };
    let ((), walk) = join(publishing, walking).await;
    let listed = deployment.listed(&topic).await;
    assert_eq!(
        walk.event_ids(),
        ids_of(&listed),
        "a walk sees what a list has in the end, in its order"
    );
}

pub(super) async fn a_walk_from_the_next_of_a_list_misses_nothing(deployment: &Deployment) {
    let topic = deployment.topic();
    let empty = page(deployment, &format!("topic={topic}")).await;
    assert_counts(
        &deployment.publish(&Value::from(events(&topic, 0..10))).await,
        201,
        10,
        0,
    );
    let listed = page(deployment, &format!("topic={topic}")).await;
    let newest_first = page(deployment, &format!("topic={topic}&order=desc&limit=1")).await;
    assert_counts(
        &deployment.publish(&Value::from(events(&topic, 10..20))).await,
        201,
        10,
        0,
    );
    for (list, next, missable) in [
        ("an empty list", &empty.next, 0..20),
        ("a list", &listed.next, 10..20),
        ("the newest event", &newest_first.next, 10..20),
    ] {
        let mut next = next.clone();
        let mut walked = Vec::new();
        eventually(PROMPTLY, async || {
            let page = page(deployment, &format!("after={}&topic={topic}", encoded(&next))).await;
            walked.extend(ids_of(&page.events));
            next = page.next;
            let missed: Vec<String> = ids(missable.clone())
                .into_iter()
                .filter(|id| !walked.contains(id))
                .collect();
            ensure!(
                missed.is_empty(),
                "a walk from the next of {list} has not seen {missed:?}"
            );
            Ok(())
        })
        .await;
    }
}
