//! Every error answer: one enum, one `match`, a reason for each arm.
//!
//! A handler returns an [`ApiError`]. The outermost layer (`observe.rs`) writes the answer: it knows the id of the request, and the
//! router's 404 and 405 reach it in the same way.

use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::request_id::RequestId;
use crate::api::events::StreamNotice;
use crate::api::problem::{Problem, ProblemOutcome, ValidationErrors};
use crate::event::ValidationError;
use crate::ingest::SubmitError;
use crate::principals::{Exceeded, Unit};
use crate::store::{ErrorClass, LogPosition, ScanError, StoreError};

/// How long a client should wait before it tries again, in seconds: long enough for a queue to drain, short enough for a
/// store that restarts.
const RETRY_AFTER_SECONDS: u32 = 1;

/// Why a request fails.
#[derive(Debug, Clone)]
pub(super) enum ApiError {
    /// A request of HTTP/1.1 without a `Host`, or with two.
    HostMissing,
    /// No such path.
    NotFound,
    /// The path exists, with other methods; the router adds `Allow`.
    MethodNotAllowed,
    /// A media type that `/publish` does not accept.
    UnsupportedMediaType {
        /// Whether the request names no media type.
        is_missing: bool,
    },
    /// A content coding other than gzip and zstd.
    UnsupportedContentCoding,
    /// The body does not decompress.
    BodyNotDecodable,
    /// The connection broke before the end of the body.
    BodyIncomplete,
    /// The body did not arrive in time.
    BodyTimeout,
    /// The body exceeds this limit, in bytes.
    BodyTooLarge(usize),
    /// More new topics than may come now; after so many seconds there may be enough.
    TooManyTopics {
        /// At least 1.
        seconds: u32,
    },
    /// More new topics than may ever come in one request.
    TooManyTopicsAtOnce(u32),
    /// The request presents no key where one is needed, or one that is unknown, wrong, revoked or expired.
    Unauthenticated,
    /// The principal may not do this, for this reason.
    Forbidden(&'static str),
    /// The key may not publish so much now, or never so much at once.
    TooFast(Exceeded),
    /// There are as many keys as there may be.
    TooManyKeys,
    /// There is no such key.
    KeyUnknown,
    /// The request is invalid; these are the first validation errors.
    Invalid(Vec<ValidationError>),
    /// The request failed for this reason, nothing was stored, and a later attempt may succeed.
    Unavailable(&'static str),
    /// The log has not given out a cursor as high as that of the request.
    CursorUnknown,
    /// No event with this identity was ever stored, or its identity is forgotten.
    EventUnknown,
    /// The event with this identity has expired; this was its place.
    EventExpired(LogPosition),
    /// A commit was attempted and its outcome is unknown.
    OutcomeUnknown,
    /// A bug, or a store with inconsistent data.
    Internal,
}

impl ApiError {
    /// The store is not open yet.
    pub(super) const STARTING: Self =
        Self::Unavailable("The service is starting: the store is not open yet. Try again.");
    /// The service still answers, but stops soon.
    pub(super) const STOPPING: Self = Self::Unavailable("The service is stopping.");
    /// The key is not known here, and the store cannot be asked.
    pub(super) const KEYS_UNAVAILABLE: Self =
        Self::Unavailable("The store, which may know this key, cannot be reached: nothing was done. Try again.");
    /// Others change the same key.
    pub(super) const KEY_CONTENDED: Self =
        Self::Unavailable("Others are changing the same key: nothing was changed. Try again.");
    /// The store takes no writes, as the last probe has found.
    pub(super) const READ_ONLY: Self =
        Self::Unavailable("The store is read-only: nothing was stored. Try again later.");
    /// The store cannot be read.
    pub(super) const UNREACHABLE: Self = Self::Unavailable("The store cannot be reached. Try again.");
    /// The query exceeded its time limit.
    pub(super) const QUERY_TIMEOUT: Self =
        Self::Unavailable("The query took too long. Filter by topic, or read page by page with after=.");
    /// `/_flush` exceeded the request deadline.
    pub(super) const FLUSH_TIMEOUT: Self =
        Self::Unavailable("Not all accepted events could be committed and published in time. Try again.");
    /// The limit of subscribers is reached.
    pub(super) const TOO_MANY_SUBSCRIBERS: Self = Self::Unavailable(
        "The limit of subscribers is reached. Try again later, or read page by page with GET /events?after=.",
    );
    /// The budget of all answers together is spent.
    pub(super) const NO_ROOM: Self = Self::Unavailable(
        "The memory for answers is used up: other clients have not read theirs. Try again later, or ask for fewer events.",
    );
    /// The byte budget of all requests together is spent.
    pub(super) const OUT_OF_MEMORY: Self =
        Self::Unavailable("The memory for request bodies is used up: nothing was stored. Try again later.");

    /// The status of the answer.
    pub(super) fn status(&self) -> StatusCode {
        match self {
            ApiError::NotFound | ApiError::EventUnknown | ApiError::KeyUnknown => StatusCode::NOT_FOUND,
            ApiError::Unauthenticated => StatusCode::UNAUTHORIZED,
            ApiError::Forbidden(_) => StatusCode::FORBIDDEN,
            ApiError::TooFast(Exceeded { seconds: None, .. }) => StatusCode::PAYLOAD_TOO_LARGE,
            ApiError::TooFast(_) => StatusCode::TOO_MANY_REQUESTS,
            ApiError::TooManyKeys => StatusCode::CONFLICT,
            ApiError::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            ApiError::UnsupportedMediaType { .. } | ApiError::UnsupportedContentCoding => {
                StatusCode::UNSUPPORTED_MEDIA_TYPE
            }
            ApiError::HostMissing | ApiError::BodyNotDecodable | ApiError::BodyIncomplete => StatusCode::BAD_REQUEST,
            ApiError::BodyTimeout => StatusCode::REQUEST_TIMEOUT,
            ApiError::BodyTooLarge(_) | ApiError::TooManyTopicsAtOnce(_) => StatusCode::PAYLOAD_TOO_LARGE,
            ApiError::TooManyTopics { .. } => StatusCode::TOO_MANY_REQUESTS,
            ApiError::Invalid(_) => StatusCode::UNPROCESSABLE_ENTITY,
            ApiError::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
            ApiError::CursorUnknown | ApiError::EventExpired(_) => StatusCode::GONE,
            ApiError::OutcomeUnknown => StatusCode::GATEWAY_TIMEOUT,
            ApiError::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    fn detail(&self) -> String {
        let detail = match self {
            ApiError::HostMissing => "A request of HTTP/1.1 must have the header Host, once.",
            ApiError::NotFound => "There is no resource at this path.",
            ApiError::MethodNotAllowed => {
                "This path does not support this method. The header Allow lists the methods that it supports."
            }
            ApiError::UnsupportedMediaType { is_missing: true } => {
                "The header Content-Type is missing: it must be application/json or application/x-ndjson."
            }
            ApiError::UnsupportedMediaType { is_missing: false } => {
                "The Content-Type must be application/json or application/x-ndjson."
            }
            ApiError::UnsupportedContentCoding => "The Content-Encoding must be gzip or zstd.",
            ApiError::BodyNotDecodable => "The body could not be decompressed as its Content-Encoding says.",
            ApiError::BodyIncomplete => "The connection broke before the end of the body.",
            ApiError::BodyTimeout => "The body did not arrive in time.",
            ApiError::BodyTooLarge(max) => {
                return format!("The body is larger than {max} bytes, counted after decompression.");
            }
            ApiError::TooManyTopics { .. } => {
                "Too many new topics: nothing was stored. Send the request again later; events of topics that exist are not affected."
            }
            ApiError::TooManyTopicsAtOnce(max) => {
                return format!(
                    "The request has more new topics than the {max} that may come in a minute: nothing was stored. Send fewer at a time."
                );
            }
            ApiError::Unauthenticated => {
                "This needs a key: send it as Authorization: Bearer KEY, or as the password of HTTP Basic. A key that is unknown, wrong, revoked or expired is none."
            }
            ApiError::Forbidden(reason) => reason,
            ApiError::TooFast(exceeded) => return too_fast(exceeded),
            ApiError::TooManyKeys => "There are as many keys as there may be: revoke some.",
            ApiError::KeyUnknown => "There is no such key.",
            ApiError::Invalid(_) => "The request is invalid.",
            ApiError::Unavailable(reason) => reason,
            ApiError::CursorUnknown => StreamNotice::CURSOR_UNKNOWN_DETAIL,
            ApiError::EventUnknown => "There is no event with this topic and id.",
            ApiError::EventExpired(_) => {
                "The event has expired. Its identity is kept: publishing it again is a duplicate."
            }
            ApiError::OutcomeUnknown => {
                "A commit was attempted and its outcome is unknown. Send the request again: nothing is stored twice."
            }
            ApiError::Internal => "An internal error occurred. It is safe to send the request again.",
        };
        detail.to_owned()
    }

    /// The final response. `bare` carries the headers that the router has set (`Allow`) or the handler (`Connection`).
    pub(super) fn response(&self, bare: Response, id: &RequestId) -> Response {
        let status = self.status();
        let (media_type, body) = match self {
            ApiError::Invalid(errors) => {
                let detail = errors.into();
                ("application/json", serde_json::to_vec(&ValidationErrors { detail }))
            }
            _ => ("application/problem+json", serde_json::to_vec(&self.problem(id))),
        };
        let body = body.expect("texts and numbers are always JSON");
        let (mut parts, _) = bare.into_parts();
        parts.status = status;
        parts.headers.remove(header::CONTENT_LENGTH);
        parts
            .headers
            .insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
        if matches!(self, ApiError::Unauthenticated) {
            let bearer = HeaderValue::from_static("Bearer");
            parts.headers.insert(header::WWW_AUTHENTICATE, bearer);
        }
        if let ApiError::TooFast(exceeded) = self {
            parts.headers.extend(rate_limit(exceeded));
        }
        let retry_after = match self {
            ApiError::TooFast(Exceeded {
                seconds: Some(seconds), ..
            }) => Some(whole(*seconds).max(1)),
            ApiError::TooManyTopics { seconds } => Some(*seconds),
            ApiError::Unavailable(_) => Some(RETRY_AFTER_SECONDS),
            _ => None,
        };
        if let Some(seconds) = retry_after {
            parts.headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if matches!(self, ApiError::UnsupportedContentCoding) {
            parts
                .headers
                .insert(header::ACCEPT_ENCODING, HeaderValue::from_static("gzip, zstd"));
        }
        Response::from_parts(parts, Body::from(body))
    }

    /// The body of the answer, for every error but [`ApiError::Invalid`].
    pub(super) fn problem<'a>(&self, id: &'a RequestId) -> Problem<'a> {
        let status = self.status();
        let expired = match self {
            ApiError::EventExpired(position) => Some(position),
            _ => None,
        };
        Problem {
            r#type: match self {
                ApiError::CursorUnknown => StreamNotice::CURSOR_UNKNOWN,
                ApiError::EventExpired(_) => "event_expired",
                _ => "about:blank",
            }
            .into(),
            title: status.canonical_reason().unwrap_or_default().into(),
            status: status.as_u16(),
            detail: self.detail().into(),
            request_id: id.as_str().into(),
            cursor: expired.map(|position| position.cursor),
            received_at: expired.map(|position| position.received_at),
            outcome: matches!(self, ApiError::OutcomeUnknown).then_some(ProblemOutcome::Unknown),
        }
    }
}

/// A number of a limit, rounded up.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a number beyond the range of the type becomes its end"
)]
fn whole(number: f64) -> u32 {
    number.ceil() as u32
}

