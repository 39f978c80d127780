//! `/keys`: makes, changes and revokes keys.

use std::time::Duration;

use axum::body::Body;
use axum::extract::{Extension, Path, RawQuery, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::de::DeserializeOwned;

use super::client_address::ClientAddress;
use super::docs::answers::keys::{ChangedKeyAnswers, KeysAnswers, NewKeyAnswers, RevokedKeyAnswers, RotatedKeyAnswers};
use super::docs::parameters::{KeyParameters, KeysParameters};
use super::error::ApiError;
use super::guard::{Manage, May};
use super::query::Query;
use super::state::AppState;
use crate::access::{GLOBS_MAX, Key, KeyId, NAME_CHARS_MAX, NewSecret, Scopes};
use crate::api::keys::{KEYS_MAX, KeyChange, KeyInfo, KeyWithSecret, Keys, Limits, NewKey, Rotation};
use crate::event::{Loc, Timestamp, TopicGlob, TopicGlobs, ValidationError, ValidationErrorKind};
use crate::principals::Principal;
use crate::store::KeySaved;

/// The most bytes of a body.
const BODY_BYTES_MAX: usize = 64 << 10;

/// The highest limit, which a number of JSON holds exactly.
const BYTES_PER_SECOND_MAX: u64 = 1 << 53;

/// For how long two secrets of a key may work.
const OVERLAP_MAX: Duration = Duration::from_secs(30 * 24 * 3600);

/// How often a change is tried again where another one came between.
const ATTEMPTS: usize = 5;

/// Who asks, and from where.
type From = Option<Extension<ClientAddress>>;

/// List keys
///
/// By id, without their secrets; those that have no more than the caller's key.
#[utoipa::path(
    get,
    path = "/keys",
    operation_id = "listKeys",
    tag = "manage",
    params(KeysParameters),
    responses(KeysAnswers)
)]
pub(super) async fn list(
    may: May<Manage>,
    State(state): State<AppState>,
    RawQuery(query): RawQuery,
) -> Result<Response, ApiError> {
    state.check_started()?;
    let mut query = Query::read(query.as_deref());
    let after = query.key_id("after");
    let limit = query.number("limit", 1, KEYS_MAX.into());
    query.finish().map_err(ApiError::Invalid)?;
    let limit = limit.and_then(|limit| u32::try_from(limit).ok()).unwrap_or(KEYS_MAX);
    let limit = limit as usize;
    let (mut after, mut keys) = (after, Vec::new());
    // Past those that are hidden, of which not even an id is told; one more than asked for, to know whether there are more.
    while keys.len() <= limit {
        let page = state.keys.keys(after, KEYS_MAX).await?;
        let Some(last) = page.last() else { break };
        after = Some(last.id);
        keys.extend(page.into_iter().filter(|key| covers(&may.who, key)));
    }
    let has_more = keys.len() > limit;
    keys.truncate(limit);
    let next = keys.last().filter(|_| has_more);
    state.figures.json(&Keys {
        next: next.map(|key| key.id.to_string()),
        keys: keys.iter().map(KeyInfo::of).collect(),
    })
}

/// Make a key
///
/// Its secret is shown this once. A key can make only keys that have no more than itself.
#[utoipa::path(
    post,
    path = "/keys",
    operation_id = "createKey",
    tag = "manage",
    request_body = NewKey,
    responses(NewKeyAnswers)
)]
pub(super) async fn create(
    may: May<Manage>,
    State(state): State<AppState>,
    from: From,
    body: Body,
) -> Result<Response, ApiError> {
    state.check_started()?;
    let new: NewKey = read(&state, body).await?;
    let now = state.store.clock().await?;
    let id = KeyId::random();
    let secret = NewSecret::of(id);
    let key = Key {
        id,
        name: name(new.name)?,
        scopes: scopes(&new.scopes)?,
        topics: topics(new.topics.as_deref())?,
        limits: limits(new.limits)?.into(),
        hash: secret.hash(),
        previous: None,
        created_at: now,
        expires_at: new.expires_at,
        revoked_at: None,
        last_used_at: None,
        version: 0,
    };
    if !covers(&may.who, &key) {
        return Err(ApiError::Forbidden(MORE));
    }
    match state.keys.save_key(&key).await? {
        KeySaved::Saved(_) => {}
        KeySaved::TooMany => return Err(ApiError::TooManyKeys),
        KeySaved::Changed => return Err(ApiError::Internal),
    }
    log("created a key", &may.who, &key, &from);
    state.principals.refresh().await.ok();
    let answer = KeyWithSecret {
        key: secret.key(),
        info: KeyInfo::of(&key),
    };
    let mut response = state.figures.json(&answer)?;
    *response.status_mut() = StatusCode::CREATED;
    Ok(response)
}

