//! What is wrong with a request, and where.

use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The most faults that one answer lists in full. A request with more is answered with the first ones.
pub const VALIDATION_ERRORS_MAX: usize = 100;

/// The `type` of a fault, as the answer 422 names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ValidationErrorKind {
    /// A required member is not there.
    Missing,
    /// Not an array where one is needed.
    ListType,
    /// A member that may stand once stands twice.
    RepeatedMember,
    /// Not a string where one is needed.
    StringType,
    /// An empty string.
    StringTooShort,
    /// A string of too many bytes.
    StringTooLong,
    /// A string with characters that it may not have.
    StringPatternMismatch,
    /// Not a date-time.
    DatetimeParsing,
    /// Not an object where one is needed.
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
    /// The store would not take the event, for a reason found only there.
    StoreRefused,
    /// A parameter that is not a whole number.
    IntParsing,
    /// A parameter below its smallest value.
    GreaterThanEqual,
    /// A parameter above its largest value.
    LessThanEqual,
    /// A parameter that is none of the words it may be.
    LiteralError,
    /// A cursor that is none.
    CursorInvalid,
    /// A parameter that may not be given here.
    NotAllowed,
}

impl fmt::Display for ValidationErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

/// One step on the way to a fault: a name, or a number.
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

/// A rule that a value breaks, without the place where the value stood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{msg}")]
pub struct Breach {
    /// Which rule.
    pub kind: ValidationErrorKind,
    /// The rule in words, for people. Never shows more of the value than where it is wrong.
    pub msg: Cow<'static, str>,
}

impl Breach {
    /// A breach of the rule `kind`, told as `msg`.
    pub fn new(kind: ValidationErrorKind, msg: impl Into<Cow<'static, str>>) -> Self {
        Self { kind, msg: msg.into() }
    }

    /// The same with its place.
    pub fn at(self, loc: Vec<Loc>) -> ValidationError {
        ValidationError {
            kind: self.kind,
            loc,
            msg: self.msg,
        }
    }
}

/// One entry of an answer 422: `{"type":"missing","loc":["body","topic"],"msg":"Field required"}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ValidationError {
    /// Which rule is broken.
    #[serde(rename = "type")]
    pub kind: ValidationErrorKind,
    /// Where, from the outside in.
    pub loc: Vec<Loc>,
    /// The rule in words, for people.
    pub msg: Cow<'static, str>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_is_written_in_the_form_that_fastapi_users_know() {
        let fault = Breach::new(ValidationErrorKind::Missing, "Field required").at(vec![
            Loc::name("body"),
            Loc::name("events"),
            Loc::Index(1),
            Loc::name("event_id"),
        ]);
        assert_eq!(
            serde_json::to_string(&fault).unwrap(),
            r#"{"type":"missing","loc":["body","events",1,"event_id"],"msg":"Field required"}"#
        );
    }
}
