//! What an error of Redis, or of its client, says about the server.

use ::redis::{RedisError, ServerError};

use crate::sink::contract::{SinkError, SinkErrorKind};

/// What an error that Redis answers with says about the server.
pub(super) fn kind_of(error: &ServerError) -> SinkErrorKind {
    match error.code() {
        "OOM" => SinkErrorKind::Full,
        "READONLY" | "NOREPLICAS" => SinkErrorKind::ReadOnly,
        "LOADING" | "BUSY" | "MASTERDOWN" | "CLUSTERDOWN" | "TRYAGAIN" | "MISCONF" | "UNKILLABLE" => {
            SinkErrorKind::Starting
        }
        "NOPERM" | "NOAUTH" | "WRONGPASS" | "WRONGTYPE" | "MOVED" | "ASK" | "CROSSSLOT" => SinkErrorKind::Forbidden,
        _ => SinkErrorKind::Unexpected,
    }
}

/// Whether Redis says that a string is too large.
pub(super) fn is_about_size(error: &ServerError) -> bool {
    let details = error.details().unwrap_or_default();
    ["maximum allowed size", "too large", "too big"]
        .iter()
        .any(|words| details.contains(words))
}

/// The error of Redis in one line.
pub(super) fn line(error: &ServerError) -> String {
    format!("{} {}", error.code(), error.details().unwrap_or_default())
        .trim()
        .to_owned()
}

/// An error that Redis answered with while `doing`.
pub(super) fn server_error(doing: &str, error: &ServerError) -> SinkError {
    SinkError::new(kind_of(error), format!("{doing}: Redis answers {}", line(error)))
}

/// An error of the client, or one that Redis answered with, while `doing`.
pub(super) fn sink_error(doing: &str, error: &RedisError) -> SinkError {
    match error.clone().into_server_errors().as_deref() {
        Some([(_, error), ..]) => server_error(doing, error),
        _ if error.kind() == ::redis::ErrorKind::AuthenticationFailed => SinkError::new(
            SinkErrorKind::Forbidden,
            format!("{doing}: Redis does not accept the user or the password"),
        ),
        _ => SinkError::new(SinkErrorKind::Unreachable, format!("{doing}: {}", without_url(error))),
    }
}

/// The text of an error of the client, without the parts that may quote a URL.
pub(super) fn without_url(error: &RedisError) -> String {
    match std::error::Error::source(error) {
        Some(source) => source.to_string(),
        None => error.category().to_owned(),
    }
}
