//! Duplicates: each identity is stored once, and the first copy wins.

use serde_json::{Value, json};

use super::answers::{assert_counts, ids_of, publish_payload};
use crate::deployment::Deployment;
use crate::publish::{Publish, event, events, outcomes, statuses};

pub(super) async fn a_copy_is_a_duplicate_and_names_the_first_copy(deployment: &Deployment) {
    let topic = deployment.topic();
    let first = deployment.publish(&event(&topic, "evt-1")).await;
    assert_counts(&first, 201, 1, 0);
    let second = deployment.publish(&event(&topic, "evt-1")).await;
    assert_counts(&second, 200, 0, 1);
    let (stored, duplicate) = (&outcomes(&first)[0], &outcomes(&second)[0]);
    let found = (stored.status.as_str(), duplicate.status.as_str());
    assert_eq!(
        found,
        ("stored", "duplicate"),
        "the statuses of an event and of its copy"
    );
    assert_eq!(stored.cursor, duplicate.cursor, "the cursor is that of the first copy");
    assert_eq!(
        stored.received_at, duplicate.received_at,
        "the time is that of the first copy"
    );
}

pub(super) async fn copies_in_one_request_are_stored_once(deployment: &Deployment) {
    let topic = deployment.topic();
    let mut other = event(&topic, "evt-b");
    other["payload"] = json!({"another": "payload"});
    let batch = json!([
        event(&topic, "evt-b"),
        event(&topic, "evt-a"),
        event(&topic, "evt-b"),
        other,
        event(&topic, "evt-a")
    ]);
    let answer = deployment.publish_preferring("return=representation", &batch).await;
    assert_counts(&answer, 201, 2, 3);
    let expected = ["stored", "stored", "duplicate", "conflict", "duplicate"];
    assert_eq!(statuses(&answer), expected, "the outcomes, in the order of the request");
    let outcomes = outcomes(&answer);
    assert_eq!(
        outcomes[0].cursor, outcomes[2].cursor,
        "a copy names the first copy's cursor"
    );
    assert_eq!(
        outcomes[0].cursor, outcomes[3].cursor,
        "a conflict names the first copy's cursor"
    );
    assert_eq!(
        outcomes[1].cursor, outcomes[4].cursor,
        "a copy names the first copy's cursor"
    );
    let listed = deployment.listed(&topic).await;
    assert_eq!(
        ids_of(&listed),
        ["evt-b", "evt-a"],
        "what is stored of two events and three copies"
    );
}

pub(super) async fn the_first_copy_wins_and_a_duplicate_changes_nothing(deployment: &Deployment) {
    let topic = deployment.topic();
    let first = event(&topic, "evt-1");
    assert_counts(&deployment.publish(&first).await, 201, 1, 0);
    let before = deployment.listed(&topic).await;
    let mut later = first.clone();
    later["timestamp"] = json!("2030-01-01T00:00:00Z");
    later["source"] = json!("another-source");
    let answer = deployment.publish(&later).await;
    assert_counts(&answer, 200, 0, 1);
    assert_eq!(
        statuses(&answer),
        ["duplicate"],
        "the payload is the same, so it is no conflict"
    );
    later["payload"] = json!({"quite": "another"});
    let answer = deployment.publish(&later).await;
    assert_counts(&answer, 200, 0, 1);
    assert_eq!(statuses(&answer), ["conflict"], "the payload is another");
    assert_eq!(
        deployment.listed(&topic).await,
        before,
        "a later copy changed what is stored"
    );
}

pub(super) async fn payloads_are_compared_as_json_values(deployment: &Deployment) {
    let topic = deployment.topic();
    let send = async |payload: &str| {
        let answer = publish_payload(deployment, &topic, "evt-1", payload).await;
        statuses(&answer).remove(0)
    };
    assert_eq!(send(r#"{"a": 1.0, "b": [1, 2], "c": 10}"#).await, "stored");
    for same in [
        r#"{"a": 1.0, "b": [1, 2], "c": 10}"#,
        r#"{ "c":1e1,"a":1,"b":[1,2] }"#,
        r#"{"a": 7, "b": [1, 2], "c": 10, "a": 1}"#,
    ] {
        assert_eq!(send(same).await, "duplicate", "{same} is the same JSON value");
    }
    for other in [
        r#"{"a": 1.0, "b": [2, 1], "c": 10}"#,
        r#"{"a": 1.0, "b": [1, 2]}"#,
        r#"{"a": "1.0", "b": [1, 2], "c": 10}"#,
        r#"{"a": 1.0000000000000000000001, "b": [1, 2], "c": 10}"#,
    ] {
        assert_eq!(send(other).await, "conflict", "{other} is another JSON value");
    }
    let counts = deployment.counts(&topic).await;
    assert_eq!(counts, [8, 1, 7, 4], "received, unique, duplicates and conflicts");
}

pub(super) async fn identities_are_compared_byte_for_byte(deployment: &Deployment) {
    let topic = deployment.topic();
    // Each pair is equal after folding of case, trimming, or normalisation.
    let ids = ["a", "A", "a ", " a", "\u{e9}", "e\u{301}", "\u{212b}", "\u{c5}"];
    let batch: Vec<Value> = ids.iter().map(|id| event(&topic, id)).collect();
    let answer = deployment
        .publish_preferring("return=representation", &Value::from(batch))
        .await;
    let results = answer.json()["results"].clone();
    for (index, id) in ids.iter().enumerate() {
        assert_eq!(results[index]["status"], "stored", "{id:?} is an id of its own");
    }
    assert_eq!(
        ids_of(&deployment.listed(&topic).await),
        ids,
        "the ids as they are listed"
    );
    for id in ids {
        let again = deployment.publish(&event(&topic, id)).await;
        assert_eq!(statuses(&again), ["duplicate"], "{id:?} again");
    }
}

pub(super) async fn the_same_id_in_another_topic_is_another_event(deployment: &Deployment) {
    let (one, other) = (deployment.topic(), deployment.topic());
    let both = json!([event(&one, "evt-1"), event(&other, "evt-1")]);
    assert_counts(&deployment.publish(&both).await, 201, 2, 0);
    assert_counts(&deployment.publish(&both).await, 200, 0, 2);
    for topic in [&one, &other] {
        assert_eq!(
            deployment.counts(topic).await,
            [2, 1, 1, 0],
            "the counters of each topic"
        );
    }
}

pub(super) async fn a_request_that_is_sent_again_stores_nothing_twice(deployment: &Deployment) {
    let topic = deployment.topic();
    let batch = Value::from(events(&topic, 0..50));
    assert_counts(&deployment.publish(&batch).await, 201, 50, 0);
    let before = deployment.listed(&topic).await;
    for _ in 0..3 {
        assert_counts(&deployment.publish(&batch).await, 200, 0, 50);
    }
    let grown = Value::from(events(&topic, 40..60));
    assert_counts(&deployment.publish(&grown).await, 201, 10, 10);
    let after = deployment.listed(&topic).await;
    assert_eq!(after.len(), 60, "how many different events are stored");
    assert_eq!(after[..50], before, "what was stored first has not changed");
    assert_eq!(deployment.counts(&topic).await, [220, 60, 160, 0]);
}
