//! Topics, single events, and conflicts.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::events::JsonText;
use crate::event::{Cursor, EventId, Payload, Source, Timestamp, Topic};

/// The most conflicts of a page: each has a payload of up to 16 KiB.
pub const CONFLICTS_MAX: u32 = 200;

/// A page of topics, by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Topics<'a> {
    /// The topics, in the order of their names' bytes.
    #[serde(borrow)]
    pub topics: Vec<TopicSummary<'a>>,
    /// Where to continue with `after=`; null where this is the last page.
    #[serde(borrow)]
    #[schema(required = true, value_type = Option<Topic>)]
    pub next: Option<Cow<'a, str>>,
}

/// A topic with its counters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TopicSummary<'a> {
    /// The topic.
    #[serde(borrow)]
    #[schema(value_type = Topic)]
    pub topic: Cow<'a, str>,
    /// Events received: `unique_processed + duplicate_dropped`.
    pub received: u64,
    /// New events, also those that have expired.
    pub unique_processed: u64,
    /// Events that were dropped as duplicates.
    pub duplicate_dropped: u64,
    /// Duplicates whose payload differed from that of the first copy.
    pub conflicts: u64,
    /// When the first event was stored; null if none was.
    #[schema(required = true)]
    pub first_received_at: Option<Timestamp>,
    /// When the newest event was stored; null if none was.
    #[schema(required = true)]
    pub last_received_at: Option<Timestamp>,
}

/// A page of conflicts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Conflicts<'a> {
    /// The conflicts, the newest last.
    #[serde(borrow)]
    pub conflicts: Vec<Conflict<'a>>,
    /// Where to continue with `after=`. Never null: later conflicts come behind it.
    pub next: Cursor,
}

/// An event that was dropped because another payload is stored under its identity.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Conflict<'a> {
    #[serde(borrow)]
    #[schema(value_type = Topic)]
    pub topic: Cow<'a, str>,
    #[serde(borrow)]
    #[schema(value_type = EventId)]
    pub event_id: Cow<'a, str>,
    /// The cursor of the first copy, which is stored.
    pub cursor: Cursor,
    /// The timestamp of the dropped event.
    pub timestamp: Timestamp,
    /// The source of the dropped event.
    #[serde(borrow)]
    #[schema(value_type = Source)]
    pub source: Cow<'a, str>,
    /// The payload of the dropped event; absent if it has more than 16 KiB.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, value_type = Option<Payload>)]
    pub payload: Option<JsonText<'a>>,
    /// Only with `true`: the payload is too large to be kept.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub payload_omitted: bool,
    /// When the dropped event was received.
    pub received_at: Timestamp,
}
