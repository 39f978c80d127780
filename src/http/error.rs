//! Every answer that is not the one hoped for: one enum, one match, a reason for each arm.
//!
//! A handler answers with a [`ApiError`]; the outermost layer (`observe.rs`) has it write the problem document, because it alone
//! knows the request's id, and because 404 and 405 of the router come the same way.

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::request_id::RequestId;
use crate::event::ValidationError;
use crate::ingest::SubmitError;
use crate::store::{ErrorClass, StoreError};

/// How long a client should wait before it tries again, in seconds: long enough for a queue to drain, short enough for a
/// store that restarts.
const RETRY_AFTER_SECONDS: u32 = 1;

/// Why a request is not answered as it hoped.
#[derive(Debug, Clone)]
pub enum ApiError {
    /// No such path.
    NotFound,
    /// The path is there, with other methods; the router adds `Allow`.
    MethodNotAllowed,
    /// A media type that `/publish` does not take.
    UnsupportedMediaType,
    /// A content coding other than gzip and zstd.
    UnsupportedCoding,
    /// The body is not what its `Content-Encoding` says.
    Undecodable,
    /// The body broke off.
    Incomplete,
    /// The body did not arrive in time.
    BodyTimeout,
    /// The body is over the limit, in bytes.
    TooLarge(usize),
    /// What was sent breaks rules: the first faults are listed.
    Invalid(Vec<ValidationError>),
    /// Nothing was stored, and trying again later may succeed; the sentence says why.
    Unavailable(&'static str),
    /// A commit was tried and its outcome is not known.
    OutcomeUnknown,
    /// A bug, or a store that answers nonsense.
    Internal,
}

impl ApiError {
    /// The store was not opened yet.
    pub const STARTING: Self = Self::Unavailable("The service is starting: the store is not open yet. Try again.");
    /// The store does not answer a read.
    pub const UNREACHABLE: Self = Self::Unavailable("The store cannot be reached. Try again.");
    /// The store was given as long as a query may take.
    pub const TOO_SLOW: Self =
        Self::Unavailable("The query took too long. Name a topic, or walk with after= through the log page by page.");
    /// `/_flush` waited as long as a request may take.
    pub const NOT_FLUSHED: Self = Self::Unavailable("Not all that was accepted could be committed in time. Try again.");
    /// There is no place for one more follower.
    pub const TOO_MANY_SUBSCRIBERS: Self = Self::Unavailable(
        "There are as many subscribers as there may be. Try again later, or walk with GET /events?after=.",
    );

    /// The status of the answer.
    pub fn status(&self) -> StatusCode {
        match self {
            ApiError::NotFound => StatusCode::NOT_FOUND,
            ApiError::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            ApiError::UnsupportedMediaType | ApiError::UnsupportedCoding => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            ApiError::Undecodable | ApiError::Incomplete => StatusCode::BAD_REQUEST,
            ApiError::BodyTimeout => StatusCode::REQUEST_TIMEOUT,
            ApiError::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            ApiError::Invalid(_) => StatusCode::UNPROCESSABLE_ENTITY,
            ApiError::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
            ApiError::OutcomeUnknown => StatusCode::GATEWAY_TIMEOUT,
            ApiError::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    fn detail(&self) -> String {
        match self {
            ApiError::NotFound => "There is nothing at this path.".to_owned(),
            ApiError::MethodNotAllowed => "This path does not take this method: see the Allow header.".to_owned(),
            ApiError::UnsupportedMediaType => "Send application/json or application/x-ndjson.".to_owned(),
            ApiError::UnsupportedCoding => "Content-Encoding may be gzip or zstd.".to_owned(),
            ApiError::Undecodable => "The body is not what its Content-Encoding says.".to_owned(),
            ApiError::Incomplete => "The body broke off.".to_owned(),
            ApiError::BodyTimeout => "The body did not arrive in time.".to_owned(),
            ApiError::TooLarge(max) => format!("The body is larger than {max} bytes, counted after decompression."),
            ApiError::Invalid(_) => "The request breaks rules.".to_owned(),
            ApiError::Unavailable(reason) => (*reason).to_owned(),
            ApiError::OutcomeUnknown => {
                "The commit was tried, and its outcome is not known: send the request again, nothing is stored twice."
                    .to_owned()
            }
            ApiError::Internal => "The service failed. Send the request again: nothing is stored twice.".to_owned(),
        }
    }

    /// The final response. `bare` carries the headers that the router has set (`Allow`) or the handler (`Connection`).
    pub(super) fn response(&self, bare: Response, id: &RequestId) -> Response {
        let status = self.status();
        let (media_type, body) = match self {
            ApiError::Invalid(faults) => ("application/json", json!({ "detail": faults })),
            _ => ("application/problem+json", self.problem(status, id)),
        };
        let (mut parts, _) = bare.into_parts();
        parts.status = status;
        parts.headers.remove(header::CONTENT_LENGTH);
        parts
            .headers
            .insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
        if status == StatusCode::SERVICE_UNAVAILABLE {
            parts
                .headers
                .insert(header::RETRY_AFTER, HeaderValue::from(RETRY_AFTER_SECONDS));
        }
        if matches!(self, ApiError::UnsupportedCoding) {
            parts
                .headers
                .insert(header::ACCEPT_ENCODING, HeaderValue::from_static("gzip, zstd"));
        }
        Response::from_parts(parts, Body::from(body.to_string()))
    }

    /// The body of the answer, for every failure but [`ApiError::Invalid`].
    pub fn problem(&self, status: StatusCode, id: &RequestId) -> serde_json::Value {
        let mut problem = json!({
            "type": "about:blank",
            "title": status.canonical_reason().unwrap_or_default(),
            "status": status.as_u16(),
            "detail": self.detail(),
            "request_id": id.as_str(),
        });
        if matches!(self, ApiError::OutcomeUnknown) {
            problem["outcome"] = json!("unknown");
        }
        problem
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = self.status().into_response();
        response.extensions_mut().insert(self);
        response
    }
}

impl From<SubmitError> for ApiError {
    fn from(error: SubmitError) -> Self {
        match error {
            SubmitError::Full => {
                ApiError::Unavailable("The queue is full: nothing was stored. Try again a little later.")
            }
            SubmitError::Stopping => ApiError::Unavailable("The service is stopping: nothing was stored. Try again."),
            SubmitError::TooLate => {
                ApiError::Unavailable("The store did not answer in time: nothing was stored. Try again.")
            }
            SubmitError::Unknown => ApiError::OutcomeUnknown,
            SubmitError::Refused(_) => ApiError::Internal,
        }
    }
}

/// A read that failed. The error itself goes to the log, never to the client.
impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        tracing::warn!(error.class = error.class.as_str(), "a read failed: {}", error.line());
        match error.class {
            ErrorClass::Contention => ApiError::TOO_SLOW,
            ErrorClass::Data => ApiError::Internal,
            _ => ApiError::UNREACHABLE,
        }
    }
}