fn too_fast(exceeded: &Exceeded) -> String {
    let unit = match exceeded.unit {
        Unit::Events => "events",
        Unit::Bytes => "bytes",
    };
    let (rate, burst) = (exceeded.rate, exceeded.burst());
    match exceeded.seconds {
        Some(_) => format!("This key may publish {rate} {unit} in a second: nothing was stored. Try again later."),
        None => format!("This key may publish {burst} {unit} at once: nothing was stored. Send less at a time."),
    }
}

/// The limit and what is left of it (draft-ietf-httpapi-ratelimit-headers).
fn rate_limit(exceeded: &Exceeded) -> [(HeaderName, HeaderValue); 2] {
    let (name, unit) = match exceeded.unit {
        Unit::Events => ("events", ""),
        Unit::Bytes => ("bytes", ";qu=\"content-bytes\""),
    };
    let policy = format!("\"{name}\";q={};w=10{unit}", exceeded.burst());
    let seconds = exceeded.seconds.map(|seconds| format!(";t={}", whole(seconds).max(1)));
    let left = format!("\"{name}\";r={}{}", exceeded.left.floor(), seconds.unwrap_or_default());
    let value = |text: String| HeaderValue::from_str(&text).expect("numbers and names are plain");
    [
        (HeaderName::from_static("ratelimit-policy"), value(policy)),
        (HeaderName::from_static("ratelimit"), value(left)),
    ]
}

