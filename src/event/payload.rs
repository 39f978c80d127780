//! The payload: the client's JSON text, and the scan that rejects values that a store could not hold.

mod value;

use std::borrow::Cow;
use std::fmt;

use bytestring::ByteString;
use serde_json::value::RawValue;

use crate::event::validation_error::{ValidationError, ValidationErrorKind};

/// The most bytes of a payload, as it is sent: 256 KiB.
pub const PAYLOAD_BYTES_MAX: usize = 256 * 1024;

/// The most levels of objects and arrays; the payload itself is level 1. Parsers in other languages recurse, and stop at some
/// hundred levels.
pub const PAYLOAD_DEPTH_MAX: usize = 64;

/// The most characters of a number's literal. PostgreSQL's `jsonb` and exact comparison then work on some hundred digits at most.
pub const NUMBER_CHARS_MAX: usize = 1000;

/// A literal of at most this number of characters and without an exponent is neither infinite nor underflows: an IEEE double
/// reaches to 308 digits on each side of the point.
const PLAIN_NUMBER_CHARS: usize = 300;

/// The largest exponent that PostgreSQL's `numeric` takes with a zero.
const ZERO_EXPONENT_MAX: i64 = 1_073_741_822;

/// The most decimal places that PostgreSQL's `numeric` has, and it counts those of a zero, too: `0e-16384` has one too many.
const ZERO_PLACES_MAX: i64 = 16_383;

/// A JSON object as the client wrote it: at most [`PAYLOAD_BYTES_MAX`] bytes and [`PAYLOAD_DEPTH_MAX`] levels, without `\u0000`
/// and unpaired surrogates, and with every number finite as an IEEE double, not underflowing to zero, and of at most
/// [`NUMBER_CHARS_MAX`] characters.
///
/// `==` compares payloads byte by byte; [`Payload::digest`] tells different JSON values apart. `Debug` shows the size alone, so
/// that no log shows a payload.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Payload(ByteString);

impl Payload {
    /// Takes a JSON text, without the white space around it. Otherwise returns the first error; `json_invalid` if it is not JSON.
    pub fn parse(text: impl Into<ByteString>) -> Result<Self, ValidationError> {
        let text = text.into();
        let json: &RawValue = serde_json::from_str(&text).map_err(|error| {
            ValidationError::new(ValidationErrorKind::JsonInvalid, format!("Invalid JSON: {error}"))
        })?;
        check(json.get())?;
        Ok(Self(text.slice_ref(json.get())))
    }

    /// Takes a text from the store, unchecked: it was parsed before it was stored.
    pub fn from_stored(text: impl Into<ByteString>) -> Self {
        Self(text.into())
    }

    /// Takes a part of `body` that a JSON parser has read as one value.
    pub(super) fn of_json(body: &ByteString, json: &str) -> Result<Self, ValidationError> {
        check(json)?;
        Ok(Self(body.slice_ref(json)))
    }

    /// The text as it was sent.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// A digest of the JSON value: the same for texts that PostgreSQL's `jsonb` finds equal, and for others different but with a
    /// probability of 2^-64. Member order and white space do not matter, of a repeated member the last counts, and numbers are equal
    /// when their exact values are.
    pub fn digest(&self) -> i64 {
        value::digest_of(&self.0)
    }

    /// The text on one line: each line feed and carriage return becomes a blank. They occur between tokens only, for JSON strings
    /// cannot contain them.
    pub fn one_line(&self) -> Cow<'_, str> {
        one_line(&self.0)
    }
}

/// A JSON text on one line.
pub(super) fn one_line(json: &str) -> Cow<'_, str> {
    if json.contains(['\n', '\r']) {
        Cow::Owned(json.replace(['\n', '\r'], " "))
    } else {
        Cow::Borrowed(json)
    }
}

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Payload({} bytes)", self.0.len())
    }
}

