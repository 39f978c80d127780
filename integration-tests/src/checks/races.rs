//! Races: many clients with the same events at once. Each is stored once, and one answer alone says so.

use std::collections::HashMap;

use futures_util::future::{join, join_all};
use serde_json::Value;

use super::answers::{ids_of, verdicts_of};
use crate::deployment::Deployment;
use crate::publish::{Verdict, event, events, shuffled};

/// Asserts that each event was stored once, and that every other verdict is a duplicate that names the first copy.
fn assert_each_stored_once(verdicts: &[Verdict], events: usize, copies: usize) {
    let mut by_event: HashMap<&str, Vec<&Verdict>> = HashMap::new();
    for verdict in verdicts {
        by_event.entry(&verdict.event_id).or_default().push(verdict);
    }
    assert_eq!(by_event.len(), events, "how many events were answered");
    for (event_id, verdicts) in by_event {
        assert_eq!(verdicts.len(), copies, "the answers to {event_id}");
        let stored: Vec<&&Verdict> = verdicts.iter().filter(|verdict| verdict.status == "stored").collect();
        assert_eq!(
            stored.len(),
            1,
            "{} of {copies} answers say that {event_id} was stored",
            stored.len()
        );
        for verdict in &verdicts {
            assert!(
                ["stored", "duplicate"].contains(&verdict.status.as_str()),
                "a copy is no conflict: {verdict:?}"
            );
            assert_eq!(verdict.cursor, stored[0].cursor, "{verdict:?} names another first copy");
            assert_eq!(
                verdict.received_at, stored[0].received_at,
                "{verdict:?} names another first copy"
            );
        }
    }
}

pub(super) async fn each_of_200_events_that_64_clients_publish_at_once_is_stored_in_exactly_one_answer(
    deployment: &Deployment,
) {
    const CLIENTS: u64 = 64;

    let topic = deployment.topic();
    let all = events(&topic, 0..200);
    let clients = (0..CLIENTS).map(async |client| {
        let order = shuffled(all.len(), client);
        let mine: Vec<Value> = order.into_iter().map(|number| all[number].clone()).collect();
        let mut verdicts = Vec::new();
        for batch in mine.chunks(25) {
            verdicts.extend(verdicts_of(deployment, batch).await);
        }
        verdicts
    });
    let verdicts = join_all(clients).await.concat();
    assert_each_stored_once(&verdicts, 200, 64);
    let counts = deployment.counts(&topic).await;
    assert_eq!(
        counts,
        [200 * CLIENTS, 200, 200 * (CLIENTS - 1), 0],
        "received, unique, duplicates, conflicts"
    );
    let mut listed = ids_of(&deployment.listed(&topic).await);
    listed.sort_unstable();
    let mut expected = ids_of(&all);
    expected.sort_unstable();
    assert_eq!(listed, expected, "each event is listed once");
}

pub(super) async fn one_event_from_64_clients_at_once_is_stored_once(deployment: &Deployment) {
    let topic = deployment.topic();
    for round in 0..4 {
        let copy = [event(&topic, &format!("evt-{round}"))];
        let verdicts = join_all((0..64).map(|_| verdicts_of(deployment, &copy))).await.concat();
        assert_each_stored_once(&verdicts, 1, 64);
    }
    assert_eq!(
        deployment.counts(&topic).await,
        [256, 4, 252, 0],
        "received, unique, duplicates, conflicts"
    );
}

pub(super) async fn of_two_equal_batches_at_once_each_event_is_stored_once(deployment: &Deployment) {
    let topic = deployment.topic();
    for round in 0..10 {
        let batch = events(&topic, round * 50..round * 50 + 50);
        let backwards: Vec<Value> = batch.iter().rev().cloned().collect();
        let (one, other) = join(verdicts_of(deployment, &batch), verdicts_of(deployment, &backwards)).await;
        assert_each_stored_once(&[one, other].concat(), 50, 2);
    }
    assert_eq!(
        deployment.counts(&topic).await,
        [1000, 500, 500, 0],
        "received, unique, duplicates, conflicts"
    );
}
