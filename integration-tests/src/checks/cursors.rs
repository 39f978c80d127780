//! Cursor reads: each event once, in the order of the log, whatever is committed meanwhile.

use std::cell::Cell;

use anyhow::ensure;
use futures_util::future::{join, join_all};
use serde_json::Value;

use super::answers::{assert_counts, ids, ids_of};
use crate::deployment::{Deployment, PROMPTLY};
use crate::eventually::eventually;
use crate::http::encoded;
use crate::publish::{Publish, Scan, event, events, page, text};

pub(super) async fn a_cursor_read_sees_each_event_once_in_log_order(deployment: &Deployment) {
    let topic = deployment.topic();
    let filter = format!("&topic={topic}");
    assert_counts(
        &deployment.publish(&Value::from(events(&topic, 0..25))).await,
        201,
        25,
        0,
    );
    let mut scan = Scan::default();
    scan.until(deployment, &filter, 25, PROMPTLY).await;
    assert_eq!(scan.event_ids(), ids(0..25), "a cursor read from the beginning");
    assert_eq!(scan.step(deployment, &filter).await, 0, "nothing is new");
    assert_counts(
        &deployment.publish(&Value::from(events(&topic, 20..30))).await,
        201,
        5,
        5,
    );
    scan.until(deployment, &filter, 30, PROMPTLY).await;
    assert_eq!(scan.event_ids(), ids(0..30), "a cursor read continues from its end");

    // Small pages, from a cursor in the middle.
    let mut next = text(&scan.events[9], "cursor");
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
    assert_eq!(
        seen,
        ids(10..30),
        "a cursor read from the tenth event, in pages of seven"
    );
}

pub(super) async fn a_cursor_read_while_many_publish_misses_nothing(deployment: &Deployment) {
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
    let scanning = async {
        // It fails if an event comes twice or out of order.
        let mut scan = Scan::default();
        while !done.get() {
            scan.step(deployment, &filter).await;
        }
        scan.until(deployment, &filter, PUBLISHERS * ROUNDS * 4, PROMPTLY).await;
        scan
    };
    let ((), scan) = join(publishing, scanning).await;
    let listed = deployment.listed(&topic).await;
    assert_eq!(
        scan.event_ids(),
        ids_of(&listed),
        "a cursor read returns the events of the list, in the same order"
    );
}

pub(super) async fn a_cursor_read_from_next_of_a_list_misses_nothing(deployment: &Deployment) {
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
        let mut scanned = Vec::new();
        eventually(PROMPTLY, async || {
            let page = page(deployment, &format!("after={}&topic={topic}", encoded(&next))).await;
            scanned.extend(ids_of(&page.events));
            next = page.next;
            let missed: Vec<String> = ids(missable.clone())
                .into_iter()
                .filter(|id| !scanned.contains(id))
                .collect();
            ensure!(
                missed.is_empty(),
                "a cursor read from the next of {list} has not returned {missed:?}"
            );
            Ok(())
        })
        .await;
    }
}
