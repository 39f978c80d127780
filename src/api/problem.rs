//! Error answers.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::event::{Cursor, Timestamp, ValidationError};

/// An error (RFC 9457).
// This service sends every member. Proxies in front of it may send problems with fewer: RFC 9457 requires none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Problem<'a> {
    /// `about:blank` where the status code identifies the kind of problem, else its name: `cursor_unknown`, `event_expired`.
    #[serde(default)]
    #[schema(required = true, format = "uri-reference", example = "about:blank")]
    pub r#type: Cow<'a, str>,
    /// The name of the status.
    #[serde(default)]
    #[schema(required = true)]
    pub title: Cow<'a, str>,
    /// The status code.
    #[serde(default)]
    #[schema(required = true, minimum = 400, maximum = 599)]
    pub status: u16,
    /// What happened and what to do, for people.
    pub detail: Cow<'a, str>,
    /// The id of the request, as in the header `x-request-id`.
    #[serde(default)]
    #[schema(required = true, min_length = 1, max_length = 128)]
    pub request_id: Cow<'a, str>,
    /// With `event_expired`: the cursor that the event had.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub cursor: Option<Cursor>,
    /// With `event_expired`: when the event was received.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub received_at: Option<Timestamp>,
    /// With 504: `unknown`. Send the request again; nothing is stored twice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub outcome: Option<ProblemOutcome>,
}

/// What is known of a request whose commit was attempted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ProblemOutcome {
    /// Its events may be stored or not.
    Unknown,
}

/// The 422 response: the request is invalid.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ValidationErrors<'a> {
    /// The validation errors, at most 100.
    #[schema(min_items = 1, value_type = Vec<ValidationError>)]
    pub detail: Cow<'a, [ValidationError]>,
}
