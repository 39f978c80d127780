//! The event: parsed once, never checked twice.
//!
//! This is the only place where an event is validated. [`parse_json`] and [`parse_lines`] turn a body into events, and an invalid
//! [`Event`] cannot exist: each of its fields has a type of its own that only parsing makes. The rules are those of the contract,
//! and every limit is a constant ([`NAME_BYTES_MAX`], [`PAYLOAD_BYTES_MAX`], [`PAYLOAD_DEPTH_MAX`], [`NUMBER_CHARS_MAX`],
//! [`HEADERS_MAX`], [`HEADERS_BYTES_MAX`], [`VALIDATION_ERRORS_MAX`]). Together they reject every event that a store would reject, so that one event cannot make the
//! commit of its batch fail.
//!
//! Text is not copied: the fields of an event are slices of the body, and keep the body in memory as long as one of them lives.
//! Only a string with an escape in it is decoded into memory of its own.

mod body;
mod cursor;
mod glob;
mod headers;
mod identity;
mod members;
mod name;
mod parsed;
mod payload;
mod timestamp;
mod trace;
mod validation_error;

pub(crate) use body::{parse_json, parse_lines};
pub(crate) use cursor::Cursor;
pub(crate) use glob::{NameRange, TopicGlob, TopicGlobs, above_prefix};
pub(crate) use headers::{HEADER_NAME_BYTES_MAX, HEADERS_BYTES_MAX, HEADERS_MAX, Headers};
pub(crate) use identity::IdentityKey;
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
    /// Strings that are handed on with the event.
    pub headers: Option<Headers>,
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
