//! Examples that several requests and answers share.

use serde_json::{Value, json};

use crate::api::events::{Event, JsonText, StoredEvent};
use crate::event::{Cursor, Timestamp};

const TIMESTAMP: &str = "2025-10-24T10:30:00Z";

/// An event to publish.
pub(in crate::http) fn event() -> Value {
    json!(Event {
        topic: "order.created".into(),
        event_id: "evt-1".into(),
        timestamp: TIMESTAMP.into(),
        source: "shop".into(),
        payload: payload(),
    })
}

/// An event as readers get it.
pub(super) fn stored_event() -> StoredEvent<'static> {
    StoredEvent {
        topic: "order.created".into(),
        event_id: "evt-1".into(),
        timestamp: timestamp(),
        source: "shop".into(),
        payload: payload(),
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
