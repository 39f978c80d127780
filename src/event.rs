//! The event: parsed once, never checked twice.
//!
//! This is the only place where an event is validated. A body goes in ([`parse_json`], [`parse_lines`]), events come out, and an [`Event`] that
//! breaks a rule cannot exist: each of its fields has a type of its own that only parsing makes. The rules are those of the contract, and every
//! bound is a constant ([`NAME_BYTES_MAX`], [`PAYLOAD_BYTES_MAX`], [`PAYLOAD_DEPTH_MAX`], [`NUMBER_CHARS_MAX`], [`VALIDATION_ERRORS_MAX`]). Together they
//! refuse everything that a store would refuse, so that one event cannot sink the batch it travels in.
//!
//! Text is not copied: the fields of an event are slices of the body it came in, and keep that body in memory as long as one of them lives. Only a
//! string with an escape in it is decoded into memory of its own.

mod body;
mod cursor;
mod members;
mod name;
mod parsed;
mod payload;
mod timestamp;
mod trace;
mod validation_error;

pub use body::{parse_json, parse_lines};
pub use cursor::Cursor;
pub use name::{EventId, NAME_BYTES_MAX, Source, Topic};
pub use parsed::{Parsed, Rejected, Shape};
pub use payload::{NUMBER_CHARS_MAX, PAYLOAD_BYTES_MAX, PAYLOAD_DEPTH_MAX, Payload};
pub use timestamp::Timestamp;
pub use trace::Trace;
pub use validation_error::{Breach, Loc, VALIDATION_ERRORS_MAX, ValidationError, ValidationErrorKind};

/// What a client publishes. Its identity is `(topic, event_id)`, byte for byte.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Event {
    /// What kind of thing happened, and the unit of order and counting.
    pub topic: Topic,
    /// The client's name for it, unique within the topic.
    pub event_id: EventId,
    /// When it happened, by the client's clock: the member `timestamp`.
    pub occurred_at: Timestamp,
    /// Who says so.
    pub source: Source,
    /// The client's JSON object, as it was sent.
    pub payload: Payload,
}

/// An event with what the store added to it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct StoredEvent {
    /// The event as it was first published.
    pub event: Event,
    /// When it was stored, by the store's clock.
    pub received_at: Timestamp,
    /// Its place in the log.
    pub cursor: Cursor,
    /// The trace of the request that it came with, as long as the process remembers it: no store keeps it.
    pub trace: Option<Trace>,
}