impl From<Exceeded> for ApiError {
    fn from(exceeded: Exceeded) -> Self {
        Self::TooFast(exceeded)
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
            SubmitError::Full => ApiError::Unavailable("The queue is full: nothing was stored. Try again later."),
            SubmitError::Stopping => ApiError::Unavailable("The service is stopping: nothing was stored. Try again."),
            SubmitError::TooLate => {
                ApiError::Unavailable("The store did not answer in time: nothing was stored. Try again.")
            }
            SubmitError::ReadOnly => ApiError::READ_ONLY,
            SubmitError::Unknown => ApiError::OutcomeUnknown,
            // The handler answers it with the validation errors of these events.
            SubmitError::Refused(_) => ApiError::Internal,
        }
    }
}

impl From<ScanError> for ApiError {
    fn from(error: ScanError) -> Self {
        match error {
            ScanError::UnknownCursor => ApiError::CursorUnknown,
            ScanError::Store(error) => error.into(),
        }
    }
}

/// A failed read. The error itself goes to the log, never to the client.
impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        let api_error = match error.class {
            ErrorClass::Contention => ApiError::QUERY_TIMEOUT,
            ErrorClass::Data => ApiError::Internal,
            _ => ApiError::UNREACHABLE,
        };
        tracing::warn!(
            error.class = error.class.as_str(),
            "failed to read from the store, answering {}: {}",
            api_error.status().as_u16(),
            error.line()
        );
        api_error
    }
}
