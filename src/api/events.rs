//! Events as publishers send them and as readers get them.

use std::borrow::Cow;
use std::io::Write;

use serde::{Deserialize, Deserializer, Serialize, Serializer, ser};
use serde_json::value::RawValue;
use utoipa::openapi::schema::{Object, ObjectBuilder, Schema};
use utoipa::openapi::{OneOf, Ref, RefOr, Type};
use utoipa::{PartialSchema, ToSchema};

use crate::event::{self, Cursor, EventId, Headers, Payload, Source, Timestamp, Topic};

/// The most events of a page.
pub const LIMIT_MAX: u32 = 1000;
/// The events of a page where no limit is given.
pub const LIMIT_DEFAULT: u32 = 100;

/// JSON text that is passed on unchanged. A text that is not JSON fails to serialize.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JsonText<'a>(pub(crate) Cow<'a, str>);

impl Serialize for JsonText<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let raw: &RawValue = serde_json::from_str(&self.0).map_err(ser::Error::custom)?;
        raw.serialize(serializer)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for JsonText<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw: &'de RawValue = Deserialize::deserialize(deserializer)?;
        Ok(Self(Cow::Borrowed(raw.get())))
    }
}

/// An event to publish. Its identity is `(topic, event_id)`, byte for byte. Other members are ignored; a member that is given
/// twice is rejected.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Event<'a> {
    #[serde(borrow)]
    #[schema(value_type = Topic)]
    pub topic: Cow<'a, str>,
    #[serde(borrow)]
    #[schema(value_type = EventId)]
    pub event_id: Cow<'a, str>,
    #[serde(borrow)]
    #[schema(value_type = Timestamp)]
    pub timestamp: Cow<'a, str>,
    #[serde(borrow)]
    #[schema(value_type = Source)]
    pub source: Cow<'a, str>,
    #[serde(borrow)]
    #[schema(value_type = Payload)]
    pub payload: JsonText<'a>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, value_type = Option<Headers>)]
    pub headers: Option<JsonText<'a>>,
}

/// The body of a request to publish: one event, an array of events, or an envelope. An object with a member `events` is an
/// envelope. A request without events is accepted.
// It has no `Deserialize`: serde reads untagged values through a buffer that cannot hold a `RawValue`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(untagged)]
pub enum PublishRequest<'a> {
    /// One event.
    Event(Event<'a>),
    /// An array of events.
    #[schema(title = "Array")]
    Array(Vec<Event<'a>>),
    /// An envelope.
    #[schema(title = "Envelope")]
    Envelope {
        /// The events.
        events: Vec<Event<'a>>,
    },
}

/// An event as it was first published, with the store's clock and its position in the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StoredEvent<'a> {
    #[serde(borrow)]
    #[schema(value_type = Topic)]
    pub topic: Cow<'a, str>,
    #[serde(borrow)]
    #[schema(value_type = EventId)]
    pub event_id: Cow<'a, str>,
    pub timestamp: Timestamp,
    #[serde(borrow)]
    #[schema(value_type = Source)]
    pub source: Cow<'a, str>,
    #[serde(borrow)]
    #[schema(value_type = Payload)]
    pub payload: JsonText<'a>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, value_type = Option<Headers>)]
    pub headers: Option<JsonText<'a>>,
    pub received_at: Timestamp,
    pub cursor: Cursor,
    // Only events that are handed to subscribers right after a traced request have it; no store keeps it.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    #[schema(ignore)]
    pub traceparent: Option<Cow<'a, str>>,
}

/// How a payload is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Byte for byte as the publisher sent it, line breaks included.
    AsSent,
    /// On one line, for NDJSON and SSE: line breaks between tokens become spaces.
    OneLine,
}

impl<'a> StoredEvent<'a> {
    /// The answer for a stored event, which borrows its texts.
    pub fn of(stored: &'a event::StoredEvent, form: Form) -> Self {
        let event = &stored.event;
        Self {
            topic: event.topic.as_str().into(),
            event_id: event.event_id.as_str().into(),
            timestamp: event.occurred_at,
            source: event.source.as_str().into(),
            payload: JsonText(match form {
                Form::AsSent => event.payload.as_str().into(),
                Form::OneLine => event.payload.one_line(),
            }),
            headers: event.headers.as_ref().map(|headers| {
                JsonText(match form {
                    Form::AsSent => headers.as_str().into(),
                    Form::OneLine => headers.one_line(),
                })
            }),
            received_at: stored.received_at,
            cursor: stored.cursor,
            traceparent: stored.trace.as_ref().map(|trace| trace.as_str().into()),
        }
    }

    /// Appends the event to `out` as JSON: the same bytes as by `Serialize`, without parsing the payload again.
    pub fn write_json(&self, out: &mut Vec<u8>) {
        let Self {
            topic,
            event_id,
            timestamp,
            source,
            payload: JsonText(payload),
            headers,
            received_at,
            cursor,
            traceparent,
        } = self;
        write_member(out, "{\"topic\":", topic);
        write_member(out, ",\"event_id\":", event_id);
        write_member(out, ",\"timestamp\":", timestamp);
        write_member(out, ",\"source\":", source);
        out.extend_from_slice(b",\"payload\":");
        out.extend_from_slice(payload.as_bytes());
        if let Some(JsonText(headers)) = headers {
            out.extend_from_slice(b",\"headers\":");
            out.extend_from_slice(headers.as_bytes());
        }
        write_member(out, ",\"received_at\":", received_at);
        write_member(out, ",\"cursor\":", cursor);
        if let Some(traceparent) = traceparent {
            write_member(out, ",\"traceparent\":", traceparent);
        }
        out.push(b'}');
    }

