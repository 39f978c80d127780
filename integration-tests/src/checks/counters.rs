//! The counters: exact, and consistent at every instant.

use anyhow::ensure;
use futures_util::future::join_all;
use serde_json::{Value, json};

use super::answers::{assert_counts, outcomes_of};
use crate::deployment::{Deployment, PROMPTLY};
use crate::eventually::eventually;
use crate::http::ask;
use crate::publish::{Publish, event, events};

pub(super) async fn the_counters_of_a_topic_are_exact(deployment: &Deployment) {
    let topic = deployment.topic();
    assert_counts(
        &deployment.publish(&Value::from(events(&topic, 0..10))).await,
        201,
        10,
        0,
    );
    assert_eq!(deployment.counts(&topic).await, [10, 10, 0, 0], "after ten new events");
    let copies = [events(&topic, 10..13), events(&topic, 10..13)].concat();
    assert_counts(&deployment.publish(&Value::from(copies)).await, 201, 3, 3);
    assert_eq!(
        deployment.counts(&topic).await,
        [16, 13, 3, 0],
        "after three more, each twice in one request"
    );
    assert_counts(
        &deployment.publish(&Value::from(events(&topic, 5..15))).await,
        201,
        2,
        8,
    );
    assert_eq!(
        deployment.counts(&topic).await,
        [26, 15, 11, 0],
        "after eight of other requests and two new ones"
    );
    let mut conflicting = event(&topic, "evt-0");
    conflicting["payload"] = json!({"another": 1});
    assert_counts(&deployment.publish(&conflicting).await, 200, 0, 1);
    assert_eq!(
        deployment.counts(&topic).await,
        [27, 15, 12, 1],
        "a conflict is a duplicate, and a conflict"
    );
}

pub(super) async fn rejected_events_are_not_received(deployment: &Deployment) {
    let topic = deployment.topic();
    let mut batch = events(&topic, 0..4);
    batch[1]["source"] = json!("");
    let batch = Value::from(batch);
    assert_eq!(deployment.publish(&batch).await.status, 422, "one event is invalid");
    assert_eq!(
        deployment.counts(&topic).await,
        [0; 4],
        "a rejected request is not received"
    );
    let answer = deployment.publish_preferring("handling=lenient", &batch).await;
    assert_counts(&answer, 201, 3, 0);
    assert_eq!(
        deployment.counts(&topic).await,
        [3, 3, 0, 0],
        "of a lenient request, the valid events"
    );
}

pub(super) async fn an_unknown_topic_has_zero_counters(deployment: &Deployment) {
    let topic = deployment.topic();
    assert_eq!(deployment.counts(&topic).await, [0; 4], "of an unused topic");
    assert_eq!(
        deployment.listed(&topic).await,
        [Value::Null; 0],
        "events of an unused topic"
    );
}

pub(super) async fn events_accepted_with_202_are_counted_later(deployment: &Deployment) {
    let topic = deployment.topic();
    for batch in [events(&topic, 0..20), events(&topic, 10..25)] {
        let accepted = deployment
            .publish_preferring("respond-async", &Value::from(batch))
            .await;
        assert_eq!(accepted.status, 202, "{}", accepted.text());
        // Behind a balancer another replica may answer this; the condition below waits for the events.
        let flushed = ask(deployment.post("/_flush")).await;
        assert_eq!(flushed.status, 200, "/_flush: {}", flushed.text());
    }
    eventually(PROMPTLY, async || {
        let counts = deployment.counts(&topic).await;
        ensure!(
            counts == [35, 25, 10, 0],
            "received, unique, duplicates, conflicts: {counts:?}, not [35, 25, 10, 0]"
        );
        Ok(())
    })
    .await;
    assert_eq!(deployment.listed(&topic).await.len(), 25, "what is counted is listed");
}

pub(super) async fn received_always_equals_unique_plus_duplicates(deployment: &Deployment) {
    let topic = deployment.topic();
    let publish = async {
        for round in 0..30 {
            // Half of each batch was sent in the round before.
            let batch = Value::from(events(&topic, round * 10..round * 10 + 20));
            let answer = deployment.publish(&batch).await;
            assert_eq!(answer.status, 201, "{}", answer.text());
        }
    };
    let observe = async {
        let mut before = [0; 4];
        loop {
            let counts = deployment.counts(&topic).await;
            let [received, unique, duplicates, _] = counts;
            assert_eq!(
                received,
                unique + duplicates,
                "received is unique and duplicates together: {counts:?}"
            );
            assert_none_decreased(before, counts);
            before = counts;
        }
    };
    tokio::select! {
        () = publish => {}
        () = observe => {}
    }
    assert_eq!(deployment.counts(&topic).await, [600, 310, 290, 0]);
}

