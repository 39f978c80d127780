//! The headers of an event: strings with names, which are handed on with it.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;

use bytestring::ByteString;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::event::payload::one_line;
use crate::event::validation_error::{ValidationError, ValidationErrorKind};

/// The most headers of an event.
pub const HEADERS_MAX: usize = 64;

/// The most bytes of UTF-8 in the name of a header.
pub const HEADER_NAME_BYTES_MAX: usize = 128;

/// The most bytes of UTF-8 in all names and values of an event's headers together: 8 KiB.
pub const HEADERS_BYTES_MAX: usize = 8 * 1024;

/// A JSON object of strings, as the client wrote it: 1 to [`HEADERS_MAX`] members, each name of 1 to [`HEADER_NAME_BYTES_MAX`] bytes,
/// [`HEADERS_BYTES_MAX`] bytes of names and values together, without control characters, and no name twice.
///
/// Headers are no part of an event's identity, and are not compared.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Headers(ByteString);

impl Headers {
    /// Takes a part of `body` that a JSON parser has read as one value. An object without members is no headers.
    pub(super) fn of_json(body: &ByteString, json: &str) -> Result<Option<Self>, ValidationError> {
        let count = check(json)?;
        Ok((count > 0).then(|| Self(body.slice_ref(json))))
    }

    /// Takes a text from the store, unchecked: it was parsed before it was stored.
    pub fn from_stored(text: impl Into<ByteString>) -> Self {
        Self(text.into())
    }

    /// The text as it was sent.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The text on one line.
    pub fn one_line(&self) -> Cow<'_, str> {
        one_line(&self.0)
    }
}

/// Shows the size alone, so that no log shows a header.
impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Headers({} bytes)", self.0.len())
    }
}

/// Checks a text that is known to be one JSON value, and returns the number of headers.
fn check(json: &str) -> Result<usize, ValidationError> {
    if !json.starts_with('{') {
        return Err(ValidationError::new(
            ValidationErrorKind::DictType,
            "Input should be a valid dictionary",
        ));
    }
    let Members(members) = serde_json::from_str(json)
        .map_err(|error| ValidationError::new(ValidationErrorKind::JsonInvalid, format!("Invalid JSON: {error}")))?;
    if members.len() > HEADERS_MAX {
        return Err(ValidationError::new(
            ValidationErrorKind::ListTooLong,
            format!("Headers should be at most {HEADERS_MAX}"),
        ));
    }
    let (mut names, mut bytes) = (HashSet::new(), 0);
    for (name, value) in &members {
        let (name, value) = (string(name.get())?, string(value.get())?);
        if name.is_empty() {
            return Err(ValidationError::new(
                ValidationErrorKind::StringTooShort,
                "The name of a header should have at least 1 byte",
            ));
        }
        if name.len() > HEADER_NAME_BYTES_MAX {
            return Err(ValidationError::new(
                ValidationErrorKind::StringTooLong,
                format!("The name of a header should have at most {HEADER_NAME_BYTES_MAX} bytes"),
            ));
        }
        bytes += name.len() + value.len();
        if !names.insert(name) {
            return Err(ValidationError::new(
                ValidationErrorKind::RepeatedMember,
                "Each header should appear only once",
            ));
        }
    }
    if bytes > HEADERS_BYTES_MAX {
        return Err(ValidationError::new(
            ValidationErrorKind::StringTooLong,
            format!("Headers should have at most {HEADERS_BYTES_MAX} bytes"),
        ));
    }
    Ok(members.len())
}

/// The string that a JSON text is.
fn string(json: &str) -> Result<Cow<'_, str>, ValidationError> {
    let quoted = json.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    let text = match quoted {
        None => {
            return Err(ValidationError::new(
                ValidationErrorKind::StringType,
                "The value of a header should be a valid string",
            ));
        }
        Some(text) if !text.contains('\\') => Cow::Borrowed(text),
        Some(_) => match serde_json::from_str(json) {
            Ok(decoded) => Cow::Owned(decoded),
            Err(_) => return Err(mismatch("Headers should have no unpaired surrogate")),
        },
    };
    if text.contains(char::is_control) {
        return Err(mismatch("Headers should have no control characters"));
    }
    Ok(text)
}

