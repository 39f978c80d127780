//! The shapes of what goes in and out. The rules of an event are read off [`crate::event`]; the structs are those parts of
//! answers that the handlers write without one, and a test from outside holds them to what is written.

pub mod observe;

use serde_json::json;
use utoipa::openapi::schema::{AdditionalProperties, Object, ObjectBuilder, Schema};
use utoipa::openapi::{Array, KnownFormat, OneOf, Ref, RefOr, SchemaFormat, Type};
use utoipa::{PartialSchema, ToSchema};

use crate::event::{
    Cursor, Event, EventId, NAME_BYTES_MAX, NUMBER_CHARS_MAX, PAYLOAD_BYTES_MAX, PAYLOAD_DEPTH_MAX, Payload, Source,
    StoredEvent, Timestamp, Topic, ValidationError,
};

/// A regular expression (ECMA-262) for what `parse` takes, found by asking it about each character. Those beyond the basic
/// plane are all taken: a test holds that.
fn pattern<T>(parse: impl Fn(String) -> Result<T, ValidationError>) -> String {
    let mut refused = String::new();
    let mut from = None;
    for code in 0..=0xffff_u32 {
        let is_refused = char::from_u32(code).is_some_and(|character| parse(character.to_string()).is_err());
        match (from, is_refused) {
            (None, true) => from = Some(code),
            (Some(first), false) => {
                refused.push_str(&format!("\\u{first:04x}"));
                if first < code - 1 {
                    refused.push_str(&format!("-\\u{:04x}", code - 1));
                }
                from = None;
            }
            _ => {}
        }
    }
    format!("^[^{refused}]+$")
}

/// The schema of a name, of which `parse` takes what may be.
fn name<T>(about: &str, example: &str, parse: impl Fn(String) -> Result<T, ValidationError>) -> RefOr<Schema> {
    let about = format!("{about} 1 to {NAME_BYTES_MAX} bytes of UTF-8.");
    text(&about)
        .min_length(Some(1))
        .max_length(Some(NAME_BYTES_MAX))
        .pattern(Some(pattern(parse)))
        .examples([example])
        .into()
}

fn text(about: &str) -> ObjectBuilder {
    Object::builder().schema_type(Type::String).description(Some(about))
}

/// The schema of a cursor, also of an empty one where that is the beginning.
pub(super) fn place(about: &str, may_be_empty: bool) -> RefOr<Schema> {
    let pattern = match may_be_empty {
        true => format!("^({})?$", Cursor::PATTERN),
        false => format!("^{}$", Cursor::PATTERN),
    };
    text(about)
        .pattern(Some(pattern))
        .examples([Cursor::new(7, 1).to_string()])
        .into()
}

impl PartialSchema for Topic {
    fn schema() -> RefOr<Schema> {
        let about = "What kind of thing happened. Case-sensitive, without white space and control characters.";
        name(about, "order.created", Topic::parse)
    }
}
impl ToSchema for Topic {}

impl PartialSchema for EventId {
    fn schema() -> RefOr<Schema> {
        let about = "The publisher's name for the event, unique within the topic. Without control characters.";
        name(about, "evt-1", EventId::parse)
    }
}
impl ToSchema for EventId {}

impl PartialSchema for Source {
    fn schema() -> RefOr<Schema> {
        name(
            "Who says that it happened. Without control characters.",
            "shop",
            Source::parse,
        )
    }
}
impl ToSchema for Source {}

impl PartialSchema for Timestamp {
    fn schema() -> RefOr<Schema> {
        text("RFC 3339, in the years 0001 to 9999 of UTC; second 60 is refused. Also taken: without seconds, with a blank or a lower-case `t` or `z`, and without an offset, which is then UTC. It comes back in UTC, with the digits of a second that it needs: at most six, further ones are cut.")
            .format(Some(SchemaFormat::KnownFormat(KnownFormat::DateTime)))
            .examples(["2025-10-24T10:30:00Z"])
            .into()
    }
}
impl ToSchema for Timestamp {}

impl PartialSchema for Cursor {
    fn schema() -> RefOr<Schema> {
        place(
            "A place in the log. Opaque; those of one topic compare, byte by byte, in log order.",
            false,
        )
    }
}
impl ToSchema for Cursor {}

impl PartialSchema for Payload {
    fn schema() -> RefOr<Schema> {
        let about = format!(
            "Any JSON object of at most {PAYLOAD_BYTES_MAX} bytes and {PAYLOAD_DEPTH_MAX} levels (the object itself is level 1), without `\\u0000` and unpaired surrogates. Every number is finite as an IEEE double, does not underflow to zero, and has at most {NUMBER_CHARS_MAX} characters. It comes back byte for byte as it was sent."
        );
        Object::builder()
            .schema_type(Type::Object)
            .additional_properties(Some(AdditionalProperties::FreeForm(true)))
            .description(Some(about))
            .examples([json!({ "total": 44.8 })])
            .into()
    }
}
impl ToSchema for Payload {}

/// The members that a publisher sends, and a reader gets.
fn members(about: &str) -> ObjectBuilder {
    let members = [
        ("topic", "Topic"),
        ("event_id", "EventId"),
        ("timestamp", "Timestamp"),
        ("source", "Source"),
        ("payload", "Payload"),
    ];
    let object = Object::builder().schema_type(Type::Object).description(Some(about));
    members.into_iter().fold(object, |object, (member, schema)| {
        object.property(member, Ref::from_schema_name(schema)).required(member)
    })
}

impl PartialSchema for Event {
    fn schema() -> RefOr<Schema> {
        members("What is published. Its identity is `(topic, event_id)`, byte for byte. Other members are ignored; one of these given twice is refused.").into()
    }
}
impl ToSchema for Event {}

