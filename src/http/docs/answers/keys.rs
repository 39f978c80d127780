//! The answers of `/keys`.

use utoipa::IntoResponses;
use utoipa::openapi::response::Response;

use super::{Answers, errors, invalid, invalid_key, of, with};
use crate::api::keys::{KeyInfo, KeyWithSecret, Keys, Limits};
use crate::event::ValidationErrorKind;
use crate::http::docs::examples;
use crate::http::error::ApiError;

fn info() -> KeyInfo {
    KeyInfo {
        id: "0a1b2c3d4e5f".to_owned(),
        name: "shop".to_owned(),
        scopes: vec!["publish".to_owned()],
        topics: Some(vec!["order.*".to_owned()]),
        limits: Limits {
            events_per_second: Some(100),
            bytes_per_second: None,
        },
        created_at: examples::received_at(),
        expires_at: None,
        revoked_at: None,
        last_used_at: None,
        previous_until: None,
    }
}

fn with_secret() -> KeyWithSecret {
    KeyWithSecret {
        key: "esk_0a1b2c3d4e5f_SECRET".to_owned(),
        info: info(),
    }
}

/// What every route of keys may answer.
fn reasons() -> Vec<(&'static str, ApiError)> {
    vec![
        ("internal", ApiError::Internal),
        ("starting", ApiError::STARTING),
        ("unreachable", ApiError::UNREACHABLE),
    ]
}

/// The same of those that have a body.
fn with_body() -> Vec<(&'static str, ApiError)> {
    let mut reasons = reasons();
    reasons.extend([
        invalid_key(),
        ("timeout", ApiError::BodyTimeout),
        ("too_large", ApiError::BodyTooLarge(64 << 10)),
    ]);
    reasons
}

/// The same of those that change a key.
fn changing(mut reasons: Vec<(&'static str, ApiError)>) -> Answers {
    reasons.extend([
        ("key_unknown", ApiError::KeyUnknown),
        ("contended", ApiError::KEY_CONTENDED),
    ]);
    errors(reasons)
}

/// The answers of `GET /keys`.
pub(in crate::http) struct KeysAnswers;

impl IntoResponses for KeysAnswers {
    fn responses() -> Answers {
        let page = Keys {
            keys: vec![info()],
            next: None,
        };
        let loc = ["query", "after"];
        let message = "Input should be the id of a key";
        let mut reasons = reasons();
        reasons.push((
            "invalid",
            invalid(ValidationErrorKind::StringPatternMismatch, message, &loc),
        ));
        with(errors(reasons), [("200", of("The keys.", [("last", page)]))])
    }
}

/// The answers of `POST /keys`.
pub(in crate::http) struct NewKeyAnswers;

impl IntoResponses for NewKeyAnswers {
    fn responses() -> Answers {
        let mut reasons = with_body();
        reasons.push(("too_many_keys", ApiError::TooManyKeys));
        let made = of("The key, with its secret.", [("made", with_secret())]);
        with(errors(reasons), [("201", made)])
    }
}

/// The answers of `PATCH /keys/{id}`.
pub(in crate::http) struct ChangedKeyAnswers;

impl IntoResponses for ChangedKeyAnswers {
    fn responses() -> Answers {
        let changed = of("The key as it is now.", [("changed", info())]);
        with(changing(with_body()), [("200", changed)])
    }
}

/// The answers of `DELETE /keys/{id}`.
pub(in crate::http) struct RevokedKeyAnswers;

impl IntoResponses for RevokedKeyAnswers {
    fn responses() -> Answers {
        let revoked = Response::builder().description("It is revoked.");
        with(changing(reasons()), [("204", revoked)])
    }
}

/// The answers of `POST /keys/{id}/rotate`.
pub(in crate::http) struct RotatedKeyAnswers;

impl IntoResponses for RotatedKeyAnswers {
    fn responses() -> Answers {
        let rotated = of("The key, with its new secret.", [("rotated", with_secret())]);
        with(changing(with_body()), [("200", rotated)])
    }
}