/// Change a key
///
/// Its name, scopes, limits or expiry.
#[utoipa::path(
    patch,
    path = "/keys/{id}",
    operation_id = "changeKey",
    tag = "manage",
    params(KeyParameters),
    request_body = KeyChange,
    responses(ChangedKeyAnswers)
)]
pub(super) async fn change(
    may: May<Manage>,
    State(state): State<AppState>,
    Path(id): Path<String>,
    from: From,
    body: Body,
) -> Result<Response, ApiError> {
    state.check_started()?;
    let change: KeyChange = read(&state, body).await?;
    let new_name = change.name.map(name).transpose()?;
    let new_scopes = change.scopes.as_deref().map(scopes).transpose()?;
    let new_limits = change.limits.map(limits).transpose()?;
    let changed = update(&state, &may.who, &id, |key| Key {
        name: new_name.clone().unwrap_or(key.name),
        scopes: new_scopes.unwrap_or(key.scopes),
        limits: new_limits.map_or(key.limits, Into::into),
        expires_at: change.expires_at.unwrap_or(key.expires_at),
        ..key
    });
    let key = changed.await?;
    log("changed a key", &may.who, &key, &from);
    state.figures.json(&KeyInfo::of(&key))
}

/// Revoke a key
///
/// It no longer works, on any replica within two seconds, and its streams end. To revoke it again changes nothing.
#[utoipa::path(
    delete,
    path = "/keys/{id}",
    operation_id = "revokeKey",
    tag = "manage",
    params(KeyParameters),
    responses(RevokedKeyAnswers)
)]
pub(super) async fn revoke(
    may: May<Manage>,
    State(state): State<AppState>,
    Path(id): Path<String>,
    from: From,
) -> Result<Response, ApiError> {
    state.check_started()?;
    let now = state.store.clock().await?;
    let changed = update(&state, &may.who, &id, |key| Key {
        revoked_at: key.revoked_at.or(Some(now)),
        ..key
    });
    log("revoked a key", &may.who, &changed.await?, &from);
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// Give a key a new secret
///
/// The secret before works, too, for the time that is given.
#[utoipa::path(
    post,
    path = "/keys/{id}/rotate",
    operation_id = "rotateKey",
    tag = "manage",
    params(KeyParameters),
    request_body = Rotation,
    responses(RotatedKeyAnswers)
)]
pub(super) async fn rotate(
    may: May<Manage>,
    State(state): State<AppState>,
    Path(id): Path<String>,
    from: From,
    body: Body,
) -> Result<Response, ApiError> {
    state.check_started()?;
    let rotation: Rotation = read(&state, body).await?;
    let now = state.store.clock().await?;
    let overlap = humantime::parse_duration(&rotation.overlap).ok();
    let overlap = overlap.filter(|overlap| *overlap <= OVERLAP_MAX).ok_or_else(|| {
        let message = "Input should be a length of time such as 24h, at most 30d";
        invalid(ValidationErrorKind::StringPatternMismatch, message, "overlap")
    })?;
    let until = later(now, overlap);
    let secret = NewSecret::of(KeyId::parse(&id).ok_or(ApiError::KeyUnknown)?);
    let changed = update(&state, &may.who, &id, |key| Key {
        previous: Some((key.hash, until)),
        hash: secret.hash(),
        ..key
    });
    let key = changed.await?;
    log("rotated a key", &may.who, &key, &from);
    state.figures.json(&KeyWithSecret {
        key: secret.key(),
        info: KeyInfo::of(&key),
    })
}

const MORE: &str = "A key can make and change only keys that have no more scopes and topics than itself.";

/// Whether a key has no more than its maker.
fn covers(who: &Principal, key: &Key) -> bool {
    who.scopes().covers(key.scopes) && who.topics().covers(&key.topics)
}

/// Changes a key as it is now. For whom it is hidden there is none.
async fn update(state: &AppState, who: &Principal, id: &str, change: impl Fn(Key) -> Key) -> Result<Key, ApiError> {
    let id = KeyId::parse(id).ok_or(ApiError::KeyUnknown)?;
    for _ in 0..ATTEMPTS {
        let key = state.keys.key(id).await?.filter(|key| covers(who, key));
        let key = key.ok_or(ApiError::KeyUnknown)?;
        let changed = change(key.clone());
        if !covers(who, &changed) {
            return Err(ApiError::Forbidden(MORE));
        }
        if let KeySaved::Saved(version) = state.keys.save_key(&changed).await? {
            state.principals.refresh().await.ok();
            return Ok(Key { version, ..changed });
        }
    }
    Err(ApiError::KEY_CONTENDED)
}

