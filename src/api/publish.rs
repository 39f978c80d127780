//! Answers to requests to publish, and to `POST /_flush`.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::event::{Cursor, EventId, Timestamp, Topic, ValidationError};

/// The response to a request whose events are committed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PublishAnswer<'a> {
    /// Always `success`.
    pub status: PublishStatus,
    /// A summary for people.
    #[schema(example = "Processed 3 events")]
    pub message: String,
    /// Valid events: `unique_processed + duplicate_dropped`.
    pub received: u64,
    /// New events, which this request stored.
    pub unique_processed: u64,
    /// Events that were dropped because their identity was already stored.
    pub duplicate_dropped: u64,
    /// The same counts under other names, and the rejected events.
    pub details: Details,
    /// In the order of the request: the result of a single event, of all events with `return=representation`, of the rejected
    /// events with `handling=lenient`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub results: Option<Vec<EventResult<'a>>>,
}

/// The status of a request whose events are committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum PublishStatus {
    /// The valid events are committed.
    Success,
}

/// How many events of a request were accepted, rejected, or dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Details {
    /// The same as `unique_processed`.
    pub accepted: u64,
    /// Invalid events of a request with `handling=lenient`.
    pub rejected: u64,
    /// The same as `duplicate_dropped`.
    pub duplicates_immediate: u64,
}

/// The result of one event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum EventResult<'a> {
    /// The event was received.
    Received(ReceivedEvent<'a>),
    /// The event is invalid.
    Rejected(RejectedEvent<'a>),
}

/// The result of a valid event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ReceivedEvent<'a> {
    /// The event's index in the request, from 0.
    pub index: usize,
    #[schema(value_type = Topic)]
    pub topic: Cow<'a, str>,
    #[schema(value_type = EventId)]
    pub event_id: Cow<'a, str>,
    /// `stored`, `duplicate`, or `conflict`: a duplicate with another payload.
    pub status: EventStatus,
    /// The cursor of the first copy, also if that has expired.
    pub cursor: Cursor,
    /// When the first copy was received.
    pub received_at: Timestamp,
}

/// The outcome of a valid event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum EventStatus {
    /// The event was new.
    Stored,
    /// Its identity was already stored.
    Duplicate,
    /// Its identity was already stored, with another payload.
    Conflict,
}

/// The result of an invalid event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RejectedEvent<'a> {
    /// The event's index in the request, from 0.
    pub index: usize,
    /// Always `rejected`.
    pub status: RejectedStatus,
    /// Its validation errors.
    #[schema(value_type = Vec<ValidationError>)]
    pub errors: Cow<'a, [ValidationError]>,
}

/// The status of an invalid event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum RejectedStatus {
    /// Nothing of the event was stored.
    Rejected,
}

/// The response to a request whose events are queued, but not yet committed (`Prefer: respond-async`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AcceptedAnswer<'a> {
    /// Always `accepted`.
    pub status: AcceptedStatus,
    /// A summary for people.
    #[schema(example = "Received 1 event(s) for processing")]
    pub message: String,
    /// The number of queued events.
    pub received: u64,
    /// With `handling=lenient`: how many events were rejected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub details: Option<RejectedCount>,
    /// With `handling=lenient`: the rejected events.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub results: Option<Vec<RejectedEvent<'a>>>,
}

/// The status of a request whose events are queued.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum AcceptedStatus {
    /// The valid events are queued in memory.
    Accepted,
}

/// How many events of a lenient request were rejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RejectedCount {
    /// Invalid events.
    pub rejected: u64,
}

/// The response to `POST /_flush`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Flushed {
    /// The events of this process that were not yet committed and published when the call came.
    pub flushed: u64,
}

/// An answer for tests.
#[cfg(test)]
pub fn example(received: u64, unique_processed: u64, duplicate_dropped: u64) -> PublishAnswer<'static> {
    PublishAnswer {
        status: PublishStatus::Success,
        message: format!("Processed {received} events"),
        received,
        unique_processed,
        duplicate_dropped,
        details: Details {
            accepted: unique_processed,
            rejected: 0,
            duplicates_immediate: duplicate_dropped,
        },
        results: None,
    }
}
