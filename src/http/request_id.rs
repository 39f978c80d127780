//! The id of a request: the client's, if it is valid, else a new one.

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use uuid::Builder;

/// The header with the id, in requests and answers.
pub(super) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The maximum length of a client's id.
const CHARACTERS_MAX: usize = 128;

/// An id of 1–128 of `A–Z a–z 0–9 . _ : / + = -`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RequestId(String);

impl RequestId {
    /// The client's id, or a new one if it is missing or invalid.
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let is_valid = |id: &&str| {
            let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._:/+=-".contains(&byte);
            (1..=CHARACTERS_MAX).contains(&id.len()) && id.bytes().all(is_allowed)
        };
        let sent = headers
            .get(X_REQUEST_ID)
            .and_then(|value| value.to_str().ok())
            .filter(is_valid);
        Self(sent.map_or_else(
            || Builder::from_random_bytes(rand::random()).into_uuid().to_string(),
            ToOwned::to_owned,
        ))
    }

    /// The id.
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    /// The id as a header's value.
    pub(super) fn header(&self) -> HeaderValue {
        HeaderValue::from_str(&self.0).expect("an id holds visible ASCII only")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id_of(sent: &str) -> String {
        let headers = HeaderMap::from_iter([(X_REQUEST_ID, HeaderValue::from_str(sent).unwrap())]);
        RequestId::of(&headers).0
    }

    #[test]
    fn valid_id_is_kept_and_any_other_replaced() {
        let longest = "x".repeat(128);
        for valid in ["a", "A-Z.a_z:0/9+=", &longest] {
            assert_eq!(id_of(valid), valid);
        }
        for invalid in ["", "a b", "a\"b", "{}", &"x".repeat(129)] {
            assert_ne!(id_of(invalid), invalid);
            assert_eq!(id_of(invalid).len(), 36);
        }
    }
}