    /// Appends an array of events to `out`.
    pub fn write_json_array(events: &[Self], out: &mut Vec<u8>) {
        out.push(b'[');
        for (index, event) in events.iter().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            event.write_json(out);
        }
        out.push(b']');
    }
}

fn write_member<T: Serialize + ?Sized>(out: &mut Vec<u8>, prefix: &str, value: &T) {
    out.extend_from_slice(prefix.as_bytes());
    serde_json::to_writer(out.by_ref(), value).expect("these values are always JSON, and a Vec takes all bytes");
}

/// A page of events. `E` is a [`StoredEvent`], or raw JSON for a reader that passes events on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(bound = "", description = "A page of events.")]
pub struct Page<'a, E> {
    /// Always `success`.
    pub status: PageStatus,
    /// The topic of the query.
    #[serde(borrow)]
    #[schema(required = true, value_type = Option<Topic>)]
    pub topic: Option<Cow<'a, str>>,
    /// The number of events in this page.
    pub count: usize,
    /// The events.
    #[schema(value_type = Vec<StoredEvent>)]
    pub events: Vec<E>,
    /// Where to continue with `after=`.
    pub next: Cursor,
    /// Only with `true`: events after the cursor of the request are gone, because they were pruned, or lost with a copy of the
    /// log.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub truncated: bool,
}

/// The data of a frame of the stream that is not an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct StreamNotice {
    /// The type of the frame: what the notice says.
    #[serde(skip)]
    pub kind: &'static str,
    /// The cursor from which the stream reads on.
    pub after: Cursor,
    /// What happened and what to do, for people.
    pub detail: &'static str,
}

impl StreamNotice {
    /// The type of the frame that says that events after a cursor are gone. The stream goes on.
    pub const TRUNCATED: &str = "truncated";
    /// The type of the frame that says that the log has not given out a cursor as high as this one. It is the last of the stream.
    pub const CURSOR_UNKNOWN: &str = "cursor_unknown";
    /// The explanation of such a cursor.
    pub const CURSOR_UNKNOWN_DETAIL: &str = "The cursor lies beyond the end of this log: it is that of another log. Begin with an empty after=, or with the next of a list.";

    /// Events after this cursor are gone.
    pub fn truncated(after: Cursor) -> Self {
        Self {
            kind: Self::TRUNCATED,
            after,
            detail: "Events after this cursor are gone: they were pruned, or lost with a copy of the log. The stream goes on with those that are there.",
        }
    }

    /// The log has not given out this cursor.
    pub fn cursor_unknown(after: Cursor) -> Self {
        Self {
            kind: Self::CURSOR_UNKNOWN,
            after,
            detail: Self::CURSOR_UNKNOWN_DETAIL,
        }
    }
}

/// The status of a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum PageStatus {
    /// The events were read.
    Success,
}

impl Page<'_, StoredEvent<'_>> {
    /// Appends the page to `out` as JSON: the same bytes as by `Serialize`, without parsing payloads again.
    pub fn write_json(&self, out: &mut Vec<u8>) {
        let Self {
            status,
            topic,
            count,
            events,
            next,
            truncated,
        } = self;
        write_member(out, "{\"status\":", status);
        write_member(out, ",\"topic\":", topic);
        write_member(out, ",\"count\":", count);
        out.extend_from_slice(b",\"events\":");
        StoredEvent::write_json_array(events, out);
        write_member(out, ",\"next\":", next);
        if *truncated {
            out.extend_from_slice(b",\"truncated\":true");
        }
        out.push(b'}');
    }
}

fn text(about: &str) -> ObjectBuilder {
    Object::builder().schema_type(Type::String).description(Some(about))
}

/// Events as NDJSON. Only a schema: a line is an [`Event`] in a request and a [`StoredEvent`] in an answer.
pub struct Lines;

impl PartialSchema for Lines {
    fn schema() -> RefOr<Schema> {
        text("One event (a JSON object) per line. Blank lines of a request are skipped.").into()
    }
}
impl ToSchema for Lines {}

/// A frame of a stream of Server-Sent Events: an event, whose `data` is a [`StoredEvent`], or a [`StreamNotice`]. Only a schema.
pub struct StreamEvent;

impl PartialSchema for StreamEvent {
    fn schema() -> RefOr<Schema> {
        let data = text("The event, on one line.")
            .content_media_type("application/json")
            .content_schema(Some(Ref::from_schema_name(StoredEvent::name())));
        let event = Object::builder()
            .schema_type(Type::Object)
            .title(Some("Event"))
            .description(Some(
                "An event. It has no `event`, so that `onmessage` of a browser receives it.",
            ))
            .property("id", Ref::from_schema_name(Cursor::name()))
            .property("data", data)
            .required("id")
            .required("data");
        let kinds = [StreamNotice::TRUNCATED, StreamNotice::CURSOR_UNKNOWN];
        let kind =
            text("What the notice says: events after the cursor are gone, or the log has not given out the cursor.");
        let notice = Object::builder()
            .schema_type(Type::Object)
            .title(Some("Notice"))
            .description(Some(
                "A notice. It has no `id`. After `cursor_unknown` the stream ends.",
            ))
            .property("event", kind.enum_values(Some(kinds)))
            .property(
                "data",
                text("The cursor and an explanation, as JSON.").content_media_type("application/json"),
            )
            .required("event")
            .required("data");
        OneOf::builder()
            .description(Some("One frame of the stream."))
            .item(event)
            .item(notice)
            .into()
    }
}
impl ToSchema for StreamEvent {}

#[cfg(test)]
mod tests;