async fn read<T: DeserializeOwned>(state: &AppState, body: Body) -> Result<T, ApiError> {
    let reading = axum::body::to_bytes(body, BODY_BYTES_MAX);
    let bytes = tokio::time::timeout(state.limits.body_timeout, reading)
        .await
        .map_err(|_| ApiError::BodyTimeout)?
        .map_err(|_| ApiError::BodyTooLarge(BODY_BYTES_MAX))?;
    let wrong = |error: serde_json::Error| {
        let error = ValidationError::new(ValidationErrorKind::JsonInvalid, error.to_string());
        ApiError::Invalid(vec![error.at(vec![Loc::name("body")])])
    };
    // An array would be read as an object whose members have no names.
    let shape: serde_json::Value = serde_json::from_slice(&bytes).map_err(wrong)?;
    let message = "Input should be an object";
    if !shape.is_object() {
        let error = ValidationError::new(ValidationErrorKind::DictType, message);
        return Err(ApiError::Invalid(vec![error.at(vec![Loc::name("body")])]));
    }
    if shape["limits"].is_array() {
        return Err(invalid(ValidationErrorKind::DictType, message, "limits"));
    }
    serde_json::from_slice(&bytes).map_err(wrong)
}

fn invalid(
    kind: ValidationErrorKind,
    message: impl Into<std::borrow::Cow<'static, str>>,
    member: &'static str,
) -> ApiError {
    let loc = vec![Loc::name("body"), Loc::name(member)];
    ApiError::Invalid(vec![ValidationError::new(kind, message).at(loc)])
}

fn name(name: String) -> Result<String, ApiError> {
    let is_valid = (1..=NAME_CHARS_MAX).contains(&name.chars().count()) && !name.contains(char::is_control);
    let message = format!("Input should have 1 to {NAME_CHARS_MAX} characters, none of them a control character");
    let error = || invalid(ValidationErrorKind::StringPatternMismatch, message, "name");
    is_valid.then_some(name).ok_or_else(error)
}

fn scopes(names: &[String]) -> Result<Scopes, ApiError> {
    let scopes: Option<Scopes> = names.iter().map(|name| crate::access::Scope::parse(name)).collect();
    scopes.filter(|scopes| *scopes != Scopes::NONE).ok_or_else(|| {
        let message = "Input should be some of 'publish', 'read', 'consume', 'manage' and 'metrics'";
        invalid(ValidationErrorKind::LiteralError, message, "scopes")
    })
}

fn topics(texts: Option<&[String]>) -> Result<TopicGlobs, ApiError> {
    let Some(texts) = texts else { return Ok(TopicGlobs::All) };
    let globs: Option<TopicGlobs> = texts.iter().map(|text| TopicGlob::parse(text)).collect();
    globs.filter(|_| texts.len() <= GLOBS_MAX).ok_or_else(|| {
        let message = format!("Input should be at most {GLOBS_MAX} patterns of topics, such as 'order.*'");
        invalid(ValidationErrorKind::StringPatternMismatch, message, "topics")
    })
}

fn limits(limits: Limits) -> Result<Limits, ApiError> {
    if limits.events_per_second == Some(0) || limits.bytes_per_second == Some(0) {
        let message = "Input should be greater than or equal to 1";
        return Err(invalid(ValidationErrorKind::GreaterThanEqual, message, "limits"));
    }
    if limits
        .bytes_per_second
        .is_some_and(|limit| limit > BYTES_PER_SECOND_MAX)
    {
        let message = format!("Input should be less than or equal to {BYTES_PER_SECOND_MAX}");
        return Err(invalid(ValidationErrorKind::LessThanEqual, message, "limits"));
    }
    Ok(limits)
}

fn later(now: Timestamp, by: Duration) -> Timestamp {
    let by = i64::try_from(by.as_micros()).unwrap_or(i64::MAX);
    Timestamp::from_micros(now.micros().saturating_add(by)).unwrap_or(now)
}

/// Each act is a line of its own.
fn log(act: &'static str, who: &Principal, key: &Key, from: &From) {
    tracing::info!(
        principal = %who,
        key.id = %key.id,
        key.scopes = %key.scopes,
        client = from.as_ref().map(|Extension(client)| tracing::field::display(client)),
        "{act}"
    );
}
