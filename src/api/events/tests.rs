use bytes::Bytes;
use serde_json::{Value, json};

use super::*;
use crate::event::{Trace, parse_json};

fn stored(payload: &str) -> event::StoredEvent {
    event::StoredEvent {
        event: event::Event {
            topic: Topic::parse("order.created").unwrap(),
            event_id: EventId::parse("evt \"1\"\u{2028}").unwrap(),
            occurred_at: Timestamp::parse("2025-10-24T10:30:00.250Z").unwrap(),
            source: Source::parse("shop\\é").unwrap(),
            payload: Payload::parse(payload).unwrap(),
            headers: None,
        },
        received_at: Timestamp::parse("2025-10-24 12:30:01+02:00").unwrap(),
        cursor: Cursor::new(255, 16),
        trace: None,
    }
}

fn json_of(event: &event::StoredEvent, form: Form) -> String {
    let mut out = Vec::new();
    StoredEvent::of(event, form).write_json(&mut out);
    String::from_utf8(out).unwrap()
}

const TRACEPARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

#[test]
fn stored_event_keeps_member_order_and_payload_bytes() {
    let expected = concat!(
        r#"{"topic":"order.created","event_id":"evt \"1\""#,
        "\u{2028}",
        r#"","timestamp":"2025-10-24T10:30:00.25Z","source":"shop\\é","payload":{"b": 9007199254740993,"#,
        "\r\n",
        r#""a":1.0},"received_at":"2025-10-24T10:30:01Z","cursor":"00000000000000ff00000010"}"#
    );
    let event = stored("{\"b\": 9007199254740993,\r\n\"a\":1.0}");
    assert_eq!(json_of(&event, Form::AsSent), expected);
    assert_eq!(json_of(&event, Form::OneLine), expected.replace("\r\n", "  "));
}

#[test]
fn traced_event_ends_with_its_traceparent() {
    let untraced = stored("{}");
    let traced = event::StoredEvent {
        trace: Some(Trace::new(TRACEPARENT)),
        ..untraced.clone()
    };
    let expected =
        json_of(&untraced, Form::AsSent).replace("0010\"}", &format!("0010\",\"traceparent\":\"{TRACEPARENT}\"}}"));
    assert_eq!(json_of(&traced, Form::AsSent), expected);
    assert!(expected.contains(TRACEPARENT));
}

#[test]
fn writer_and_serde_agree_on_events_and_pages() {
    let mut event = stored("{\"a\":\n [1.0, \"é\\n\"]}");
    for trace in [None, Some(Trace::new(TRACEPARENT))] {
        event.trace = trace;
        let answer = StoredEvent::of(&event, Form::AsSent);
        let mut written = Vec::new();
        answer.write_json(&mut written);
        assert_eq!(written, serde_json::to_vec(&answer).unwrap());
        assert_eq!(serde_json::from_slice::<StoredEvent<'_>>(&written).unwrap(), answer);
        for (topic, events, truncated) in [
            (None, vec![], true),
            (Some("t\"".into()), vec![answer.clone(), answer], false),
        ] {
            let page = Page {
                status: PageStatus::Success,
                topic,
                count: events.len(),
                events,
                next: Cursor::new(1, 2),
                truncated,
            };
            let mut written = Vec::new();
            page.write_json(&mut written);
            assert_eq!(written, serde_json::to_vec(&page).unwrap());
            assert_eq!(
                serde_json::from_slice::<Page<'_, StoredEvent<'_>>>(&written).unwrap(),
                page
            );
        }
    }
}

/// The parser of the service does not use [`Event`], so this compares the two.
#[test]
fn parser_requires_exactly_the_members_of_an_event() {
    let event = Event {
        topic: "order.created".into(),
        event_id: "evt-1".into(),
        timestamp: "2025-10-24T10:30:00Z".into(),
        source: "shop".into(),
        payload: JsonText("{\"b\":1.0, \"a\":[]}".into()),
        headers: None,
    };
    let parse = |value: &Value| parse_json(&Bytes::from(value.to_string()), 10).unwrap();
    for request in [
        PublishRequest::Event(event.clone()),
        PublishRequest::Array(vec![event.clone()]),
        PublishRequest::Envelope {
            events: vec![event.clone()],
        },
    ] {
        let parsed = parse_json(&serde_json::to_vec(&request).unwrap().into(), 10).unwrap();
        assert_eq!(parsed.events[0].payload.as_str(), event.payload.0);
    }
    let text = serde_json::to_string(&event).unwrap();
    assert_eq!(serde_json::from_str::<Event<'_>>(&text).unwrap(), event);
    let whole: Value = serde_json::from_str(&text).unwrap();
    for member in whole.as_object().unwrap().keys() {
        let mut incomplete = whole.clone();
        incomplete.as_object_mut().unwrap().shift_remove(member);
        let errors = serde_json::to_value(parse(&incomplete).into_errors()).unwrap();
        assert_eq!(
            errors,
            json!([{ "type": "missing", "loc": ["body", member], "msg": "Field required" }])
        );
    }
}

#[test]
fn text_that_is_not_json_is_no_payload() {
    assert!(serde_json::to_string(&JsonText("{\"a\":".into())).is_err());
}
