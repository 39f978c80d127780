//! The event: its five members, and the validation of each.

use serde_json::{Value, json};

use super::answers::{JSON, NDJSON, assert_counts, assert_validation_error};
use crate::deployment::Deployment;
use crate::publish::{Publish, event, events, text};

const MEMBERS: [&str; 5] = ["topic", "event_id", "timestamp", "source", "payload"];

pub(super) async fn a_valid_event_comes_back_with_all_members(deployment: &Deployment) {
    let topic = deployment.topic();
    let sent = event(&topic, "evt-1");
    assert_counts(&deployment.publish(&sent).await, 201, 1, 0);
    let listed = deployment.listed(&topic).await;
    assert_eq!(
        listed.len(),
        1,
        "one event was stored, and /events?topic= lists {listed:?}"
    );
    for member in MEMBERS {
        assert_eq!(listed[0][member], sent[member], "{member} of the listed event");
    }
    let received_at = text(&listed[0], "received_at");
    assert!(received_at.ends_with('Z'), "received_at is not in UTC: {received_at}");
    assert!(!text(&listed[0], "cursor").is_empty(), "an empty cursor: {}", listed[0]);
    let members = listed[0].as_object().map(serde_json::Map::len);
    assert_eq!(members, Some(7), "five members, received_at and cursor: {}", listed[0]);
}

pub(super) async fn all_five_members_are_required(deployment: &Deployment) {
    let topic = deployment.topic();
    for member in MEMBERS {
        let mut incomplete = event(&topic, "evt-1");
        incomplete.as_object_mut().expect("an object").remove(member);
        let answer = deployment.publish(&incomplete).await;
        assert_validation_error(
            &answer,
            "missing",
            &json!(["body", member]),
            &format!("an event without {member}"),
        );
    }
    let errors = deployment.publish(&json!({})).await.validation_errors();
    assert_eq!(errors.len(), 5, "each missing member is a validation error: {errors:?}");
    assert_eq!(
        deployment.listed(&topic).await,
        [Value::Null; 0],
        "a rejected event was stored"
    );
}

pub(super) async fn a_member_of_the_wrong_type_is_rejected(deployment: &Deployment) {
    let topic = deployment.topic();
    for (member, kind) in [
        ("topic", "string_type"),
        ("event_id", "string_type"),
        ("timestamp", "string_type"),
        ("source", "string_type"),
        ("payload", "dict_type"),
    ] {
        for wrong in [json!(5), json!(null), json!(true), json!([])] {
            let mut event = event(&topic, "evt-1");
            event[member] = wrong.clone();
            let answer = deployment.publish(&event).await;
            assert_validation_error(&answer, kind, &json!(["body", member]), &format!("{wrong} as {member}"));
        }
    }
}

pub(super) async fn names_have_1_to_255_bytes(deployment: &Deployment) {
    let topic = deployment.topic();
    // 63 characters of four bytes each and three of one byte are 255 bytes.
    let widest = format!("{}abc", "\u{1f600}".repeat(63));
    for member in ["event_id", "source"] {
        for good in ["a", &"x".repeat(255), &widest] {
            let mut event = event(&topic, &format!("{member}-{good:.8}"));
            event[member] = json!(good);
            let answer = deployment.publish(&event).await;
            assert_eq!(
                answer.status,
                201,
                "{member} of {} bytes: {}",
                good.len(),
                answer.text()
            );
        }
    }
    let longest = deployment.topic_like(&"x".repeat(255 - 33));
    assert_eq!(longest.len(), 255, "the check itself is wrong");
    assert_counts(&deployment.publish(&event(&longest, "evt-1")).await, 201, 1, 0);
    for member in ["topic", "event_id", "source"] {
        for (bad, kind) in [
            (String::new(), "string_too_short"),
            ("x".repeat(256), "string_too_long"),
            (format!("{widest}d"), "string_too_long"),
        ] {
            let mut event = event(&topic, "bad");
            event[member] = json!(bad);
            let answer = deployment.publish(&event).await;
            let sent = format!("{member} of {} bytes", bad.len());
            assert_validation_error(&answer, kind, &json!(["body", member]), &sent);
        }
    }
}