/// Scans a text that is known to be one JSON value, once and without recursion.
fn check(json: &str) -> Result<(), ValidationError> {
    if !json.starts_with('{') {
        return Err(ValidationError::new(
            ValidationErrorKind::DictType,
            "Input should be a valid dictionary",
        ));
    }
    if json.len() > PAYLOAD_BYTES_MAX {
        return Err(ValidationError::new(
            ValidationErrorKind::PayloadTooLarge,
            format!("Payload should have at most {PAYLOAD_BYTES_MAX} bytes"),
        ));
    }
    let bytes = json.as_bytes();
    let mut depth = 0;
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' => at = check_string(bytes, at + 1)?,
            b'-' | b'0'..=b'9' => at = check_number(json, at)?,
            b'{' | b'[' => {
                depth += 1;
                if depth > PAYLOAD_DEPTH_MAX {
                    return Err(too_deep());
                }
                at += 1;
            }
            b'}' | b']' => {
                depth -= 1;
                at += 1;
            }
            _ => at += 1,
        }
    }
    Ok(())
}

/// Checks the string whose first character is at `start`; returns the index after its closing quote.
fn check_string(bytes: &[u8], start: usize) -> Result<usize, ValidationError> {
    let mut at = start;
    loop {
        match bytes[at] {
            b'"' => return Ok(at + 1),
            b'\\' => at += escape_bytes(&bytes[at..])?,
            _ => at += 1,
        }
    }
}

/// The bytes of the escape that `text` begins with; a surrogate pair is one escape.
fn escape_bytes(text: &[u8]) -> Result<usize, ValidationError> {
    match code_unit(text) {
        None => Ok(2),
        Some(0) => Err(unrepresentable("Strings should have no \\u0000")),
        Some(0xd800..=0xdbff) if matches!(code_unit(&text[6..]), Some(0xdc00..=0xdfff)) => Ok(12),
        Some(0xd800..=0xdfff) => Err(unrepresentable("Strings should have no unpaired surrogate")),
        Some(_) => Ok(6),
    }
}

/// The UTF-16 code unit, if `text` begins with `\u` and four hexadecimal digits.
fn code_unit(text: &[u8]) -> Option<u16> {
    let digits = text.strip_prefix(b"\\u")?.get(..4)?;
    u16::from_str_radix(str::from_utf8(digits).ok()?, 16).ok()
}

/// Checks the number that begins at `start`; returns where it ends.
fn check_number(json: &str, start: usize) -> Result<usize, ValidationError> {
    let bytes = &json.as_bytes()[start..];
    let chars = bytes
        .iter()
        .position(|byte| !matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E'))
        .unwrap_or(bytes.len());
    if chars > NUMBER_CHARS_MAX {
        return Err(unrepresentable(format!(
            "Numbers should have at most {NUMBER_CHARS_MAX} characters"
        )));
    }
    let literal = &json[start..start + chars];
    let (significand, exponent) = match literal.split_once(['e', 'E']) {
        None if chars <= PLAIN_NUMBER_CHARS => return Ok(start + chars),
        None => (literal, "0"),
        Some(parts) => parts,
    };
    let nonzero = significand.contains(|digit| matches!(digit, '1'..='9'));
    let double: f64 = literal.parse().expect("a JSON number is a Rust float");
    if nonzero && (double.is_infinite() || double == 0.0) {
        return Err(unrepresentable(
            "Numbers should be finite as an IEEE double, and not underflow to zero",
        ));
    }
    if !nonzero && !fits_zero(significand, exponent) {
        return Err(unrepresentable("The exponent of a number that is zero is out of range"));
    }
    Ok(start + chars)
}

/// Whether PostgreSQL takes a zero with this exponent.
fn fits_zero(significand: &str, exponent: &str) -> bool {
    let fraction = significand.split_once('.').map_or("", |(_, fraction)| fraction);
    let Ok(exponent) = exponent.parse::<i64>() else {
        return false;
    };
    let places = i64::try_from(fraction.len())
        .unwrap_or(i64::MAX)
        .saturating_sub(exponent);
    exponent <= ZERO_EXPONENT_MAX && places <= ZERO_PLACES_MAX
}

fn too_deep() -> ValidationError {
    ValidationError::new(
        ValidationErrorKind::PayloadTooDeep,
        format!("Payload should have at most {PAYLOAD_DEPTH_MAX} levels"),
    )
}

fn unrepresentable(msg: impl Into<Cow<'static, str>>) -> ValidationError {
    ValidationError::new(ValidationErrorKind::PayloadUnrepresentable, msg)
}

#[cfg(test)]
mod tests;
