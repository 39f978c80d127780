//! Examples that several requests and answers share.

use serde_json::json;

use crate::api::events::{Event, JsonText, PublishRequest, StoredEvent};
use crate::event::{Cursor, Timestamp};

const TIMESTAMP: &str = "2025-10-24T10:30:00Z";

/// An event to publish.
fn event() -> Event<'static> {
    Event {
        topic: "order.created".into(),
        event_id: "evt-1".into(),
        timestamp: TIMESTAMP.into(),
        source: "shop".into(),
        payload: payload(),
        headers: None,
    }
}

/// A request with one event.
pub(in crate::http) fn single() -> PublishRequest<'static> {
    PublishRequest::Event(event())
}

/// A request with an array of events.
pub(in crate::http) fn array() -> PublishRequest<'static> {
    PublishRequest::Array(vec![event()])
}

/// A request with an envelope of events.
pub(in crate::http) fn envelope() -> PublishRequest<'static> {
    PublishRequest::Envelope { events: vec![event()] }
}

/// A request with one event per line.
pub(in crate::http) fn lines() -> String {
    format!("{}\n", json!(event()))
}

/// An event as readers get it.
pub(super) fn stored_event() -> StoredEvent<'static> {
    StoredEvent {
        topic: "order.created".into(),
        event_id: "evt-1".into(),
        timestamp: timestamp(),
        source: "shop".into(),
        payload: payload(),
        headers: None,
        received_at: received_at(),
        cursor: cursor(),
        traceparent: None,
    }
}

fn payload() -> JsonText<'static> {
    JsonText(r#"{"total":44.8}"#.into())
}

/// The time of the event.
pub(super) fn timestamp() -> Timestamp {
    Timestamp::parse(TIMESTAMP).expect("it is a date-time")
}

/// When the event was received.
pub(super) fn received_at() -> Timestamp {
    Timestamp::parse("2025-10-24T10:30:00.25Z").expect("it is a date-time")
}

/// The cursor of the event.
pub(super) fn cursor() -> Cursor {
    Cursor::new(7, 1)
}
