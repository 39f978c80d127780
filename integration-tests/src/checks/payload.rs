//! The payload: kept byte for byte, and rejected if a store could not represent it.

use serde_json::json;

use super::answers::{JSON, assert_validation_error, publish_payload};
use crate::deployment::Deployment;
use crate::http::{ask, encoded};
use crate::publish::{Publish, event_with_payload, statuses};

pub(super) async fn a_payload_comes_back_byte_for_byte(deployment: &Deployment) {
    let topic = deployment.topic();
    let payloads = [
        "{\n  \"b\" : 9007199254740993,\r\n\t\"a\": [1.0, 1e2, \"x\\ny\\u2028 \u{e9}\u{1f600}\" ],\n  \"b\": {}\n}",
        r#"{"z":1,"a":1.0,"m":-0.0,"e":1E+2}"#,
        r#"{"precise":0.1000000000000000055511151231257827,"escaped":"\u00fc\/","empty":{}}"#,
        "{}",
    ];
    for (number, payload) in payloads.iter().enumerate() {
        let answer = publish_payload(deployment, &topic, &format!("evt-{number}"), payload).await;
        assert_eq!(answer.status, 201, "{payload}: {}", answer.text());
    }
    let listed = deployment.fetch(&format!("/events?topic={topic}")).await;
    let lines = ask(deployment
        .get(&format!("/events?topic={topic}"))
        .header("accept", "application/x-ndjson"))
    .await;
    assert_eq!(
        lines.text().lines().count(),
        payloads.len(),
        "one event a line:\n{}",
        lines.text()
    );
    for payload in payloads {
        let listed = listed.text();
        assert!(listed.contains(payload), "{payload} came back otherwise: {listed}");
        // Where an event must be one line, what breaks lines between its tokens becomes blanks, and nothing else changes.
        let one_line = payload.replace(['\n', '\r'], " ");
        assert!(
            lines.text().contains(&one_line),
            "{one_line} is no line of:\n{}",
            lines.text()
        );
    }
}

pub(super) async fn a_payload_must_be_an_object(deployment: &Deployment) {
    let topic = deployment.topic();
    for payload in ["[]", "1", "null", "true", r#""text""#] {
        let answer = publish_payload(deployment, &topic, "bad", payload).await;
        assert_validation_error(&answer, "dict_type", &json!(["body", "payload"]), payload);
    }
    for payload in [
        "{\"a\":\"\0\"}",
        "{\"a\":\"\n\"}",
        r#"{"a":NaN}"#,
        r#"{"a":01}"#,
        r#"{"a":1,}"#,
    ] {
        let answer = publish_payload(deployment, &topic, "bad", payload).await;
        assert_eq!(
            answer.validation_errors()[0].0,
            "json_invalid",
            "{payload:?} is no JSON"
        );
    }
}

pub(super) async fn an_unrepresentable_payload_is_rejected(deployment: &Deployment) {
    let topic = deployment.topic();
    let rejected = [
        r#"{"a":"\u0000"}"#.to_owned(),
        r#"{"\u0000":1}"#.to_owned(),
        r#"{"a":["deep",{"b":"x\u0000y"}]}"#.to_owned(),
        r#"{"a":"\ud800"}"#.to_owned(),
        r#"{"a":"\udc00"}"#.to_owned(),
        r#"{"a":"\ud800\ud800"}"#.to_owned(),
        r#"{"a":"\ud800\u0041"}"#.to_owned(),
        r#"{"a":"\ude00\ud83d"}"#.to_owned(),
        r#"{"\ud800":1}"#.to_owned(),
        r#"{"a":1e400}"#.to_owned(),
        r#"{"a":1e309}"#.to_owned(),
        r#"{"a":-1e309}"#.to_owned(),
        r#"{"a":1e131071}"#.to_owned(),
        r#"{"a":1e131072}"#.to_owned(),
        r#"{"a":1e400000}"#.to_owned(),
        r#"{"a":1e99999999999999999999}"#.to_owned(),
        r#"{"a":1e-400}"#.to_owned(),
        r#"{"a":1e-16384}"#.to_owned(),
        r#"{"a":[[1e-99999999999999999999]]}"#.to_owned(),
        format!(r#"{{"a":1{}}}"#, "0".repeat(400)),
        format!(r#"{{"a":0.{}}}"#, "1".repeat(999)),
    ];
    for payload in &rejected {
        let answer = publish_payload(deployment, &topic, "bad", payload).await;
        assert_validation_error(&answer, "payload_unrepresentable", &json!(["body", "payload"]), payload);
    }
}

pub(super) async fn the_most_extreme_payloads_are_accepted(deployment: &Deployment) {
    let topic = deployment.topic();
    let accepted = [
        r#"{"a":"\u0001\u001f\u007f"}"#.to_owned(),
        r#"{"a":"\\u0000"}"#.to_owned(),
        r#"{"a":"\\\\ud800"}"#.to_owned(),
        r#"{"a":"\ud83d\ude00"}"#.to_owned(),
        r#"{"a":"\uD83D\uDE00\u00e9"}"#.to_owned(),
        r#"{"a":1e308,"b":-1.7976931348623157e308,"c":5e-324,"d":0,"e":-0.0,"f":0e0}"#.to_owned(),
        r#"{"b":1.0,"a":1e2,"b":2.10}"#.to_owned(),
        r#"{"a":9007199254740993,"b":0.1000000000000000055511151231257827}"#.to_owned(),
        r#"{}"#.to_owned(),
        format!(r#"{{"a":1{}}}"#, "0".repeat(300)),
        format!(r#"{{"a":0.{}}}"#, "1".repeat(998)),
    ];
    for (number, payload) in accepted.iter().enumerate() {
        let body = event_with_payload(&topic, &format!("evt-{number}"), payload);
        let answer = deployment.publish_bytes(JSON, body.clone()).await;
        assert_eq!(answer.status, 201, "{payload:.80}: {}", answer.text());
        // The same value in another form makes the store compare both.
        let reformatted = body.replace(r#""payload":{"#, r#""payload":{ "#);
        let again = deployment.publish_bytes(JSON, reformatted).await;
        assert_eq!(again.status, 200, "{payload:.80} with one more blank: {}", again.text());
        assert_eq!(statuses(&again), ["duplicate"], "{payload:.80} with one more blank");
    }
    let listed = deployment.fetch(&format!("/events?topic={}", encoded(&topic))).await;
    for payload in &accepted {
        assert!(
            listed.text().contains(payload.as_str()),
            "{payload:.80} came back otherwise"
        );
    }
    let conflicts = deployment.counts(&topic).await[3];
    assert_eq!(conflicts, 0, "one more blank is counted as a conflict");
}
