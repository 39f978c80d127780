//! Bodies and preferences of `/publish`.

use std::io::Write;

use anyhow::ensure;
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};

use super::answers::{NDJSON, assert_counts, ids, ids_of, publish_coded};
use crate::deployment::{Deployment, PROMPTLY};
use crate::eventually::eventually;
use crate::http::ask;
use crate::publish::{Publish, event, events, outcomes};

fn ndjson(events: &[Value]) -> String {
    events.iter().map(|event| format!("{event}\n")).collect()
}

/// A body in gzip.
pub(super) fn gzipped(body: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(body).expect("memory takes all");
    encoder.finish().expect("memory takes all")
}

pub(super) async fn an_array_an_envelope_and_ndjson_are_accepted(deployment: &Deployment) {
    let topic = deployment.topic();
    let array = Value::from(events(&topic, 0..3));
    assert_counts(&deployment.publish(&array).await, 201, 3, 0);
    let envelope = json!({"events": events(&topic, 3..6), "sent_by": "a client"});
    assert_counts(&deployment.publish(&envelope).await, 201, 3, 0);
    let lines = format!("\n{}\n  \n", ndjson(&events(&topic, 6..9)).trim_end());
    assert_counts(&deployment.publish_bytes(NDJSON, lines).await, 201, 3, 0);
    let crlf = ndjson(&events(&topic, 9..12)).replace('\n', "\r\n");
    assert_counts(&deployment.publish_bytes(NDJSON, crlf).await, 201, 3, 0);
    let single = event(&topic, "evt-12").to_string();
    let answer = deployment
        .publish_bytes("application/json; charset=utf-8", single)
        .await;
    assert_counts(&answer, 201, 1, 0);
    assert_eq!(ids_of(&deployment.listed(&topic).await), ids(0..13), "what was stored");
}

pub(super) async fn gzip_and_zstd_are_accepted(deployment: &Deployment) {
    let topic = deployment.topic();
    let body = |numbers| Value::from(events(&topic, numbers)).to_string().into_bytes();
    let answer = publish_coded(deployment, "gzip", gzipped(&body(0..3))).await;
    assert_counts(&answer, 201, 3, 0);
    let zstd = zstd::encode_all(body(3..6).as_slice(), 1).expect("memory takes all");
    assert_counts(&publish_coded(deployment, "zstd", zstd).await, 201, 3, 0);
    assert_eq!(ids_of(&deployment.listed(&topic).await), ids(0..6), "what was stored");
}

pub(super) async fn an_empty_batch_has_zero_totals(deployment: &Deployment) {
    assert_counts(&deployment.publish(&json!([])).await, 200, 0, 0);
    assert_counts(&deployment.publish(&json!({"events": []})).await, 200, 0, 0);
    assert_counts(&deployment.publish_bytes(NDJSON, "").await, 200, 0, 0);
    assert_counts(&deployment.publish_bytes(NDJSON, "\n \n").await, 200, 0, 0);
}

pub(super) async fn results_are_sent_for_one_event_or_on_request(deployment: &Deployment) {
    let topic = deployment.topic();
    let single = deployment.publish(&event(&topic, "evt-0")).await;
    assert_eq!(outcomes(&single).len(), 1, "one event is answered with its outcome");
    let batch = Value::from(events(&topic, 0..3));
    let plain = deployment.publish(&batch).await;
    assert_eq!(plain.json().get("results"), None, "a batch is answered briefly");
    let full = deployment.publish_preferring("return=representation", &batch).await;
    assert_counts(&full, 200, 0, 3);
    let found: Vec<String> = outcomes(&full).into_iter().map(|outcome| outcome.event_id).collect();
    assert_eq!(
        found,
        ids(0..3),
        "a outcome for each event, in the order of the request"
    );
    for result in full.json()["results"].as_array().expect("results") {
        assert_eq!(result["topic"], topic, "a result names its topic");
    }
}

