//! The body of a request: one event, an array, an envelope, or lines.
//!
//! serde_json reads the text; all errors of all events are collected, not only the first. Members are taken as raw text first,
//! because whether an object is an envelope may show only at its end. Nothing recurses, so no nesting can overflow the stack.

use std::fmt;

use bytes::Bytes;
use bytestring::ByteString;
use serde::de::{Deserialize, DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::event::members::{Key, Members};
use crate::event::parsed::{Parsed, Rejected, Shape};
use crate::event::validation_error::{Loc, VALIDATION_ERRORS_MAX, ValidationError, ValidationErrorKind};

/// Reads a body of JSON: an event, an array of events, or an object with a member `events`.
///
/// The whole body fails with `json_invalid` if it is not JSON in UTF-8 (nor with a byte order mark), `list_too_long` if it has
/// more than `max_events`, `list_type` if `events` is not an array, `repeated_member` if it occurs twice, and `ambiguous_body` if a
/// required member of an event stands beside it.
pub fn parse_json(body: &Bytes, max_events: usize) -> Result<Parsed, Vec<ValidationError>> {
    let Ok(text) = ByteString::try_from(body.clone()) else {
        return Err(whole(Shape::One, not_utf8()));
    };
    let mut reader = BodyReader::new(Shape::One, max_events);
    match reader.read_body(&text) {
        Ok(()) => Ok(reader.parsed),
        Err(error) => {
            let error = reader.error(&text, &error);
            Err(whole(reader.parsed.shape, error))
        }
    }
}

/// Reads a body of NDJSON: one event a line. Lines of white space alone are skipped, but counted. A line that is not JSON in
/// UTF-8 is one invalid event.
///
/// The whole body fails with `list_too_long` if it has more than `max_events`.
pub fn parse_lines(body: &Bytes, max_events: usize) -> Result<Parsed, Vec<ValidationError>> {
    let mut reader = BodyReader::new(Shape::Lines, max_events);
    for (number, line) in (1..).zip(body.split(|byte| *byte == b'\n')) {
        if line.trim_ascii().is_empty() {
            continue;
        }
        if reader.parsed.count() == max_events {
            return Err(whole(Shape::Lines, too_long(max_events)));
        }
        reader.parsed.lines.push(number);
        match ByteString::try_from(body.slice_ref(line)) {
            Ok(text) => reader.read_line(&text),
            Err(_) => reader.reject(vec![not_utf8()]),
        }
    }
    Ok(reader.parsed)
}

const BYTE_ORDER_MARK: char = '\u{feff}';
const LEAVE_OUT_THE_MARK: &str = "it begins with a byte order mark; leave that out";

/// Why a body was not read to its end.
#[derive(Clone, Copy)]
enum Stop {
    NoList,
    RepeatedEvents,
    Ambiguous,
    TooLong,
}

/// Reads a body, and collects its events and errors.
struct BodyReader {
    parsed: Parsed,
    max_events: usize,
    errors: usize,
    stop: Option<Stop>,
}

impl BodyReader {
    fn new(shape: Shape, max_events: usize) -> Self {
        Self {
            parsed: Parsed::new(shape),
            max_events,
            errors: 0,
            stop: None,
        }
    }

    fn read_body(&mut self, body: &ByteString) -> Result<(), serde_json::Error> {
        let mut deserializer = serde_json::Deserializer::from_str(body);
        match first_char(body) {
            Some('[') => {
                self.parsed.shape = Shape::Array;
                ListSeed { reader: self, body }.deserialize(&mut deserializer)?;
            }
            Some('{') => {
                let object = ObjectSeed { reader: self, body };
                if let Some(members) = object.deserialize(&mut deserializer)? {
                    self.add(body, Some(&members));
                }
            }
            _ => {
                IgnoredAny::deserialize(&mut deserializer)?;
                self.add(body, None);
            }
        }
        deserializer.end()
    }

    fn read_line(&mut self, line: &ByteString) {
        match Members::read(line) {
            Ok(members) => self.add(line, members.as_ref()),
            Err(_) if line.starts_with(BYTE_ORDER_MARK) => self.reject(vec![no_json(LEAVE_OUT_THE_MARK)]),
            Err(error) => {
                let reason = error.to_string().replace(" at line 1 column ", " at column ");
                self.reject(vec![no_json(&reason)]);
            }
        }
    }

    /// Adds the next event; without members it is not an object.
    fn add(&mut self, body: &ByteString, members: Option<&Members<'_>>) {
        match members.map(|members| members.event(body)) {
            Some(Ok(event)) => {
                self.parsed.indices.push(self.parsed.count());
                self.parsed.events.push(event);
            }
            Some(Err(errors)) => self.reject(errors),
            None => self.reject(vec![no_object()]),
        }
    }

    /// Rejects the next event, for errors that are located within it.
    fn reject(&mut self, mut errors: Vec<ValidationError>) {
        let index = self.parsed.count();
        errors.truncate(VALIDATION_ERRORS_MAX.saturating_sub(self.errors).max(1));
        self.errors += errors.len();
        let loc = self.parsed.loc(index);
        let errors = errors.into_iter().map(|error| error.within(&loc)).collect();
        self.parsed.rejected.push(Rejected { index, errors });
    }

    /// Why a body could not be read to its end.
    fn error(&self, body: &str, error: &serde_json::Error) -> ValidationError {
        match self.stop {
            None if body.starts_with(BYTE_ORDER_MARK) => no_json(LEAVE_OUT_THE_MARK),
            Some(Stop::TooLong) => too_long(self.max_events),
            Some(Stop::RepeatedEvents) => {
                ValidationError::new(ValidationErrorKind::RepeatedMember, "Field should appear only once")
            }
            Some(Stop::Ambiguous) => ValidationError::new(
                ValidationErrorKind::AmbiguousBody,
                "An object with 'events' should have no member of an event beside it",
            ),
            // A value that is not even JSON is not a list either, and that is the first error.
            Some(Stop::NoList) => match serde_json::from_str::<IgnoredAny>(body) {
                Ok(_) => ValidationError::new(ValidationErrorKind::ListType, "Input should be a valid list"),
                Err(error) => no_json(&error.to_string()),
            },
            None => no_json(&error.to_string()),
        }
    }
}

/// An error of the whole body.
fn whole(shape: Shape, error: ValidationError) -> Vec<ValidationError> {
    let mut loc = vec![Loc::name("body")];
    let is_of_object = matches!(
        error.kind,
        ValidationErrorKind::JsonInvalid | ValidationErrorKind::AmbiguousBody
    );
    if shape == Shape::Envelope && !is_of_object {
        loc.push(Loc::name("events"));
    }
    vec![error.at(loc)]
}

fn no_json(reason: &str) -> ValidationError {
    ValidationError::new(ValidationErrorKind::JsonInvalid, format!("Invalid JSON: {reason}"))
}

fn not_utf8() -> ValidationError {
    no_json("not UTF-8")
}

fn no_object() -> ValidationError {
    ValidationError::new(ValidationErrorKind::DictType, "Input should be a valid dictionary")
}

fn too_long(max_events: usize) -> ValidationError {
    ValidationError::new(
        ValidationErrorKind::ListTooLong,
        format!("List should have at most {max_events} events"),
    )
}

/// The first character after the white space of JSON.
fn first_char(json: &str) -> Option<char> {
    json.trim_start_matches([' ', '\t', '\n', '\r']).chars().next()
}

/// Reads an array of events.
struct ListSeed<'g> {
    reader: &'g mut BodyReader,
    body: &'g ByteString,
}