pub(super) async fn names_exclude_control_characters_topics_white_space(deployment: &Deployment) {
    let topic = deployment.topic();
    let rejected = async |member: &str, bad: &str| {
        let mut event = event(&topic, "bad");
        event[member] = json!(bad);
        let answer = deployment.publish(&event).await;
        let loc = json!(["body", member]);
        assert_validation_error(
            &answer,
            "string_pattern_mismatch",
            &loc,
            &format!("{bad:?} as {member}"),
        );
    };
    for member in ["topic", "event_id", "source"] {
        for bad in ["a\u{0}b", "a\nb", "a\tb", "a\u{7f}", "a\u{85}"] {
            rejected(member, bad).await;
        }
    }
    for (number, blank) in [" ", "a b", "a ", "\u{a0}", "a\u{2003}b"].into_iter().enumerate() {
        rejected("topic", blank).await;
        let mut elsewhere = event(&topic, &format!("{blank}{number}"));
        elsewhere["source"] = json!(format!("{blank}."));
        let answer = deployment.publish(&elsewhere).await;
        assert_eq!(
            answer.status,
            201,
            "event_id and source may have {blank:?}: {}",
            answer.text()
        );
    }
    for odd in ["*", "__proto__", "a:b{c}", "\u{202e}", "%00", "caf\u{e9}/50%&more"] {
        let topic = deployment.topic_like(odd);
        let mut odd_everywhere = event(&topic, odd);
        odd_everywhere["source"] = json!(odd);
        assert_counts(&deployment.publish(&odd_everywhere).await, 201, 1, 0);
        let listed = deployment.listed(&topic).await;
        assert_eq!(listed.len(), 1, "the topic {topic:?} lists {listed:?}");
        for member in ["topic", "event_id", "source"] {
            assert_eq!(
                listed[0][member], odd_everywhere[member],
                "{member} of the listed event"
            );
        }
        assert_eq!(
            deployment.counts(&topic).await,
            [1, 1, 0, 0],
            "the counters of the topic {topic:?}"
        );
    }
}

pub(super) async fn names_have_no_unpaired_surrogates(deployment: &Deployment) {
    let topic = deployment.topic();
    let good = event(&topic, "evt-1");
    for member in ["topic", "event_id", "source"] {
        for name in [r#""\ud800""#, r#""a\udc00b""#, r#""\u0000""#] {
            let as_sent = format!("{member:?}:{}", good[member]);
            let body = good.to_string().replace(&as_sent, &format!("{member:?}:{name}"));
            let answer = deployment.publish_bytes(JSON, body).await;
            assert_eq!(answer.status, 422, "{name} as {member}: {}", answer.text());
        }
    }
}

pub(super) async fn a_timestamp_comes_back_in_utc_in_its_shortest_form(deployment: &Deployment) {
    let topic = deployment.topic();
    let forms = [
        ("2025-10-24T10:30:00Z", "2025-10-24T10:30:00Z"),
        ("2025-10-24T10:30Z", "2025-10-24T10:30:00Z"),
        ("2025-10-24 10:30:00", "2025-10-24T10:30:00Z"),
        ("2025-10-24t12:30:00+02:00", "2025-10-24T10:30:00Z"),
        ("2025-10-24T10:30:00.250000z", "2025-10-24T10:30:00.25Z"),
        ("2025-10-24T10:30:00.1234567899Z", "2025-10-24T10:30:00.123456Z"),
        ("2025-10-23T23:30:00-11:00", "2025-10-24T10:30:00Z"),
        ("0001-01-01T00:00:00Z", "0001-01-01T00:00:00Z"),
        ("9999-12-31T23:59:59.999999Z", "9999-12-31T23:59:59.999999Z"),
    ];
    let mut batch = events(&topic, 0..forms.len());
    for (event, (sent, _)) in batch.iter_mut().zip(forms) {
        event["timestamp"] = json!(sent);
    }
    assert_counts(&deployment.publish(&Value::from(batch)).await, 201, forms.len(), 0);
    let listed = deployment.listed(&topic).await;
    assert_eq!(
        listed.len(),
        forms.len(),
        "/events?topic= does not list all that was stored"
    );
    for (event, (sent, back)) in listed.iter().zip(forms) {
        assert_eq!(event["timestamp"], back, "what the timestamp {sent:?} comes back as");
    }
}

