//! The order of the log.

use serde_json::Value;

use super::answers::{ids_of, outcomes_of};
use crate::deployment::Deployment;
use crate::publish::{event, events, publish_batch, shuffled, text};

pub(super) async fn the_events_of_a_request_keep_its_order(deployment: &Deployment) {
    let topic = deployment.topic();
    let order = shuffled(300, 5);
    let batch: Vec<Value> = order
        .iter()
        .map(|number| event(&topic, &format!("evt-{number}")))
        .collect();
    let sent = ids_of(&batch);
    let cursors = publish_batch(deployment, batch).await;
    let listed = deployment.listed(&topic).await;
    assert_eq!(
        ids_of(&listed),
        sent,
        "/events lists the events of one request in its order"
    );
    assert!(
        cursors.is_sorted(),
        "cursors of one topic compare, byte by byte, in the order of the log"
    );
    let listed_cursors: Vec<String> = listed.iter().map(|event| text(event, "cursor")).collect();
    assert_eq!(
        listed_cursors, cursors,
        "the cursors of the answer are those of the list"
    );
}

pub(super) async fn an_acknowledged_event_precedes_later_ones(deployment: &Deployment) {
    let topic = deployment.topic();
    let mut last = String::new();
    let mut sent = Vec::new();
    for round in 0..30 {
        let batch = events(&topic, round * 3..round * 3 + 3);
        for outcome in outcomes_of(deployment, &batch).await {
            assert!(
                last < outcome.cursor,
                "{outcome:?} is not behind {last}, which was acknowledged before it was sent"
            );
            last.clone_from(&outcome.cursor);
        }
        sent.extend(ids_of(&batch));
    }
    assert_eq!(
        ids_of(&deployment.listed(&topic).await),
        sent,
        "/events lists what was acknowledged first first"
    );
    let newest = deployment
        .json(&format!("/events?topic={topic}&order=desc&limit=1"))
        .await;
    assert_eq!(newest["events"][0]["event_id"], "evt-89", "the newest event");
}
