//! The body of a request: one event, an array, an envelope, or lines.
//!
//! serde_json reads the text; every fault of every event is gathered, not only the first. Members are taken as raw text first, because whether an
//! object is an envelope may show only at its end. Nothing recurses, so no nesting can overflow the stack.

use std::fmt;

use bytes::Bytes;
use bytestring::ByteString;
use serde::de::{Deserialize, DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::event::members::{Breaches, Key, Member, Members};
use crate::event::parsed::{Parsed, Rejected, Shape};
use crate::event::validation_error::{Breach, Loc, VALIDATION_ERRORS_MAX, ValidationError, ValidationErrorKind};

/// Reads a body of JSON: an event, an array of events, or an object with a member `events`.
///
/// Fails as a whole with `json_invalid` if it is not JSON in UTF-8 (one that begins with a byte order mark is not), `list_too_long` if it has more
/// than `max_events`, `list_type` if `events` is no array, and `repeated_member` if it stands twice.
pub fn parse_json(body: &Bytes, max_events: usize) -> Result<Parsed, Vec<ValidationError>> {
    let Ok(text) = ByteString::try_from(body.clone()) else {
        return Err(whole(Shape::One, not_utf8()));
    };
    let mut gather = Gather::new(Shape::One, max_events);
    match gather.read_body(&text) {
        Ok(()) => Ok(gather.parsed),
        Err(error) => {
            let breach = gather.breach(&text, &error);
            Err(whole(gather.parsed.shape, breach))
        }
    }
}

/// Reads a body of NDJSON: one event a line. Lines of nothing but white space are skipped, but counted. A line that is not JSON in UTF-8 is one
/// invalid event.
///
/// Fails as a whole with `list_too_long` if it has more than `max_events`.
pub fn parse_lines(body: &Bytes, max_events: usize) -> Result<Parsed, Vec<ValidationError>> {
    let mut gather = Gather::new(Shape::Lines, max_events);
    for (number, line) in (1..).zip(body.split(|byte| *byte == b'\n')) {
        if line.trim_ascii().is_empty() {
            continue;
        }
        if gather.parsed.count() == max_events {
            return Err(whole(Shape::Lines, too_long(max_events)));
        }
        gather.parsed.lines.push(number);
        match ByteString::try_from(body.slice_ref(line)) {
            Ok(text) => gather.read_line(&text),
            Err(_) => gather.reject(vec![(None, not_utf8())]),
        }
    }
    Ok(gather.parsed)
}

/// Why reading ended before the end of the text.
#[derive(Clone, Copy)]
enum Stop {
    NoList,
    RepeatedEvents,
    TooLong,
}

/// What is gathered while a body is read.
struct Gather {
    parsed: Parsed,
    max_events: usize,
    faults: usize,
    stop: Option<Stop>,
}

impl Gather {
    fn new(shape: Shape, max_events: usize) -> Self {
        Self {
            parsed: Parsed::new(shape),
            max_events,
            faults: 0,
            stop: None,
        }
    }

    fn read_body(&mut self, body: &ByteString) -> Result<(), serde_json::Error> {
        let mut deserializer = serde_json::Deserializer::from_str(body);
        match first_char(body) {
            Some('[') => {
                self.parsed.shape = Shape::Array;
                ListSeed { gather: self, body }.deserialize(&mut deserializer)?;
            }
            Some('{') => {
                let object = ObjectSeed { gather: self, body };
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
            Err(error) => {
                let reason = error.to_string().replace(" at line 1 column ", " at column ");
                self.reject(vec![(None, no_json(&reason))]);
            }
        }
    }

    /// Adds the next event; without members it is no object.
    fn add(&mut self, body: &ByteString, members: Option<&Members<'_>>) {
        match members.map(|members| members.event(body)) {
            Some(Ok(event)) => {
                self.parsed.indices.push(self.parsed.count());
                self.parsed.events.push(event);
            }
            Some(Err(breaches)) => self.reject(breaches),
            None => self.reject(vec![(None, no_object())]),
        }
    }

    fn reject(&mut self, mut breaches: Breaches) {
        let index = self.parsed.count();
        breaches.truncate(VALIDATION_ERRORS_MAX.saturating_sub(self.faults).max(1));
        self.faults += breaches.len();
        let place = |(member, breach): (Option<Member>, Breach)| {
            let mut loc = self.parsed.loc(index);
            loc.extend(member.map(|member| Loc::name(member.name())));
            breach.at(loc)
        };
        let faults = breaches.into_iter().map(place).collect();
        self.parsed.rejected.push(Rejected { index, faults });
    }

    /// What is wrong with a body that could not be read to its end.
    fn breach(&self, body: &str, error: &serde_json::Error) -> Breach {
        match self.stop {
            Some(Stop::TooLong) => too_long(self.max_events),
            Some(Stop::RepeatedEvents) => {
                Breach::new(ValidationErrorKind::RepeatedMember, "Field should be given once")
            }
            // A value that is not even JSON is no list either, and what is not JSON is told first.
            Some(Stop::NoList) => match serde_json::from_str::<IgnoredAny>(body) {
                Ok(_) => Breach::new(ValidationErrorKind::ListType, "Input should be a valid list"),
                Err(error) => no_json(&error.to_string()),
            },
            None => no_json(&error.to_string()),
        }
    }
}

/// A fault of the body as such.
fn whole(shape: Shape, breach: Breach) -> Vec<ValidationError> {
    let mut loc = vec![Loc::name("body")];
    if shape == Shape::Envelope && breach.kind != ValidationErrorKind::JsonInvalid {
        loc.push(Loc::name("events"));
    }
    vec![breach.at(loc)]
}

fn no_json(reason: &str) -> Breach {
    Breach::new(ValidationErrorKind::JsonInvalid, format!("Invalid JSON: {reason}"))
}

fn not_utf8() -> Breach {
    no_json("not UTF-8")
}

fn no_object() -> Breach {
    Breach::new(ValidationErrorKind::DictType, "Input should be a valid dictionary")
}

fn too_long(max_events: usize) -> Breach {
    Breach::new(
        ValidationErrorKind::ListTooLong,
        format!("List should have at most {max_events} events"),
    )
}

/// The first character behind the white space of JSON.
fn first_char(json: &str) -> Option<char> {
    json.trim_start_matches([' ', '\t', '\n', '\r']).chars().next()
}

/// Reads an array of events.
struct ListSeed<'g> {
    gather: &'g mut Gather,
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
        self.gather.stop = None;
        while let Some(json) = list.next_element::<&RawValue>()? {
            if self.gather.parsed.count() == self.gather.max_events {
                self.gather.stop = Some(Stop::TooLong);
                return Err(A::Error::custom("too many events"));
            }
            let members = Members::read(json.get()).map_err(A::Error::custom)?;
            self.gather.add(self.body, members.as_ref());
        }
        Ok(())
    }
}

/// Reads an object that is an event or an envelope, and returns the members of the event.
struct ObjectSeed<'g> {
    gather: &'g mut Gather,
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
        let Self { gather, body } = self;
        let mut members = Members::default();
        while let Some(key) = object.next_key::<&RawValue>()? {
            match Key::of(key.get()) {
                Key::Member(member) => members.put(member, object.next_value()?),
                Key::Events if gather.parsed.shape == Shape::Envelope => {
                    gather.stop = Some(Stop::RepeatedEvents);
                    return Err(A::Error::custom("a second member `events`"));
                }
                Key::Events => {
                    gather.parsed.shape = Shape::Envelope;
                    gather.stop = Some(Stop::NoList);
                    object.next_value_seed(ListSeed { gather, body })?;
                }
                Key::Other => {
                    object.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok((gather.parsed.shape == Shape::One).then_some(members))
    }
}

#[cfg(test)]
mod tests;
