//! Races: many clients send the same events at once. Each event is stored once, and reported as stored by one answer only.

use std::collections::HashMap;

use futures_util::future::{join, join_all};
use serde_json::Value;

use super::answers::{ids_of, outcomes_of};
use crate::deployment::Deployment;
use crate::publish::{Outcome, event, events, shuffled};

/// Asserts that each event was stored once, and that every other outcome is a duplicate that names the first copy.
fn assert_each_stored_once(outcomes: &[Outcome], events: usize, copies: usize) {
    let mut by_event: HashMap<&str, Vec<&Outcome>> = HashMap::new();
    for outcome in outcomes {
        by_event.entry(&outcome.event_id).or_default().push(outcome);
    }
    assert_eq!(by_event.len(), events, "how many events were answered");
    for (event_id, outcomes) in by_event {
        assert_eq!(outcomes.len(), copies, "the answers to {event_id}");
        let stored: Vec<&&Outcome> = outcomes.iter().filter(|outcome| outcome.status == "stored").collect();
        assert_eq!(
            stored.len(),
            1,
            "{} of {copies} answers report {event_id} as stored",
            stored.len()
        );
        for outcome in &outcomes {
            assert!(
                ["stored", "duplicate"].contains(&outcome.status.as_str()),
                "a copy is no conflict: {outcome:?}"
            );
            assert_eq!(outcome.cursor, stored[0].cursor, "{outcome:?} names another first copy");
            assert_eq!(
                outcome.received_at, stored[0].received_at,
                "{outcome:?} names another first copy"
            );
        }
    }
}

pub(super) async fn events_from_64_clients_at_once_are_stored_once(deployment: &Deployment) {
    const CLIENTS: u64 = 64;

    let topic = deployment.topic();
    let all = events(&topic, 0..200);
    let clients = (0..CLIENTS).map(async |client| {
        let order = shuffled(all.len(), client);
        let mine: Vec<Value> = order.into_iter().map(|number| all[number].clone()).collect();
        let mut outcomes = Vec::new();
        for batch in mine.chunks(25) {
            outcomes.extend(outcomes_of(deployment, batch).await);
        }
        outcomes
    });
    let outcomes = join_all(clients).await.concat();
    assert_each_stored_once(&outcomes, 200, 64);
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
        let outcomes = join_all((0..64).map(|_| outcomes_of(deployment, &copy))).await.concat();
        assert_each_stored_once(&outcomes, 1, 64);
    }
    assert_eq!(
        deployment.counts(&topic).await,
        [256, 4, 252, 0],
        "received, unique, duplicates, conflicts"
    );
}

pub(super) async fn concurrent_equal_batches_are_stored_once(deployment: &Deployment) {
    let topic = deployment.topic();
    for round in 0..10 {
        let batch = events(&topic, round * 50..round * 50 + 50);
        let backwards: Vec<Value> = batch.iter().rev().cloned().collect();
        let (one, other) = join(outcomes_of(deployment, &batch), outcomes_of(deployment, &backwards)).await;
        assert_each_stored_once(&[one, other].concat(), 50, 2);
    }
    assert_eq!(
        deployment.counts(&topic).await,
        [1000, 500, 500, 0],
        "received, unique, duplicates, conflicts"
    );
}
