//! Limits, with the value on each side of each. Those of a request are the defaults.

use serde_json::{Value, json};

use super::answers::{JSON, NDJSON, assert_validation_error, publish_coded, publish_payload};
use super::batches::gzipped;
use crate::deployment::Deployment;
use crate::publish::{Publish, event_with_payload, events};

const EVENTS_MAX: usize = 10_000;
const BODY_MAX: usize = 10 << 20;
const PAYLOAD_MAX: usize = 256 << 10;

pub(super) async fn a_request_has_at_most_10_000_events(deployment: &Deployment) {
    let (topic, rejected) = (deployment.topic(), deployment.topic());
    let answer = deployment.publish(&Value::from(events(&topic, 0..EVENTS_MAX))).await;
    assert_eq!(
        answer.status,
        201,
        "a request of {EVENTS_MAX} events: {:.300}",
        answer.text()
    );
    assert_eq!(answer.json()["unique_processed"], EVENTS_MAX, "all of them are new");
    let count = EVENTS_MAX as u64;
    assert_eq!(
        deployment.counts(&topic).await,
        [count, count, 0, 0],
        "all of them are counted"
    );

    let too_many = events(&rejected, 0..EVENTS_MAX + 1);
    let lines: String = too_many.iter().map(|event| format!("{event}\n")).collect();
    let array = Value::from(too_many);
    for answer in [
        deployment.publish(&array).await,
        deployment.publish(&json!({"events": array})).await,
        deployment.publish_preferring("handling=lenient", &array).await,
        deployment.publish_bytes(NDJSON, lines).await,
    ] {
        assert_eq!(
            answer.status,
            422,
            "a request of {} events: {:.300}",
            EVENTS_MAX + 1,
            answer.text()
        );
        assert_eq!(
            answer.validation_errors()[0].0,
            "list_too_long",
            "{:.300}",
            answer.text()
        );
    }
    assert_eq!(
        deployment.counts(&rejected).await,
        [0; 4],
        "nothing of a request with too many events is stored"
    );
}

/// An array of events that is exactly so long.
fn body_of(topic: &str, length: usize) -> String {
    const PARTS: usize = 50;

    let of = |number: usize, filling: usize| {
        let payload = format!(r#"{{"a":"{}"}}"#, "x".repeat(filling));
        event_with_payload(topic, &format!("evt-{length}-{number:02}"), &payload)
    };
    let around = PARTS * of(0, 0).len() + PARTS + 1;
    let (filling, rest) = ((length - around) / PARTS, (length - around) % PARTS);
    let parts: Vec<String> = (0..PARTS)
        .map(|number| of(number, filling + if number == 0 { rest } else { 0 }))
        .collect();
    let body = format!("[{}]", parts.join(","));
    assert_eq!(body.len(), length, "the check itself is wrong");
    body
}

pub(super) async fn a_body_has_at_most_10_mib_after_decompression(deployment: &Deployment) {
    let topic = deployment.topic();
    let fits = body_of(&topic, BODY_MAX);
    let answer = publish_coded(deployment, "gzip", gzipped(fits.as_bytes())).await;
    assert_eq!(
        answer.status,
        201,
        "a body of {BODY_MAX} bytes, in gzip: {:.300}",
        answer.text()
    );
    let answer = deployment.publish_bytes(JSON, fits).await;
    assert_eq!(answer.status, 200, "the same body as it is: {:.300}", answer.text());
    let too_long = body_of(&topic, BODY_MAX + 1);
    publish_coded(deployment, "gzip", gzipped(too_long.as_bytes()))
        .await
        .problem(413);
    let zstd = zstd::encode_all(too_long.as_bytes(), 1).expect("memory takes all");
    publish_coded(deployment, "zstd", zstd).await.problem(413);
    deployment.publish_bytes(JSON, too_long).await.problem(413);
    assert_eq!(
        deployment.counts(&topic).await,
        [100, 50, 50, 0],
        "what was too long is not counted"
    );
}

pub(super) async fn a_payload_has_at_most_256_kib(deployment: &Deployment) {
    let topic = deployment.topic();
    let of_length = |length: usize| format!(r#"{{"a":"{}"}}"#, "x".repeat(length - 8));
    for length in [PAYLOAD_MAX - 1, PAYLOAD_MAX] {
        let answer = publish_payload(deployment, &topic, &format!("evt-{length}"), &of_length(length)).await;
        assert_eq!(
            answer.status,
            201,
            "a payload of {length} bytes: {:.300}",
            answer.text()
        );
    }
    let answer = publish_payload(deployment, &topic, "bad", &of_length(PAYLOAD_MAX + 1)).await;
    let sent = format!("a payload of {} bytes", PAYLOAD_MAX + 1);
    assert_validation_error(&answer, "payload_too_large", &json!(["body", "payload"]), &sent);
}

pub(super) async fn a_payload_has_at_most_64_levels(deployment: &Deployment) {
    let topic = deployment.topic();
    let objects = |levels: usize| format!("{}1{}", r#"{"a":"#.repeat(levels), "}".repeat(levels));
    let arrays = |levels: usize| format!(r#"{{"a":{}{}}}"#, "[".repeat(levels - 1), "]".repeat(levels - 1));
    for (event_id, payload) in [("objects", objects(64)), ("arrays", arrays(64))] {
        let answer = publish_payload(deployment, &topic, event_id, &payload).await;
        assert_eq!(answer.status, 201, "64 levels of {event_id}: {:.300}", answer.text());
    }
    for (sent, payload) in [
        ("65 levels of objects", objects(65)),
        ("65 levels of arrays", arrays(65)),
        ("100000 levels of arrays", arrays(100_000)),
    ] {
        let answer = publish_payload(deployment, &topic, "bad", &payload).await;
        assert_validation_error(&answer, "payload_too_deep", &json!(["body", "payload"]), sent);
    }
}
