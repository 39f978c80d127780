//! The texts that members of requests and answers are made of: how they are read from JSON, and their schemas. The rules are
//! those of [`crate::event`].

use serde::{Deserialize, Deserializer, de};
use serde_json::json;
use utoipa::openapi::schema::{AdditionalProperties, Object, ObjectBuilder, Schema};
use utoipa::openapi::{KnownFormat, RefOr, SchemaFormat, Type};
use utoipa::{PartialSchema, ToSchema};

use crate::access::NAME_CHARS_MAX;
use crate::event::{
    Cursor, EventId, HEADER_NAME_BYTES_MAX, HEADERS_BYTES_MAX, HEADERS_MAX, Headers, NAME_BYTES_MAX, NUMBER_CHARS_MAX,
    PAYLOAD_BYTES_MAX, PAYLOAD_DEPTH_MAX, Payload, Source, Timestamp, Topic, ValidationError,
};

/// Reads a string of JSON with `parse`.
fn parsed<'de, D: Deserializer<'de>, T>(
    deserializer: D,
    parse: impl Fn(&str) -> Result<T, ValidationError>,
) -> Result<T, D::Error> {
    let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
    parse(&text).map_err(de::Error::custom)
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        parsed(deserializer, Timestamp::parse)
    }
}

impl<'de> Deserialize<'de> for Cursor {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        parsed(deserializer, Cursor::parse)
    }
}

/// The characters that names and headers may not have, and those of which a name may not consist, or that a topic may not have, in a
/// regular expression (ECMA-262). Tests compare the patterns with what parsing accepts.
const CONTROL: &str = r"\u0000-\u001f\u007f-\u009f";
const SPACE: &str = r"\u0000-\u0020\u007f-\u00a0\u1680\u2000-\u200a\u2028-\u2029\u202f\u205f\u3000";

/// The pattern of a topic.
fn topic_pattern() -> String {
    format!("^[^{SPACE}]+$")
}

/// The pattern of an id or a source.
fn name_pattern() -> String {
    format!("^[^{CONTROL}]*[^{SPACE}][^{CONTROL}]*$")
}

/// The schema of a name with this pattern.
fn name(about: &str, example: &str, pattern: String) -> RefOr<Schema> {
    let about = format!("{about} 1 to {NAME_BYTES_MAX} bytes of UTF-8.");
    text(&about)
        .min_length(Some(1))
        .max_length(Some(NAME_BYTES_MAX))
        .pattern(Some(pattern))
        .examples([example])
        .into()
}

fn text(about: &str) -> ObjectBuilder {
    Object::builder().schema_type(Type::String).description(Some(about))
}

/// The schema of a cursor, or of a parameter that may also be empty, for the beginning of the log.
pub fn cursor_schema(about: &str, may_be_empty: bool) -> RefOr<Schema> {
    let pattern = match may_be_empty {
        true => format!("^({})?$", Cursor::PATTERN),
        false => format!("^{}$", Cursor::PATTERN),
    };
    text(about)
        .pattern(Some(pattern))
        .examples([Cursor::new(7, 1).to_string()])
        .into()
}

/// The schema of a topic, of the beginning of one, or of nothing.
pub fn topic_part_schema(about: &str) -> RefOr<Schema> {
    text(about)
        .max_length(Some(NAME_BYTES_MAX))
        .pattern(Some(format!("^[^{SPACE}]*$")))
        .examples(["order."])
        .into()
}

impl PartialSchema for Topic {
    fn schema() -> RefOr<Schema> {
        let about = "The kind of event. Case-sensitive, without white space and control characters.";
        name(about, "order.created", topic_pattern())
    }
}
impl ToSchema for Topic {}

impl PartialSchema for EventId {
    fn schema() -> RefOr<Schema> {
        let about = "The publisher's id of the event, unique within the topic. Not blank, without control characters.";
        name(about, "evt-1", name_pattern())
    }
}
impl ToSchema for EventId {}

impl PartialSchema for Source {
    fn schema() -> RefOr<Schema> {
        let about = "The system that published the event. Not blank, without control characters.";
        name(about, "shop", name_pattern())
    }
}
impl ToSchema for Source {}

impl PartialSchema for Timestamp {
    fn schema() -> RefOr<Schema> {
        text("RFC 3339, in the years 0001 to 9999 of UTC. Second 60 is rejected. Seconds may be missing, the `T` may be a space or lower case, the `Z` lower case, and a time without an offset is in UTC. Responses give it in UTC, with as many digits of a second as it needs: at most six, further digits are cut off.")
            .format(Some(SchemaFormat::KnownFormat(KnownFormat::DateTime)))
            .examples(["2025-10-24T10:30:00Z"])
            .into()
    }
}
impl ToSchema for Timestamp {}

impl PartialSchema for Cursor {
    fn schema() -> RefOr<Schema> {
        cursor_schema(
            "A position in the log. Opaque. Cursors of events of one topic compare, byte by byte, in log order.",
            false,
        )
    }
}
impl ToSchema for Cursor {}