fn mismatch(msg: &'static str) -> ValidationError {
    ValidationError::new(ValidationErrorKind::StringPatternMismatch, msg)
}

/// The members of an object, repeated ones included.
struct Members<'a>(Vec<(&'a RawValue, &'a RawValue)>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(MembersVisitor)
    }
}

struct MembersVisitor;

impl<'de> Visitor<'de> for MembersVisitor {
    type Value = Members<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Self::Value, A::Error> {
        let mut members = Vec::new();
        while let Some(member) = object.next_entry()? {
            members.push(member);
        }
        Ok(Members(members))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(json: &str) -> Result<Option<Headers>, ValidationErrorKind> {
        let body = ByteString::from(json);
        Headers::of_json(&body, &body).map_err(|error| error.kind)
    }

    fn many(count: usize, name: usize, value: usize) -> String {
        let member = |number: usize| format!("\"{number:0name$}\":\"{}\"", "v".repeat(value));
        format!("{{{}}}", (0..count).map(member).collect::<Vec<_>>().join(","))
    }

    #[test]
    fn keeps_the_text_as_it_was_sent() {
        let text = "{\"b\": \"1\",\n\"\\u0061\":\"é\\ud83d\\ude00\", \"c\":\"\"}";
        let kept = headers(text).unwrap().unwrap();
        assert_eq!(kept.as_str(), text);
        assert_eq!(kept.one_line(), text.replace('\n', " "));
        assert_eq!(format!("{kept:?}"), format!("Headers({} bytes)", text.len()));
    }

    #[test]
    fn no_members_are_no_headers() {
        assert_eq!(headers("{}"), Ok(None));
        assert_eq!(headers("{ }"), Ok(None));
    }

    #[test]
    fn limits_are_inclusive() {
        for (text, kind) in [
            (many(64, 2, 1), None),
            (many(65, 2, 1), Some(ValidationErrorKind::ListTooLong)),
            (many(1, 128, 1), None),
            (many(1, 129, 1), Some(ValidationErrorKind::StringTooLong)),
            (many(8, 4, 1020), None),
            (many(8, 5, 1020), Some(ValidationErrorKind::StringTooLong)),
        ] {
            assert_eq!(headers(&text).err(), kind, "{text}");
        }
    }

    #[test]
    fn rejects_everything_but_strings_without_control_characters() {
        for (text, kind) in [
            ("[]", ValidationErrorKind::DictType),
            ("null", ValidationErrorKind::DictType),
            ("\"a\"", ValidationErrorKind::DictType),
            (r#"{"a":1}"#, ValidationErrorKind::StringType),
            (r#"{"a":null}"#, ValidationErrorKind::StringType),
            (r#"{"a":["b"]}"#, ValidationErrorKind::StringType),
            (r#"{"a":{"b":"c"}}"#, ValidationErrorKind::StringType),
            (r#"{"":"b"}"#, ValidationErrorKind::StringTooShort),
            (r#"{"a":"b","a":"b"}"#, ValidationErrorKind::RepeatedMember),
            (r#"{"a":"b","\u0061":"c"}"#, ValidationErrorKind::RepeatedMember),
            (r#"{"a":"b\n"}"#, ValidationErrorKind::StringPatternMismatch),
            (r#"{"a\u0000":"b"}"#, ValidationErrorKind::StringPatternMismatch),
            ("{\"a\":\"\u{85}\"}", ValidationErrorKind::StringPatternMismatch),
            (r#"{"a":"\ud800"}"#, ValidationErrorKind::StringPatternMismatch),
        ] {
            assert_eq!(headers(text), Err(kind), "{text}");
        }
    }
}
