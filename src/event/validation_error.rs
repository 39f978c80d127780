//! Validation errors: which rule a request breaks, and where.

use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The most validation errors in one answer. A request with more is answered with the first ones.
pub const VALIDATION_ERRORS_MAX: usize = 100;

/// The `type` of a validation error in a 422 response.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
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
    /// An object that is an event and an envelope at once.
    AmbiguousBody,
    /// An event of a topic to which the key may not publish.
    TopicForbidden,
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
    /// A parameter that does not exist.
    ExtraForbidden,
}

impl fmt::Display for ValidationErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

/// One step of the location of an error: a name, or a number.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum Loc {
    /// `body`, `line`, `query`, or the name of a member or parameter.
    Name(Cow<'static, str>),
    /// An event of an array, counted from 0, or a line, counted from 1.
    Index(usize),
}

impl Loc {
    /// The step with this name.
    pub const fn name(name: &'static str) -> Self {
        Self::Name(Cow::Borrowed(name))
    }
}

impl fmt::Display for Loc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.pad(name),
            Self::Index(index) => fmt::Display::fmt(index, f),
        }
    }
}

/// One entry of a 422 response: `{"type":"missing","loc":["body","topic"],"msg":"Field required"}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema, thiserror::Error)]
#[error("{msg}")]
pub struct ValidationError {
    /// Which rule is broken.
    #[serde(rename = "type")]
    pub kind: ValidationErrorKind,
    /// The location of the error: the path of member names and indexes, from the outside in.
    // Empty until the caller knows where the value stood.
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
            Loc::name("body"),
            Loc::name("events"),
            Loc::Index(1),
            Loc::name("event_id"),
        ]);
        assert_eq!(
            serde_json::to_string(&error).unwrap(),
            r#"{"type":"missing","loc":["body","events",1,"event_id"],"msg":"Field required"}"#
        );
    }
}
