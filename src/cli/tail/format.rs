//! How an event is printed.

use std::collections::HashMap;
use std::str::FromStr;

use serde_json::Value;

use crate::api::events::StoredEvent;
use crate::cli::text::printable;

/// JSON, or text that is made of an event's members.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Format {
    /// The event as the service sent it.
    Json,
    /// Texts and members in turn. Control characters are escaped.
    Text(Vec<Part>),
}

/// A part of a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Part {
    Literal(String),
    Member(Member),
    /// The value at a JSON pointer in the payload.
    Pointer(String),
    /// The value of a header.
    Header(String),
}

/// A member of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Member {
    Topic,
    EventId,
    Timestamp,
    Source,
    Payload,
    Headers,
    ReceivedAt,
    Cursor,
}

/// What `text` stands for.
const TEXT: &str = "{timestamp}  {topic}  {event_id}  {source}  {payload}";

const POINTER: &str = "payload.";

const HEADER: &str = "headers.";

impl FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "json" => Ok(Self::Json),
            "text" => template(TEXT).map(Self::Text),
            text if text.contains('{') => template(text).map(Self::Text),
            _ => Err("give json, text, or a template such as '{topic} {event_id}'".to_owned()),
        }
    }
}

/// Members stand in braces; `{{` and `}}` are braces themselves.
fn template(text: &str) -> Result<Vec<Part>, String> {
    let (mut parts, mut literal) = (Vec::new(), String::new());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        if rest.starts_with("{{") || rest.starts_with("}}") {
            literal.push(first);
            rest = &rest[2..];
        } else if let Some(inner) = rest.strip_prefix('{') {
            let (name, after) = inner.split_once('}').ok_or("a { has no }")?;
            parts.push(Part::Literal(std::mem::take(&mut literal)));
            parts.push(member(name)?);
            rest = after;
        } else {
            literal.push(first);
            rest = &rest[first.len_utf8()..];
        }
    }
    parts.push(Part::Literal(literal));
    Ok(parts)
}

fn member(name: &str) -> Result<Part, String> {
    let member = match name {
        "topic" => Member::Topic,
        "event_id" => Member::EventId,
        "timestamp" => Member::Timestamp,
        "source" => Member::Source,
        "payload" => Member::Payload,
        "headers" => Member::Headers,
        "received_at" => Member::ReceivedAt,
        "cursor" => Member::Cursor,
        name => {
            let pointer = name.strip_prefix(POINTER).filter(|pointer| pointer.starts_with('/'));
            let header = name.strip_prefix(HEADER).filter(|header| !header.is_empty());
            let part = pointer.map(|pointer| Part::Pointer(pointer.to_owned()));
            return part.or(header.map(|header| Part::Header(header.to_owned()))).ok_or_else(|| {
                format!(
                    "an event has no {name}: give topic, event_id, timestamp, source, payload, payload./JSON/POINTER, headers, headers.NAME, received_at or cursor"
                )
            });
        }
    };
    Ok(Part::Member(member))
}

/// A line of text for an event.
pub(super) fn line(parts: &[Part], event: &StoredEvent<'_>) -> String {
    let mut line = String::new();
    for part in parts {
        match part {
            Part::Literal(text) => line.push_str(text),
            Part::Member(member) => line.push_str(&printable(&value(*member, event))),
            Part::Pointer(pointer) => line.push_str(&printable(&pointed(pointer, event))),
            Part::Header(name) => line.push_str(&printable(&header(name, event))),
        }
    }
    line
}

fn value(member: Member, event: &StoredEvent<'_>) -> String {
    match member {
        Member::Topic => event.topic.to_string(),
        Member::EventId => event.event_id.to_string(),
        Member::Timestamp => event.timestamp.to_string(),
        Member::Source => event.source.to_string(),
        Member::Payload => event.payload.0.to_string(),
        Member::Headers => event
            .headers
            .as_ref()
            .map_or(String::new(), |headers| headers.0.to_string()),
        Member::ReceivedAt => event.received_at.to_string(),
        Member::Cursor => event.cursor.to_string(),
    }
}

/// A string without its quotes, another value as JSON, and nothing where there is no value.
fn pointed(pointer: &str, event: &StoredEvent<'_>) -> String {
    let payload: Value = serde_json::from_str(&event.payload.0).unwrap_or_default();
    match payload.pointer(pointer) {
        None => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(value) => value.to_string(),
    }
}

/// The value of a header, and nothing where there is none.
fn header(name: &str, event: &StoredEvent<'_>) -> String {
    let headers = event.headers.as_ref().map(|headers| serde_json::from_str(&headers.0));
    let headers: HashMap<String, String> = headers.and_then(Result::ok).unwrap_or_default();
    headers.get(name).cloned().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVENT: &str = r#"{"topic":"t","event_id":"1\u001b[2J","timestamp":"2025-10-24T10:30:00Z","source":"shop","payload":{"a":{"b":["x\n",2]}},"headers":{"h":"v.1"},"received_at":"2025-10-24T10:30:01Z","cursor":"000000000000000100000001"}"#;

    fn shown(format: &str) -> String {
        let Format::Text(parts) = format.parse().unwrap() else {
            panic!("{format} is text");
        };
        line(&parts, &serde_json::from_str(EVENT).unwrap())
    }

    #[test]
    fn a_template_shows_members_and_values_of_the_payload() {
        for (format, expected) in [
            ("{topic}/{event_id}!", "t/1\\u001b[2J!"),
            ("{payload./a/b/1}{payload./a/b/0}{payload./c}", "2x\\u000a"),
            ("{headers.h}{headers.x} {headers}", "v.1 {\"h\":\"v.1\"}"),
            ("{{{topic}}} {payload./a}", "{t} {\"b\":[\"x\\n\",2]}"),
            (
                "{cursor} {received_at}",
                "000000000000000100000001 2025-10-24T10:30:01Z",
            ),
        ] {
            assert_eq!(shown(format), expected);
        }
        assert_eq!(
            shown("text"),
            "2025-10-24T10:30:00Z  t  1\\u001b[2J  shop  {\"a\":{\"b\":[\"x\\n\",2]}}"
        );
    }

    #[test]
    fn unknown_formats_and_members_are_errors() {
        for format in ["", "xml", "{topic", "{id}", "{payload.a}", "{headers.}", "{}"] {
            assert!(format.parse::<Format>().is_err(), "{format}");
        }
        assert_eq!("json".parse(), Ok(Format::Json));
    }
}