impl PartialSchema for StoredEvent {
    fn schema() -> RefOr<Schema> {
        members("An event as it was first published, with the store's clock and its place in the log.")
            .property("received_at", Ref::from_schema_name("Timestamp"))
            .property("cursor", Ref::from_schema_name("Cursor"))
            .required("received_at")
            .required("cursor")
            .into()
    }
}
impl ToSchema for StoredEvent {}

/// A body of JSON.
pub struct Publication;

impl PartialSchema for Publication {
    fn schema() -> RefOr<Schema> {
        let event = || Ref::from_schema_name("Event");
        let envelope = Object::builder()
            .schema_type(Type::Object)
            .title(Some("Envelope"))
            .property("events", Array::new(event()))
            .required("events");
        OneOf::builder()
            .description(Some(
                "One event, an array of events, or an envelope: an object with a member `events` is one. No events are fine, too.",
            ))
            .item(event())
            .item(Array::builder().title(Some("Array")).items(event()))
            .item(envelope)
            .into()
    }
}
impl ToSchema for Publication {}

/// Lines of JSON.
pub struct Lines;

impl PartialSchema for Lines {
    fn schema() -> RefOr<Schema> {
        text("One event (a JSON object) a line. Blank lines of a request are skipped.").into()
    }
}
impl ToSchema for Lines {}

/// One event of a stream of Server-Sent Events.
pub struct StreamEvent;

impl PartialSchema for StreamEvent {
    fn schema() -> RefOr<Schema> {
        let data = text("The event, on one line.")
            .content_media_type("application/json")
            .content_schema(Some(Ref::from_schema_name(StoredEvent::name())));
        Object::builder()
            .schema_type(Type::Object)
            .description(Some("One event of the stream."))
            .property("id", Ref::from_schema_name(Cursor::name()))
            .property(
                "event",
                Object::builder().schema_type(Type::String).enum_values(Some(["event"])),
            )
            .property("data", data)
            .required("id")
            .required("event")
            .required("data")
            .into()
    }
}
impl ToSchema for StreamEvent {}

/// The answer to a request that was queued and not waited for.
#[derive(ToSchema)]
pub struct Accepted {
    /// `accepted`
    #[schema(pattern = "^accepted$")]
    pub status: String,
    /// For people.
    #[schema(example = "Received 1 event(s) for processing")]
    pub message: String,
    /// The events that were queued.
    pub received: u64,
    /// With `handling=lenient`: how many were refused.
    #[schema(nullable = false)]
    pub details: Option<RejectedCount>,
    /// With `handling=lenient`: the refused.
    #[schema(nullable = false)]
    pub results: Option<Vec<RejectedEvent>>,
}

/// How many events of a lenient request were refused.
#[derive(ToSchema)]
pub struct RejectedCount {
    /// Events that break a rule.
    pub rejected: u64,
}

/// An event of a lenient request that breaks a rule.
#[derive(ToSchema)]
pub struct RejectedEvent {
    /// Its place in the request, from 0.
    pub index: u64,
    /// `rejected`
    #[schema(pattern = "^rejected$")]
    pub status: String,
    /// What is wrong.
    pub errors: Vec<ValidationError>,
}

/// What was waited for.
#[derive(ToSchema)]
pub struct Flushed {
    /// The events of this process that were not yet committed and fanned out when the call came.
    pub flushed: u64,
}

/// A page of events.
#[derive(ToSchema)]
pub struct Page {
    /// `success`
    #[schema(pattern = "^success$")]
    pub status: String,
    /// The topic that was asked for.
    #[schema(required = true)]
    pub topic: Option<Topic>,
    /// How many events follow.
    pub count: u64,
    /// The events.
    pub events: Vec<StoredEvent>,
    /// Where to go on with `after=`.
    pub next: Cursor,
}

/// An error (RFC 9457).
#[derive(ToSchema)]
pub struct Problem {
    /// Always `about:blank`: the status says what kind of problem it is.
    #[schema(format = "uri-reference", example = "about:blank")]
    pub r#type: String,
    /// The status in words.
    pub title: String,
    /// The status code.
    #[schema(minimum = 400, maximum = 599)]
    pub status: u16,
    /// What happened, and what to do, for people.
    pub detail: String,
    /// The request's id, as in the header `x-request-id`.
    #[schema(min_length = 1, max_length = 128)]
    pub request_id: String,
    /// With 504: `unknown`. Send the request again; nothing is stored twice.
    #[schema(nullable = false, pattern = "^unknown$")]
    pub outcome: Option<String>,
}

/// The answer 422: what was sent breaks rules.
#[derive(ToSchema)]
pub struct Faults {
    /// The faults, at most 100.
    #[schema(min_items = 1)]
    pub detail: Vec<ValidationError>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pattern_of_a_name_refuses_what_parsing_refuses_and_nothing_else() {
        let control = r"\u0000-\u001f\u007f-\u009f";
        assert_eq!(pattern(EventId::parse), format!("^[^{control}]+$"));
        assert_eq!(pattern(Source::parse), pattern(EventId::parse));
        assert_eq!(
            pattern(Topic::parse),
            r"^[^\u0000-\u0020\u007f-\u00a0\u1680\u2000-\u200a\u2028-\u2029\u202f\u205f\u3000]+$"
        );
    }

    #[test]
    fn every_character_beyond_the_basic_plane_may_be_in_a_name() {
        for character in '\u{10000}'..=char::MAX {
            Topic::parse(character.to_string()).unwrap();
        }
    }
}
