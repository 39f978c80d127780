//! The JSON object of one event: its members as raw text, and the event that they make.

use std::fmt;

use bytestring::ByteString;
use serde::de::{Deserialize, Deserializer as _, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::event::Event;
use crate::event::headers::Headers;
use crate::event::name::{EventId, Source, Topic};
use crate::event::payload::Payload;
use crate::event::timestamp::Timestamp;
use crate::event::validation_error::{Loc, ValidationError, ValidationErrorKind};

/// A member of an event, in the order of the contract.
#[derive(Clone, Copy)]
pub(super) enum Member {
    Topic,
    EventId,
    Timestamp,
    Source,
    Payload,
    Headers,
}

impl Member {
    const fn name(self) -> &'static str {
        match self {
            Self::Topic => "topic",
            Self::EventId => "event_id",
            Self::Timestamp => "timestamp",
            Self::Source => "source",
            Self::Payload => "payload",
            Self::Headers => "headers",
        }
    }
}

/// What a key of an object means.
pub(super) enum Key {
    Member(Member),
    Events,
    Other,
}

impl Key {
    /// Reads a key of the JSON text, with its quotes.
    pub(super) fn of(json: &str) -> Self {
        match json {
            "\"topic\"" => Self::Member(Member::Topic),
            "\"event_id\"" => Self::Member(Member::EventId),
            "\"timestamp\"" => Self::Member(Member::Timestamp),
            "\"source\"" => Self::Member(Member::Source),
            "\"payload\"" => Self::Member(Member::Payload),
            "\"headers\"" => Self::Member(Member::Headers),
            "\"events\"" => Self::Events,
            _ if json.contains('\\') => Self::of_escaped(json),
            _ => Self::Other,
        }
    }

    /// The same for a key with escapes in it: `"\u0074opic"` is `topic`, too.
    fn of_escaped(json: &str) -> Self {
        match serde_json::from_str::<String>(json) {
            Ok(key) if !key.contains(['\\', '"']) => Self::of(&format!("\"{key}\"")),
            _ => Self::Other,
        }
    }
}

/// How often an object has a member, and its value.
#[derive(Clone, Copy, Default)]
enum Given<'a> {
    #[default]
    Missing,
    Once(&'a str),
    Repeated,
}

/// The members of an event, each as its JSON text.
#[derive(Default)]
pub(super) struct Members<'a>([Given<'a>; 6]);

impl<'a> Members<'a> {
    /// Reads a JSON text; `None` if it is not an object.
    pub(super) fn read(json: &'a str) -> Result<Option<Self>, serde_json::Error> {
        let mut deserializer = serde_json::Deserializer::from_str(json);
        let members = if json.trim_ascii_start().starts_with('{') {
            Some(deserializer.deserialize_map(MembersVisitor)?)
        } else {
            IgnoredAny::deserialize(&mut deserializer)?;
            None
        };
        deserializer.end()?;
        Ok(members)
    }

    pub(super) fn put(&mut self, member: Member, value: &'a RawValue) {
        let given = &mut self.0[member as usize];
        *given = match given {
            Given::Missing => Given::Once(value.get()),
            Given::Once(_) | Given::Repeated => Given::Repeated,
        };
    }

    /// Makes the event, of text that is a part of `body`. Otherwise returns all its errors, located at the members.
    pub(super) fn event(&self, body: &ByteString) -> Result<Event, Vec<ValidationError>> {
        let text = |member| self.text(member, body);
        let topic = text(Member::Topic).and_then(Topic::parse);
        let event_id = text(Member::EventId).and_then(EventId::parse);
        let occurred_at = text(Member::Timestamp).and_then(|text| Timestamp::parse(&text));
        let source = text(Member::Source).and_then(Source::parse);
        let payload = self.json(Member::Payload).and_then(|json| Payload::of_json(body, json));
        let headers = match self.0[Member::Headers as usize] {
            Given::Missing => Ok(None),
            _ => self.json(Member::Headers).and_then(|json| Headers::of_json(body, json)),
        };
        match (topic, event_id, occurred_at, source, payload, headers) {
            (Ok(topic), Ok(event_id), Ok(occurred_at), Ok(source), Ok(payload), Ok(headers)) => Ok(Event {
                topic,
                event_id,
                occurred_at,
                source,
                payload,
                headers,
            }),
            (topic, event_id, occurred_at, source, payload, headers) => {
                let errors = [
                    (Member::Topic, topic.err()),
                    (Member::EventId, event_id.err()),
                    (Member::Timestamp, occurred_at.err()),
                    (Member::Source, source.err()),
                    (Member::Payload, payload.err()),
                    (Member::Headers, headers.err()),
                ];
                let located = |(member, error): (Member, Option<ValidationError>)| {
                    Some(error?.at(vec![Loc::name(member.name())]))
                };
                Err(errors.into_iter().filter_map(located).collect())
            }
        }
    }

    /// Whether the object has a member that every event has.
    pub(super) fn has_required(&self) -> bool {
        self.0[..Member::Headers as usize]
            .iter()
            .any(|given| !matches!(given, Given::Missing))
    }

    fn json(&self, member: Member) -> Result<&'a str, ValidationError> {
        match self.0[member as usize] {
            Given::Missing => Err(ValidationError::new(ValidationErrorKind::Missing, "Field required")),
            Given::Once(json) => Ok(json),
            Given::Repeated => Err(ValidationError::new(
                ValidationErrorKind::RepeatedMember,
                "Field should appear only once",
            )),
        }
    }

    /// The value of a member that is a string: a slice of `body`, or decoded if there are escapes in it.
    fn text(&self, member: Member, body: &ByteString) -> Result<ByteString, ValidationError> {
        let json = self.json(member)?;
        let quoted = json.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
        let Some(text) = quoted else {
            return Err(ValidationError::new(
                ValidationErrorKind::StringType,
                "Input should be a valid string",
            ));
        };
        if !text.contains('\\') {
            return Ok(body.slice_ref(text));
        }
        match serde_json::from_str::<String>(json) {
            Ok(decoded) => Ok(decoded.into()),
            Err(_) => Err(ValidationError::new(
                ValidationErrorKind::StringPatternMismatch,
                "String should have no unpaired surrogate",
            )),
        }
    }
}

struct MembersVisitor;

impl<'de> Visitor<'de> for MembersVisitor {
    type Value = Members<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an event")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Self::Value, A::Error> {
        let mut members = Members::default();
        while let Some(key) = object.next_key::<&RawValue>()? {
            match Key::of(key.get()) {
                Key::Member(member) => members.put(member, object.next_value()?),
                Key::Events | Key::Other => {
                    object.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(members)
    }
}