/// The schema of the name of a key.
pub struct KeyName;

impl PartialSchema for KeyName {
    fn schema() -> RefOr<Schema> {
        text("What people call it. Without control characters.")
            .min_length(Some(1))
            .max_length(Some(NAME_CHARS_MAX))
            .pattern(Some(format!("^[^{CONTROL}]+$")))
            .examples(["shop"])
            .into()
    }
}
impl ToSchema for KeyName {}

/// The schema of a pattern of topics.
pub struct TopicPattern;

impl PartialSchema for TopicPattern {
    fn schema() -> RefOr<Schema> {
        let about = "A topic, in which `*` stands for any characters.";
        name(about, "order.*", topic_pattern())
    }
}
impl ToSchema for TopicPattern {}

impl PartialSchema for Headers {
    fn schema() -> RefOr<Schema> {
        let about = format!(
            "Strings that are delivered with the event. They are no part of its identity, and are not compared. At most {HEADERS_MAX}, each name of 1 to {HEADER_NAME_BYTES_MAX} bytes, names and values together of at most {HEADERS_BYTES_MAX} bytes, without control characters. Absent when there are none."
        );
        let name = text("The name of a header.")
            .min_length(Some(1))
            .max_length(Some(HEADER_NAME_BYTES_MAX))
            .pattern(Some(format!("^[^{CONTROL}]+$")));
        // A value may be empty.
        let value: RefOr<Schema> = text("The value of a header.")
            .pattern(Some(format!("^[^{CONTROL}]*$")))
            .into();
        Object::builder()
            .schema_type(Type::Object)
            .additional_properties(Some(AdditionalProperties::RefOr(value)))
            .property_names(Some(name))
            .max_properties(Some(HEADERS_MAX))
            .description(Some(about))
            .examples([json!({ "content-type": "application/json" })])
            .into()
    }
}
impl ToSchema for Headers {}

impl PartialSchema for Payload {
    fn schema() -> RefOr<Schema> {
        let about = format!(
            "Any JSON object of at most {PAYLOAD_BYTES_MAX} bytes and {PAYLOAD_DEPTH_MAX} levels (the object itself is level 1), without `\\u0000` and unpaired surrogates. Every number is finite as an IEEE double, does not underflow to zero, and has at most {NUMBER_CHARS_MAX} characters. Responses give it byte for byte as it was sent."
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

#[cfg(test)]
mod tests {
    use super::*;

    /// A regular expression (ECMA-262) for the texts that `parse` accepts, found by calling it with each character. Where some
    /// characters are accepted only beside others, one of the others must be there.
    fn pattern<T>(parse: impl Fn(String) -> Result<T, ValidationError>) -> String {
        let alone = excluded(|character| parse(character.to_string()).is_ok());
        let beside = excluded(|character| parse(format!("a{character}")).is_ok());
        if alone == beside {
            format!("^[^{alone}]+$")
        } else {
            format!("^[^{beside}]*[^{alone}][^{beside}]*$")
        }
    }

    /// The characters that are not accepted, as a part of a regular expression. Those beyond the basic plane are all accepted; a test
    /// checks that.
    fn excluded(is_accepted: impl Fn(char) -> bool) -> String {
        let mut excluded = String::new();
        let mut from = None;
        for code in 0..=0xffff_u32 {
            let is_excluded = char::from_u32(code).is_some_and(|character| !is_accepted(character));
            match (from, is_excluded) {
                (None, true) => from = Some(code),
                (Some(first), false) => {
                    excluded.push_str(&format!("\\u{first:04x}"));
                    if first < code - 1 {
                        excluded.push_str(&format!("-\\u{:04x}", code - 1));
                    }
                    from = None;
                }
                _ => {}
            }
        }
        excluded
    }

    #[test]
    fn patterns_exclude_exactly_what_parsing_rejects() {
        assert_eq!(pattern(EventId::parse), name_pattern());
        assert_eq!(pattern(Source::parse), name_pattern());
        assert_eq!(pattern(Topic::parse), topic_pattern());
        let is_no_control = |character: char| !character.is_control();
        assert_eq!(excluded(is_no_control), CONTROL);
    }

    #[test]
    fn names_accept_every_character_beyond_the_basic_plane() {
        for character in '\u{10000}'..=char::MAX {
            Topic::parse(character.to_string()).unwrap();
        }
    }

    #[test]
    fn times_and_cursors_are_read_as_they_are_written() {
        let cursor = Cursor::new(7, 1);
        assert_eq!(serde_json::from_value::<Cursor>(json!(cursor)).unwrap(), cursor);
        let time = Timestamp::parse("2025-10-24T10:30:00.25Z").unwrap();
        assert_eq!(serde_json::from_value::<Timestamp>(json!(time)).unwrap(), time);
        assert!(serde_json::from_str::<Cursor>("\"7\"").is_err());
        assert!(serde_json::from_str::<Timestamp>("\"yesterday\"").is_err());
    }
}