impl<'de> DeserializeSeed<'de> for ListSeed<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for ListSeed<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of events")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        self.reader.stop = None;
        while let Some(json) = list.next_element::<&RawValue>()? {
            if self.reader.parsed.count() == self.reader.max_events {
                self.reader.stop = Some(Stop::TooLong);
                return Err(A::Error::custom("too many events"));
            }
            let members = Members::read(json.get()).map_err(A::Error::custom)?;
            self.reader.add(self.body, members.as_ref());
        }
        Ok(())
    }
}

/// Reads an object that is an event or an envelope, and returns the members of the event.
struct ObjectSeed<'g> {
    reader: &'g mut BodyReader,
    body: &'g ByteString,
}

impl<'de> DeserializeSeed<'de> for ObjectSeed<'_> {
    type Value = Option<Members<'de>>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for ObjectSeed<'_> {
    type Value = Option<Members<'de>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an event, or an object with a member `events`")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Self::Value, A::Error> {
        let Self { reader, body } = self;
        let mut members = Members::default();
        while let Some(key) = object.next_key::<&RawValue>()? {
            match Key::of(key.get()) {
                Key::Member(member) => members.put(member, object.next_value()?),
                Key::Events if reader.parsed.shape == Shape::Envelope => {
                    reader.stop = Some(Stop::RepeatedEvents);
                    return Err(A::Error::custom("a second member `events`"));
                }
                Key::Events => {
                    reader.parsed.shape = Shape::Envelope;
                    reader.stop = Some(Stop::NoList);
                    object.next_value_seed(ListSeed { reader, body })?;
                }
                Key::Other => {
                    object.next_value::<IgnoredAny>()?;
                }
            }
        }
        if reader.parsed.shape == Shape::One {
            return Ok(Some(members));
        }
        if members.has_required() {
            reader.stop = Some(Stop::Ambiguous);
            return Err(A::Error::custom("members of an event beside `events`"));
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests;
