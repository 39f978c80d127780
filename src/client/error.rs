//! Why a call failed, and what that says about a retry.

use std::time::Duration;

use super::explain::{NO_ANSWER, one_line, root_cause};
use crate::event::ValidationError;

/// What is known of a failed request's effect on the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Nothing of the request was stored.
    Nothing,
    /// Its events may be stored: the request was sent at least in part, and no answer came.
    Unknown,
}

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The client could not be created, for example because the system's certificates cannot be read.
    #[error("failed to set up the HTTP client: {0}")]
    Setup(String),
    /// The service cannot be reached or cannot serve now. The same request may succeed later, and is always safe to send again.
    #[error("{reason}")]
    Retryable {
        /// The cause in one line, without the URL: the caller adds it.
        reason: String,
        /// How long the client should wait, from `Retry-After`.
        retry_after: Option<Duration>,
        /// What may have been stored.
        effect: Effect,
    },
    /// The service rejected the request; sending it again would not help.
    #[error("rejected with status {status}: {detail}")]
    Refused {
        /// The status of the answer.
        status: u16,
        /// The explanation of the answer, in one line.
        detail: String,
        /// The validation errors of a 422.
        errors: Vec<ValidationError>,
    },
    /// The answer does not come from eventsieve.
    #[error("unexpected answer with status {status}: check that the URL is that of an eventsieve service")]
    Foreign {
        /// The status of the answer.
        status: u16,
    },
}

impl ClientError {
    pub(super) fn no_answer() -> Self {
        Self::Retryable {
            reason: NO_ANSWER.to_owned(),
            retry_after: None,
            effect: Effect::Unknown,
        }
    }

    pub(super) fn transport(error: reqwest::Error) -> Self {
        // Nothing was sent on a connection that was never opened. After that, the service may have received everything.
        let effect = if error.is_connect() {
            Effect::Nothing
        } else {
            Effect::Unknown
        };
        Self::Retryable {
            reason: one_line(&root_cause(error)),
            retry_after: None,
            effect,
        }
    }
}
