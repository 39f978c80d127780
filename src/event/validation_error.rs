//! Validation errors: which rule a request breaks, and where.

use std::borrow::Cow;
use std::fmt;

use serde::{Serialize, Serializer};
use utoipa::ToSchema;

/// The most validation errors in one answer. A request with more is answered with the first ones.
pub const VALIDATION_ERRORS_MAX: usize = 100;

/// The `type` of a validation error in an answer 422.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, ToSchema)]
#[schema(rename_all = "snake_case")]
pub enum ValidationErrorKind {
    /// A required member is missing.
    Missing,
    /// Not an array where one is required.
    ListType,
    /// A member is repeated.
    RepeatedMember,
    /// Not a string where one is required.
    StringType,
    /// An empty string.
    StringTooShort,
    /// A string of too many bytes.
    StringTooLong,
    /// A string with characters that are not allowed.
    StringPatternMismatch,
    /// Not a date-time.
    DatetimeParsing,
    /// Not an object where one is required.
    DictType,
    /// Not JSON.
    JsonInvalid,
    /// An array, or a request, of too many events.
    ListTooLong,
    /// A payload of too many bytes.
    PayloadTooLarge,
    /// A payload of too many levels.
    PayloadTooDeep,
    /// A payload with a string or a number that a store cannot hold.
    PayloadUnrepresentable,
    /// The store rejected the event, for a reason that validation does not find.
    StoreRefused,
    /// A parameter that is not a whole number.
    IntParsing,
    /// A parameter below its smallest value.
    GreaterThanEqual,
    /// A parameter above its largest value.
    LessThanEqual,
    /// A parameter that is none of the allowed words.
    LiteralError,
    /// Not a cursor.
    CursorInvalid,
    /// A parameter that is not allowed here.
    NotAllowed,
}

impl ValidationErrorKind {
    /// The name in the answer, such as `string_too_long`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::ListType => "list_type",
            Self::RepeatedMember => "repeated_member",
            Self::StringType => "string_type",
            Self::StringTooShort => "string_too_short",
            Self::StringTooLong => "string_too_long",
            Self::StringPatternMismatch => "string_pattern_mismatch",
            Self::DatetimeParsing => "datetime_parsing",
            Self::DictType => "dict_type",
            Self::JsonInvalid => "json_invalid",
            Self::ListTooLong => "list_too_long",
            Self::PayloadTooLarge => "payload_too_large",
            Self::PayloadTooDeep => "payload_too_deep",
            Self::PayloadUnrepresentable => "payload_unrepresentable",
            Self::StoreRefused => "store_refused",
            Self::IntParsing => "int_parsing",
            Self::GreaterThanEqual => "greater_than_equal",
            Self::LessThanEqual => "less_than_equal",
            Self::LiteralError => "literal_error",
            Self::CursorInvalid => "cursor_invalid",
            Self::NotAllowed => "not_allowed",
        }
    }
}

impl fmt::Display for ValidationErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl Serialize for ValidationErrorKind {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// One step of the location of an error: a name, or a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, ToSchema)]
#[serde(untagged)]
pub enum Loc {
    /// `body`, `line`, `query`, or the name of a member or parameter.
    Name(&'static str),
    /// An event of an array, counted from 0, or a line, counted from 1.
    Index(usize),
}

/// One entry of an answer 422: `{"type":"missing","loc":["body","topic"],"msg":"Field required"}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema, thiserror::Error)]
#[error("{msg}")]
pub struct ValidationError {
    /// Which rule is broken.
    #[serde(rename = "type")]
    pub kind: ValidationErrorKind,
    /// Where, from the outside in. Empty until the caller knows where the value stood.
    pub loc: Vec<Loc>,
    /// The rule in words, for people. Shows no more of the value than where it is wrong.
    pub msg: Cow<'static, str>,
}

impl ValidationError {
    /// An error of this kind, without a location.
    pub fn new(kind: ValidationErrorKind, msg: impl Into<Cow<'static, str>>) -> Self {
        Self {
            kind,
            loc: Vec::new(),
            msg: msg.into(),
        }
    }

    /// The same error at a location.
    pub fn at(self, loc: Vec<Loc>) -> Self {
        Self { loc, ..self }
    }

    /// The same error, with its location inside `outer`.
    pub fn within(mut self, outer: &[Loc]) -> Self {
        self.loc.splice(..0, outer.iter().cloned());
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn serializes_in_the_form_of_fastapi() {
        let error = ValidationError::new(ValidationErrorKind::Missing, "Field required").at(vec![
            Loc::Name("body"),
            Loc::Name("events"),
            Loc::Index(1),
            Loc::Name("event_id"),
        ]);
        assert_eq!(
            serde_json::to_string(&error).unwrap(),
            r#"{"type":"missing","loc":["body","events",1,"event_id"],"msg":"Field required"}"#
        );
    }
}
