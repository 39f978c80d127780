//! The Redis channel: one message for each stored event, and none for a duplicate.

use std::collections::HashMap;

use futures_util::future::join_all;
use serde_json::{Value, json};

use super::answers::{assert_counts, ids_of, outcomes_of, publish_payload};
use crate::deployment::Deployment;
use crate::http::ask;
use crate::publish::{Publish, event, events, shuffled, text};
use crate::redis::Message;

/// Asserts that there is exactly one message for each event of a list, and that it is the event as it is listed.
fn assert_one_for_each(received: &[Message], listed: &[Value]) {
    let mut messages: HashMap<String, Vec<Value>> = HashMap::new();
    for message in received {
        messages.entry(message.event_id()).or_default().push(message.json());
    }
    for event in listed {
        let of_it = messages.remove(&text(event, "event_id")).unwrap_or_default();
        assert_eq!(of_it.len(), 1, "messages of one stored event on the channel: {of_it:?}");
        assert_eq!(of_it[0], *event, "a message is the event as in /events");
    }
    assert!(
        messages.is_empty(),
        "messages of events that are not stored: {messages:?}"
    );
}

pub(super) async fn each_stored_event_is_one_message_as_listed(deployment: &Deployment) {
    let topic = deployment.topic();
    let subscriber = deployment.subscribe().await;
    assert_counts(&deployment.publish(&event(&topic, "evt-0")).await, 201, 1, 0);
    assert_counts(
        &deployment.publish(&Value::from(events(&topic, 1..300))).await,
        201,
        299,
        0,
    );
    let mut mixed = events(&topic, 300..303);
    mixed[1]["source"] = json!("");
    let lenient = deployment
        .publish_preferring("handling=lenient", &Value::from(mixed))
        .await;
    assert_counts(&lenient, 201, 2, 0);
    let listed = deployment.listed(&topic).await;
    assert_eq!(listed.len(), 302, "what is stored");
    assert_one_for_each(&deployment.messages(&subscriber, &topic).await, &listed);
}

pub(super) async fn duplicates_and_conflicts_have_no_message(deployment: &Deployment) {
    let topic = deployment.topic();
    let subscriber = deployment.subscribe().await;
    let batch = Value::from(events(&topic, 0..20));
    assert_counts(&deployment.publish(&batch).await, 201, 20, 0);
    assert_counts(&deployment.publish(&batch).await, 200, 0, 20);
    let copies = [events(&topic, 10..30), events(&topic, 20..30)].concat();
    assert_counts(&deployment.publish(&Value::from(copies)).await, 201, 10, 20);
    for number in 0..10 {
        assert_counts(
            &deployment.publish(&event(&topic, &format!("evt-{number}"))).await,
            200,
            0,
            1,
        );
        let mut conflicting = event(&topic, &format!("evt-{number}"));
        conflicting["payload"] = json!({"another": number});
        assert_counts(&deployment.publish(&conflicting).await, 200, 0, 1);
    }
    let listed = deployment.listed(&topic).await;
    assert_eq!(listed.len(), 30, "what is stored");
    assert_one_for_each(&deployment.messages(&subscriber, &topic).await, &listed);
}

pub(super) async fn events_of_many_clients_are_one_message_each(deployment: &Deployment) {
    const EVENTS: usize = 300;

    let topic = deployment.topic();
    let subscriber = deployment.subscribe().await;
    let all = events(&topic, 0..EVENTS);
    join_all((0..16).map(async |client| {
        let order = shuffled(EVENTS, client);
        let mine: Vec<Value> = order.into_iter().map(|number| all[number].clone()).collect();
        for batch in mine.chunks(30) {
            outcomes_of(deployment, batch).await;
        }
    }))
    .await;
    let accepted = Value::from(events(&topic, EVENTS..EVENTS + 50));
    let accepted = deployment.publish_preferring("respond-async", &accepted).await;
    assert_eq!(accepted.status, 202, "{}", accepted.text());
    assert_eq!(ask(deployment.post("/_flush")).await.status, 200, "/_flush");
    let again = deployment
        .publish(&Value::from(events(&topic, EVENTS..EVENTS + 50)))
        .await;
    assert!([200, 201].contains(&again.status), "{}", again.text());
    let listed = deployment.listed(&topic).await;
    assert_eq!(ids_of(&listed).len(), EVENTS + 50, "what is stored");
    assert_one_for_each(&deployment.messages(&subscriber, &topic).await, &listed);
}

pub(super) async fn a_message_carries_the_payload_byte_for_byte(deployment: &Deployment) {
    let topic = deployment.topic_like("orders-\u{fc}");
    let subscriber = deployment.subscribe().await;
    let large = format!(r#"{{"text":"{}"}}"#, "x".repeat(200_000));
    let payloads = [
        "{}",
        r#"{"z": 1, "a":2,  "z":3}"#,
        r#"{"n": 9007199254740993, "f": 1.0, "e": 1e2}"#,
        "{\n\t\"lines\" : [1,\r\n 2]\n}",
        r#"{"text":"ü \u00fc \u2028 \" \\ / \n ","🦀":null}"#,
        &large,
    ];
    for (number, payload) in payloads.iter().enumerate() {
        let answer = publish_payload(deployment, &topic, &format!("evt \"{number}\""), payload).await;
        assert_eq!(answer.status, 201, "{:.300}", answer.text());
    }
    let listed = deployment.listed(&topic).await;
    let messages = deployment.messages(&subscriber, &topic).await;
    assert_one_for_each(&messages, &listed);
    for (event, payload) in listed.iter().zip(payloads) {
        let message = messages
            .iter()
            .find(|message| message.cursor() == text(event, "cursor"));
        let message = &message.expect("there is one for each").event;
        assert!(
            message.contains(payload),
            "{payload:.200} was sent, and the message is {message:.500}"
        );
    }
}
