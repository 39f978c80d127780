//! The event: parsed once, never checked twice.
//!
//! This is the only place where an event is validated. [`parse_json`] and [`parse_lines`] turn a body into events, and an invalid
//! [`Event`] cannot exist: each of its fields has a type of its own that only parsing makes. The rules are those of the contract,
//! and every limit is a constant ([`NAME_BYTES_MAX`], [`PAYLOAD_BYTES_MAX`], [`PAYLOAD_DEPTH_MAX`], [`NUMBER_CHARS_MAX`],
//! [`VALIDATION_ERRORS_MAX`]). Together they reject every event that a store would reject, so that one event cannot make the
//! commit of its batch fail.
//!
//! Text is not copied: the fields of an event are slices of the body, and keep the body in memory as long as one of them lives.
//! Only a string with an escape in it is decoded into memory of its own.

mod body;
mod cursor;
mod members;
mod name;
mod parsed;
mod payload;
mod timestamp;
mod trace;
mod validation_error;

use std::io::Write;

use serde::Serialize;

pub(crate) use body::{parse_json, parse_lines};
pub(crate) use cursor::Cursor;
pub(crate) use name::{EventId, NAME_BYTES_MAX, Source, Topic};
pub(crate) use parsed::{Parsed, Rejected, Shape};
pub(crate) use payload::{NUMBER_CHARS_MAX, PAYLOAD_BYTES_MAX, PAYLOAD_DEPTH_MAX, Payload};
pub(crate) use timestamp::Timestamp;
pub(crate) use trace::Trace;
pub(crate) use validation_error::{Loc, VALIDATION_ERRORS_MAX, ValidationError, ValidationErrorKind};

/// What a client publishes. Its identity is `(topic, event_id)`, byte for byte.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Event {
    /// The kind of event, and the unit of counting.
    pub topic: Topic,
    /// The client's id of the event, unique within the topic.
    pub event_id: EventId,
    /// When it happened, by the client's clock: the member `timestamp`.
    pub occurred_at: Timestamp,
    /// The publisher.
    pub source: Source,
    /// The client's JSON object, as it was sent.
    pub payload: Payload,
}

/// An event with the values that the store added.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct StoredEvent {
    /// The event as it was first published.
    pub event: Event,
    /// When it was stored, by the store's clock.
    pub received_at: Timestamp,
    /// Its position in the log.
    pub cursor: Cursor,
    /// The trace of the request that published it, while the event is in memory: no store keeps it.
    pub trace: Option<Trace>,
}

/// The form in which a payload is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Byte for byte as the client sent it, line breaks included.
    AsSent,
    /// On one line, for NDJSON and SSE: line breaks between tokens become blanks.
    OneLine,
}

impl StoredEvent {
    /// Appends the event to `out` as the JSON object that every reader gets, its payload in the given form. With a trace, the
    /// object ends with a member `traceparent`.
    pub fn write_json(&self, out: &mut Vec<u8>, form: Form) {
        let event = &self.event;
        write_member(out, "{\"topic\":", event.topic.as_str());
        write_member(out, ",\"event_id\":", event.event_id.as_str());
        write_member(out, ",\"timestamp\":", &event.occurred_at);
        write_member(out, ",\"source\":", event.source.as_str());
        out.extend_from_slice(b",\"payload\":");
        match form {
            Form::AsSent => out.extend_from_slice(event.payload.as_str().as_bytes()),
            Form::OneLine => out.extend_from_slice(event.payload.one_line().as_bytes()),
        }
        write_member(out, ",\"received_at\":", &self.received_at);
        write_member(out, ",\"cursor\":", &self.cursor);
        if let Some(trace) = &self.trace {
            write_member(out, ",\"traceparent\":", trace.as_str());
        }
        out.push(b'}');
    }
}

fn write_member<T: Serialize + ?Sized>(out: &mut Vec<u8>, prefix: &str, value: &T) {
    out.extend_from_slice(prefix.as_bytes());
    serde_json::to_writer(out.by_ref(), value).expect("a string is always JSON, and a Vec takes all bytes");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(payload: &str) -> StoredEvent {
        StoredEvent {
            event: Event {
                topic: Topic::parse("order.created").unwrap(),
                event_id: EventId::parse("evt \"1\"\u{2028}").unwrap(),
                occurred_at: Timestamp::parse("2025-10-24T10:30:00.250Z").unwrap(),
                source: Source::parse("shop\\é").unwrap(),
                payload: Payload::parse(payload).unwrap(),
            },
            received_at: Timestamp::parse("2025-10-24 12:30:01+02:00").unwrap(),
            cursor: Cursor::new(255, 16),
            trace: None,
        }
    }

    fn json(event: &StoredEvent, form: Form) -> String {
        let mut out = Vec::new();
        event.write_json(&mut out, form);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn writes_members_in_order_and_the_payload_as_sent() {
        let expected = concat!(
            r#"{"topic":"order.created","event_id":"evt \"1\""#,
            "\u{2028}",
            r#"","timestamp":"2025-10-24T10:30:00.25Z","source":"shop\\é","payload":{"b": 9007199254740993,"#,
            "\r\n",
            r#""a":1.0},"received_at":"2025-10-24T10:30:01Z","cursor":"00000000000000ff00000010"}"#
        );
        let event = stored("{\"b\": 9007199254740993,\r\n\"a\":1.0}");
        assert_eq!(json(&event, Form::AsSent), expected);
        assert_eq!(json(&event, Form::OneLine), expected.replace("\r\n", "  "));
    }

    #[test]
    fn a_traced_event_ends_with_its_traceparent() {
        let traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let untraced = stored("{}");
        let traced = StoredEvent {
            trace: Some(Trace::new(traceparent)),
            ..untraced.clone()
        };
        let expected =
            json(&untraced, Form::AsSent).replace("0010\"}", &format!("0010\",\"traceparent\":\"{traceparent}\"}}"));
        assert_eq!(json(&traced, Form::AsSent), expected);
        assert!(expected.contains(traceparent));
    }
}