pub(super) async fn a_lenient_request_lists_invalid_and_stores_valid(deployment: &Deployment) {
    let topic = deployment.topic();
    let mut batch = events(&topic, 0..4);
    batch[2]["source"] = json!("");
    let batch = Value::from(batch);
    let answer = deployment.publish_preferring("handling=lenient", &batch).await;
    assert_counts(&answer, 201, 3, 0);
    let body = answer.json();
    assert_eq!(body["details"]["rejected"], 1, "details.rejected");
    let results = body["results"].as_array().expect("the rejected are listed");
    assert_eq!(results.len(), 1, "the rejected alone are listed: {body}");
    assert_eq!(
        (&results[0]["index"], &results[0]["status"]),
        (&json!(2), &json!("rejected"))
    );
    let error = &results[0]["errors"][0];
    assert_eq!(
        (&error["type"], &error["loc"]),
        (&json!("string_too_short"), &json!(["body", 2, "source"]))
    );
    assert!(error["msg"].is_string(), "an error without msg: {error}");

    let preference = "handling=lenient, return=representation";
    let answer = deployment.publish_preferring(preference, &batch).await;
    assert_counts(&answer, 200, 0, 3);
    let body = answer.json();
    let statuses: Vec<&Value> = body["results"]
        .as_array()
        .expect("results")
        .iter()
        .map(|result| &result["status"])
        .collect();
    assert_eq!(
        statuses,
        ["duplicate", "duplicate", "rejected", "duplicate"],
        "a result for each event"
    );

    let lines = format!("nonsense\n{}\n", event(&topic, "evt-9"));
    let request = deployment.post("/publish").header("content-type", NDJSON);
    let answer = ask(request.header("prefer", "handling=lenient").body(lines)).await;
    assert_counts(&answer, 201, 1, 0);
    assert_eq!(
        answer.json()["results"][0]["errors"][0]["loc"],
        json!(["line", 1]),
        "where a bad line is"
    );
    assert_eq!(
        ids_of(&deployment.listed(&topic).await),
        ["evt-0", "evt-1", "evt-3", "evt-9"],
        "what was stored"
    );
}

pub(super) async fn a_lenient_request_with_no_valid_event_is_rejected(deployment: &Deployment) {
    let none = deployment.publish_preferring("handling=lenient", &json!([{}])).await;
    assert_eq!(
        none.validation_errors().len(),
        5,
        "the validation errors of an empty event: {}",
        none.text()
    );
    let none = deployment
        .publish_preferring("handling=lenient", &json!([7, [], null]))
        .await;
    assert_eq!(
        none.validation_errors().len(),
        3,
        "the validation errors of three values that are no events: {}",
        none.text()
    );
}

pub(super) async fn respond_async_is_answered_202_and_stored_soon(deployment: &Deployment) {
    let topic = deployment.topic();
    let batch = Value::from(events(&topic, 0..5));
    let answer = deployment.publish_preferring("respond-async", &batch).await;
    assert_eq!(answer.status, 202, "{}", answer.text());
    assert_eq!(
        answer.header("preference-applied"),
        "respond-async",
        "Preference-Applied"
    );
    let expected = json!({"status": "accepted", "message": "Received 5 event(s) for processing", "received": 5});
    assert_eq!(answer.json(), expected, "the whole answer");

    let mut mixed = events(&topic, 5..7);
    mixed[0]["payload"] = json!(1);
    let preference = "respond-async, handling=lenient";
    let answer = deployment.publish_preferring(preference, &Value::from(mixed)).await;
    assert_eq!(answer.status, 202, "{}", answer.text());
    let body = answer.json();
    assert_eq!(
        (&body["received"], &body["details"]["rejected"]),
        (&json!(1), &json!(1)),
        "{body}"
    );
    assert_eq!(body["results"][0]["status"], "rejected", "{body}");
    let rejected = deployment.publish_preferring("respond-async", &json!([{}])).await;
    assert_eq!(
        rejected.status,
        422,
        "what is invalid is never accepted: {}",
        rejected.text()
    );
    eventually(PROMPTLY, async || {
        let listed = deployment.listed(&topic).await.len();
        ensure!(listed == 6, "{listed} of 6 accepted events are stored");
        Ok(())
    })
    .await;
}

pub(super) async fn at_most_100_validation_errors_are_listed(deployment: &Deployment) {
    let answer = deployment.publish(&Value::from(vec![json!({}); 200])).await;
    assert_eq!(
        answer.validation_errors().len(),
        100,
        "the validation errors of 200 events without any member"
    );
}
