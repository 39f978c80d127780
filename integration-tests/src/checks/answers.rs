//! Shared assertions about answers to `/publish`.

use serde_json::{Value, json};

use crate::http::{Answer, ask};
use crate::publish::{Outcome, Publish, event_with_payload, outcomes};
use crate::{api::Api, deployment::Deployment};

/// The media type of one event, of an array and of an envelope.
pub const JSON: &str = "application/json";

/// The media type of one event a line.
pub const NDJSON: &str = "application/x-ndjson";

/// Asserts the status and the totals of an answer.
#[track_caller]
pub fn assert_counts(answer: &Answer, status: u16, unique: usize, duplicates: usize) {
    let body = answer.text();
    assert_eq!(
        answer.status, status,
        "the status of an answer to /publish: {body:.500}"
    );
    let found = answer.json();
    let totals = json!({
        "status": "success",
        "message": format!("Processed {} events", unique + duplicates),
        "received": unique + duplicates,
        "unique_processed": unique,
        "duplicate_dropped": duplicates,
    });
    for (member, expected) in totals.as_object().expect("an object") {
        assert_eq!(
            found[member], *expected,
            "{member} of an answer to /publish: {body:.500}"
        );
    }
    let details = &found["details"];
    assert_eq!(
        details["accepted"], unique,
        "details.accepted is unique_processed: {body:.500}"
    );
    assert_eq!(
        details["duplicates_immediate"], duplicates,
        "details.duplicates_immediate is duplicate_dropped: {body:.500}"
    );
}

/// Asserts that a request was rejected with exactly this validation error.
#[track_caller]
pub fn assert_validation_error(answer: &Answer, kind: &str, loc: &Value, sent: &str) {
    assert_eq!(
        answer.status,
        422,
        "{sent:.100} must be rejected with 422: {:.300}",
        answer.text()
    );
    let expected = [(kind.to_owned(), loc.clone())];
    assert_eq!(
        answer.validation_errors(),
        expected,
        "the (type, loc) of the only validation error of {sent:.100}"
    );
}

/// Publishes events, and returns the outcome of each.
pub async fn outcomes_of(api: &Api, events: &[Value]) -> Vec<Outcome> {
    let answer = api
        .publish_preferring("return=representation", &Value::from(events))
        .await;
    assert!(
        [200, 201].contains(&answer.status),
        "{} events are answered {}: {:.500}",
        events.len(),
        answer.status,
        answer.text()
    );
    outcomes(&answer)
}

/// Publishes one event with this text as its payload.
pub async fn publish_payload(deployment: &Deployment, topic: &str, event_id: &str, payload: &str) -> Answer {
    let body = event_with_payload(topic, event_id, payload);
    deployment.publish_bytes(JSON, body).await
}

/// Publishes a body in a content coding.
pub async fn publish_coded(deployment: &Deployment, coding: &str, body: Vec<u8>) -> Answer {
    ask(deployment
        .post("/publish")
        .header("content-type", JSON)
        .header("content-encoding", coding)
        .body(body))
    .await
}

/// The ids `evt-FROM` to `evt-TO`, as [`crate::publish::events`] makes them.
pub fn ids(numbers: std::ops::Range<usize>) -> Vec<String> {
    numbers.map(|number| format!("evt-{number}")).collect()
}

/// The ids of events as they were read.
pub fn ids_of(events: &[Value]) -> Vec<String> {
    events
        .iter()
        .map(|event| crate::publish::text(event, "event_id"))
        .collect()
}
