//! Who may call a route. A handler asks for a principal that has the scope, and gets no further without one.

use std::marker::PhantomData;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::error::ApiError;
use super::state::AppState;
use crate::access::Scope;
use crate::event::{Topic, TopicGlobs};
use crate::principals::{Principal, Refusal};

/// What a route needs.
pub(super) trait Needed: Send {
    /// The scope.
    const SCOPE: Scope;
    /// Whether it must be for all topics: the answer is of the process, and does not tell topics apart.
    const ALL_TOPICS: bool = false;
}

/// Publishing.
pub(super) struct Publish;
/// Reading.
pub(super) struct Read;
/// Reading what is of all topics together.
pub(super) struct ReadAll;
/// Reading the metrics.
pub(super) struct Metrics;
/// Making and revoking keys.
pub(super) struct Manage;

impl Needed for Publish {
    const SCOPE: Scope = Scope::Publish;
}

impl Needed for Read {
    const SCOPE: Scope = Scope::Read;
}

impl Needed for ReadAll {
    const SCOPE: Scope = Scope::Read;
    const ALL_TOPICS: bool = true;
}

impl Needed for Metrics {
    const SCOPE: Scope = Scope::Metrics;
    const ALL_TOPICS: bool = true;
}

impl Needed for Manage {
    const SCOPE: Scope = Scope::Manage;
}

/// A principal that may do what is needed.
pub(super) struct May<N> {
    pub(super) who: Principal,
    needed: PhantomData<N>,
}

impl<N: Needed> FromRequestParts<AppState> for May<N> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, ApiError> {
        let who = identify(&parts.headers, state)?;
        if !who.may(N::SCOPE) {
            return Err(match who.is_anonymous() {
                true => ApiError::Unauthenticated,
                false => ApiError::Forbidden(SCOPE),
            });
        }
        if N::ALL_TOPICS && !who.topics().is_all() {
            return Err(ApiError::Forbidden(ALL_TOPICS));
        }
        Ok(Self {
            who,
            needed: PhantomData,
        })
    }
}

/// A route that everybody may call: what it answers depends on who asks.
pub(super) struct Asking(pub(super) Option<Principal>);

impl FromRequestParts<AppState> for Asking {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, Self::Rejection> {
        Ok(Self(identify(&parts.headers, state).ok()))
    }
}

const SCOPE: &str = "This key does not have the scope that is needed here.";
const ALL_TOPICS: &str = "This needs a key for all topics.";

fn identify(headers: &HeaderMap, state: &AppState) -> Result<Principal, ApiError> {
    let credential = credential(headers)?;
    state
        .principals
        .identify(credential.as_deref())
        .map_err(|refusal| match refusal {
            Refusal::Unknown => ApiError::Unauthenticated,
            Refusal::Unavailable => ApiError::KEYS_UNAVAILABLE,
        })
}

/// The key of a request: a bearer token, or the password of HTTP Basic. `None`: it presents nothing.
fn credential(headers: &HeaderMap) -> Result<Option<String>, ApiError> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let read = || {
        let (scheme, rest) = value.to_str().ok()?.split_once(' ')?;
        let rest = rest.trim();
        if scheme.eq_ignore_ascii_case("bearer") {
            return Some(rest.to_owned());
        }
        let pair = scheme
            .eq_ignore_ascii_case("basic")
            .then(|| STANDARD.decode(rest).ok())??;
        let (_, password) = str::from_utf8(&pair).ok()?.split_once(':')?;
        Some(password.to_owned())
    };
    match (read(), values.next()) {
        (Some(credential), None) => Ok(Some(credential)),
        _ => Err(ApiError::Unauthenticated),
    }
}

/// What a principal may read of what it asks for: a topic that does not exist for it is replaced by one that has no events, so that
/// the answer, and the time that it takes, is that of an unknown topic.
pub(super) fn visible(topic: Option<Topic>, who: &Principal) -> (Option<Topic>, TopicGlobs) {
    let topics = who.topics();
    match topic {
        None => (None, topics.clone()),
        Some(topic) if topics.matches(&topic) => (Some(topic), TopicGlobs::All),
        // No event can have it: a topic has no control characters.
        Some(_) => (Some(Topic::from_stored("\u{1}".to_owned())), TopicGlobs::All),
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn of(values: &[&str]) -> Result<Option<String>, ()> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(header::AUTHORIZATION, HeaderValue::from_str(value).unwrap());
        }
        credential(&headers).map_err(drop)
    }

    #[test]
    fn key_is_a_bearer_token_or_a_password() {
        assert_eq!(of(&[]), Ok(None));
        for value in ["Bearer key", "bearer  key", "Basic YW55OmtleQ==", "BASIC OmtleQ=="] {
            assert_eq!(of(&[value]), Ok(Some("key".to_owned())), "{value}");
        }
        for values in [
            &["key"][..],
            &["Digest key"],
            &["Basic key"],
            &["Basic a2V5"],
            &["Bearer key", "Bearer key"],
            &[""],
        ] {
            assert_eq!(of(values), Err(()), "{values:?}");
        }
    }
}
