//! Topics.

use serde_json::{Value, json};

use super::answers::{assert_counts, ids, ids_of};
use crate::deployment::Deployment;
use crate::publish::{Publish, event, events, shuffled};

pub(super) async fn topics_are_kept_apart_and_are_case_sensitive(deployment: &Deployment) {
    let lower = deployment.topic_like("orders");
    let topics = [
        &lower,
        &lower.replace("orders", "Orders"),
        &format!("{lower}."),
        &deployment.topic(),
    ];
    let all: Vec<Value> = topics
        .iter()
        .enumerate()
        .flat_map(|(number, topic)| events(topic, 0..number + 2))
        .collect();
    let mixed: Vec<Value> = shuffled(all.len(), 3)
        .into_iter()
        .map(|number| all[number].clone())
        .collect();
    assert_counts(&deployment.publish(&Value::from(mixed)).await, 201, all.len(), 0);
    for (number, topic) in topics.into_iter().enumerate() {
        let listed = deployment.listed(topic).await;
        let mut found = ids_of(&listed);
        found.sort();
        assert_eq!(found, ids(0..number + 2), "the events of {topic:?}");
        assert!(
            listed.iter().all(|event| event["topic"] == **topic),
            "{topic:?} lists another's: {listed:?}"
        );
        let count = number as u64 + 2;
        assert_eq!(
            deployment.counts(topic).await,
            [count, count, 0, 0],
            "the counters of {topic:?}"
        );
    }
    let body = deployment.json(&format!("/events?topic={lower}")).await;
    assert_eq!(body["topic"], json!(lower), "a list names the requested topic");
    let body = deployment.json("/events?limit=1").await;
    assert_eq!(body["topic"], Value::Null, "a list without a topic names none");
}

pub(super) async fn stats_count_the_unique_events_of_each_topic(deployment: &Deployment) {
    let topic = deployment.topic();
    assert_counts(&deployment.publish(&Value::from(events(&topic, 0..7))).await, 201, 7, 0);
    assert_counts(&deployment.publish(&event(&topic, "evt-3")).await, 200, 0, 1);
    let stats = deployment.json("/stats").await;
    let named = stats["topics"].as_object().expect("/stats has topics");
    match named.get(&topic) {
        Some(count) => assert_eq!(*count, 7, "/stats: the unique events of a topic with a duplicate"),
        // Beyond a thousand topics, small ones are not named.
        None => {
            assert_eq!(
                named.len(),
                1000,
                "/stats does not name the topic {topic}, and names fewer than 1000"
            );
            assert!(
                named.values().all(|count| count.as_u64() >= Some(7)),
                "/stats names smaller topics than {topic}"
            );
        }
    }
}