pub(super) async fn an_invalid_timestamp_is_rejected(deployment: &Deployment) {
    let topic = deployment.topic();
    for bad in [
        "yesterday",
        "2025-10-24",
        "2025-13-01T00:00:00Z",
        "2025-02-29T00:00:00Z",
        "2025-10-24T23:59:60Z",
        "2025-10-24T24:00:00Z",
        "0000-01-01T00:00:00Z",
        "10000-01-01T00:00:00Z",
        "0001-01-01T00:00:00+00:01",
        "9999-12-31T23:59:59-00:01",
        "infinity",
        "",
    ] {
        let mut event = event(&topic, "bad");
        event["timestamp"] = json!(bad);
        let answer = deployment.publish(&event).await;
        let sent = format!("the timestamp {bad:?}");
        assert_validation_error(&answer, "datetime_parsing", &json!(["body", "timestamp"]), &sent);
    }
}

pub(super) async fn repeated_members_are_rejected_unknown_ones_ignored(deployment: &Deployment) {
    let topic = deployment.topic();
    let good = event(&topic, "evt-1");
    for member in MEMBERS {
        let first = format!("{{{member:?}:{},", good[member]);
        let twice = good.to_string().replacen('{', &first, 1);
        let answer = deployment.publish_bytes(JSON, twice).await;
        assert_validation_error(
            &answer,
            "repeated_member",
            &json!(["body", member]),
            &format!("{member} twice"),
        );
    }
    let mut more = good;
    more["colour"] = json!({"unknown": ["to", "the", "contract"]});
    assert_counts(&deployment.publish(&more).await, 201, 1, 0);
    let listed = deployment.listed(&topic).await;
    assert_eq!(
        listed[0].get("colour"),
        None,
        "an unknown member was kept: {}",
        listed[0]
    );
}

pub(super) async fn one_invalid_event_rejects_the_whole_request(deployment: &Deployment) {
    let topic = deployment.topic();
    let mut bad = events(&topic, 0..4);
    bad[1].as_object_mut().expect("an object").remove("event_id");
    bad[3]["source"] = json!(5);
    bad[3]["payload"] = json!([]);
    let fault = |kind: &str, loc: Value| (kind.to_owned(), loc);

    let mut errors = deployment.publish(&Value::from(bad.clone())).await.validation_errors();
    errors.sort_by_key(|(kind, _)| kind.clone());
    let expected = [
        fault("dict_type", json!(["body", 3, "payload"])),
        fault("missing", json!(["body", 1, "event_id"])),
        fault("string_type", json!(["body", 3, "source"])),
    ];
    assert_eq!(errors, expected, "the errors of an array");
    let envelope = deployment.publish(&json!({"events": bad[..2]})).await;
    let loc = json!(["body", "events", 1, "event_id"]);
    assert_validation_error(&envelope, "missing", &loc, "an envelope");
    let lines = format!("\n{}\n{}\n{{\n", bad[0], bad[1]);
    let errors = deployment.publish_bytes(NDJSON, lines).await.validation_errors();
    let expected = [
        fault("missing", json!(["line", 3, "event_id"])),
        fault("json_invalid", json!(["line", 4])),
    ];
    assert_eq!(errors, expected, "the errors of lines, which count from 1");
    assert_eq!(
        deployment.counts(&topic).await,
        [0; 4],
        "no event of a rejected request may be stored or counted"
    );
}

pub(super) async fn invalid_json_or_no_event_is_rejected(deployment: &Deployment) {
    for (body, kind) in [
        ("", "json_invalid"),
        ("{", "json_invalid"),
        ("nonsense", "json_invalid"),
        (r#"{"events": {}}"#, "list_type"),
        (r#"{"events": null}"#, "list_type"),
        ("7", "dict_type"),
        ("null", "dict_type"),
        (r#""text""#, "dict_type"),
        ("[7]", "dict_type"),
        ("[[]]", "dict_type"),
    ] {
        let errors = deployment.publish_bytes(JSON, body).await.validation_errors();
        assert_eq!(
            errors[0].0, kind,
            "the validation error of the body {body:?}: {errors:?}"
        );
    }
    let invalid_utf8 = [b"{\"topic\":\"".as_slice(), &[0xff, 0xfe], b"\"}"].concat();
    let answer = deployment.publish_bytes(JSON, invalid_utf8).await;
    assert_eq!(answer.status, 422, "a body that is not UTF-8: {}", answer.text());
}