/// Asserts that no counter has decreased between two requests.
fn assert_none_decreased(before: [u64; 4], now: [u64; 4]) {
    let decreased = now.iter().zip(before).any(|(now, before)| *now < before);
    assert!(
        !decreased,
        "received, unique, duplicates and conflicts decreased from {before:?} to {now:?}"
    );
}

/// The counters of the whole log, from one request: received, unique, duplicates and conflicts.
async fn whole_log(deployment: &Deployment) -> [u64; 4] {
    let stats = deployment.json("/stats").await;
    let number = |value: &Value| {
        value
            .as_u64()
            .unwrap_or_else(|| panic!("no number: {value} in {stats:.500}"))
    };
    let counts @ [received, unique, duplicates, conflicts] =
        ["received", "unique_processed", "duplicate_dropped", "conflicts"].map(|member| number(&stats[member]));
    let shown = format!("{counts:?}");
    assert_eq!(
        received,
        unique + duplicates,
        "/stats: received is unique and duplicates together: {shown}"
    );
    assert!(conflicts <= duplicates, "/stats: each conflict is a duplicate: {shown}");
    assert!(
        number(&stats["database_total_rows"]) <= unique,
        "/stats: more rows than were ever unique: {shown}"
    );
    let named = stats["topics"].as_object().expect("/stats has topics");
    let sum: u64 = named.values().map(number).sum();
    let topics = number(&stats["topic_count"]);
    if topics <= 1000 {
        assert_eq!(
            sum, unique,
            "/stats: the topics' unique events add up to unique_processed"
        );
        assert_eq!(named.len() as u64, topics, "/stats: all topics are named");
    } else {
        assert!(
            sum <= unique,
            "/stats: some topics have more events than all, {sum} of {unique}"
        );
        assert_eq!(
            named.len(),
            1000,
            "/stats: of more than 1000 topics the 1000 largest are named"
        );
    }
    counts
}

pub(super) async fn the_log_counters_add_up_and_never_decrease(deployment: &Deployment) {
    let topic = deployment.topic();
    let publish = async {
        for round in 0..20 {
            let batch = Value::from(events(&topic, round * 5..round * 5 + 10));
            let answer = deployment.publish(&batch).await;
            assert_eq!(answer.status, 201, "{}", answer.text());
        }
    };
    let observe = async {
        let mut before = [0; 4];
        loop {
            let counts = whole_log(deployment).await;
            assert_none_decreased(before, counts);
            before = counts;
        }
    };
    tokio::select! {
        () = publish => {}
        () = observe => {}
    }
    whole_log(deployment).await;
}

pub(super) async fn the_log_counters_include_each_topic(deployment: &Deployment) {
    let topic = deployment.topic();
    let before = whole_log(deployment).await;
    assert_counts(
        &deployment.publish(&Value::from(events(&topic, 0..30))).await,
        201,
        30,
        0,
    );
    assert_counts(
        &deployment.publish(&Value::from(events(&topic, 10..30))).await,
        200,
        0,
        20,
    );
    let after = whole_log(deployment).await;
    for (index, grown) in [50, 30, 20].into_iter().enumerate() {
        let name = ["received", "unique_processed", "duplicate_dropped"][index];
        assert!(
            after[index] >= before[index] + grown,
            "/stats: {name} was {} and is {} after {grown} more",
            before[index],
            after[index]
        );
    }
}

pub(super) async fn answers_to_many_clients_add_up_to_the_counters(deployment: &Deployment) {
    const PUBLISHERS: usize = 16;

    let topic = deployment.topic();
    // Each overlaps with the next by half.
    let publishers = (0..PUBLISHERS).map(async |publisher| {
        let mut answered = [0_u64; 2];
        for batch in events(&topic, publisher * 50..publisher * 50 + 100).chunks(20) {
            for outcome in outcomes_of(deployment, batch).await {
                answered[usize::from(outcome.status != "stored")] += 1;
            }
        }
        answered
    });
    let answered = join_all(publishers).await;
    let stored: u64 = answered.iter().map(|[stored, _]| stored).sum();
    let duplicates: u64 = answered.iter().map(|[_, duplicates]| duplicates).sum();
    assert_eq!(
        (stored, duplicates),
        (850, 750),
        "850 different events, of which 750 were sent twice"
    );
    assert_eq!(
        deployment.counts(&topic).await,
        [1600, 850, 750, 0],
        "what /stats counts of that"
    );
}
