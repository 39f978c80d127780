//! The request's id: the client's, if it is fit to be repeated, else one of ours.

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use uuid::Builder;

/// The header that carries it, both ways.
pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The most characters of a client's id.
const CHARACTERS_MAX: usize = 128;

/// An id of 1–128 of `A–Z a–z 0–9 . _ : / + = -`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestId(String);

impl RequestId {
    /// The client's id, or a new one where there is none or it is not fit.
    #[must_use]
    pub fn of(headers: &HeaderMap) -> Self {
        let fit = |id: &&str| {
            let is_fit = |byte: u8| byte.is_ascii_alphanumeric() || b"._:/+=-".contains(&byte);
            (1..=CHARACTERS_MAX).contains(&id.len()) && id.bytes().all(is_fit)
        };
        let sent = headers
            .get(X_REQUEST_ID)
            .and_then(|value| value.to_str().ok())
            .filter(fit);
        Self(sent.map_or_else(
            || Builder::from_random_bytes(rand::random()).into_uuid().to_string(),
            ToOwned::to_owned,
        ))
    }

    /// The id.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The id as a header's value.
    #[must_use]
    pub fn header(&self) -> HeaderValue {
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
    fn a_fit_id_is_kept_and_any_other_is_replaced() {
        let longest = "x".repeat(128);
        for fit in ["a", "A-Z.a_z:0/9+=", &longest] {
            assert_eq!(id_of(fit), fit);
        }
        for unfit in ["", "a b", "a\"b", "{}", &"x".repeat(129)] {
            assert_ne!(id_of(unfit), unfit);
            assert_eq!(id_of(unfit).len(), 36);
        }
    }
}
