//! Requests and answers about keys.

use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;

use super::scalars::{KeyName, TopicPattern};
use crate::access::{Key, KeyLimits, Scope};
use crate::event::{Timestamp, TopicGlob};

/// The most keys of a page.
pub const KEYS_MAX: u32 = 1000;

/// A key to make.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewKey {
    /// What people call it: 1 to 100 characters.
    #[schema(value_type = KeyName)]
    pub name: String,
    /// What it may do.
    #[schema(min_items = 1, value_type = Vec<ScopeName>)]
    pub scopes: Vec<String>,
    /// With which topics: patterns in which `*` stands for any characters, at most 64; all topics where this is missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_items = 64, value_type = Option<Vec<TopicPattern>>)]
    pub topics: Option<Vec<String>>,
    /// How much it may publish.
    #[serde(default)]
    pub limits: Limits,
    /// From when on it no longer works.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
}

/// The name of a scope.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ScopeName {
    /// Publish events.
    Publish,
    /// Read events, counters and topics.
    Read,
    /// Receive from subscriptions.
    Consume,
    /// Make and revoke keys.
    Manage,
    /// Read the metrics.
    Metrics,
}

/// How much a key may publish on each replica; without a number as much as it likes. Ten seconds' worth may come at once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Events in a second.
    #[serde(default, deserialize_with = "whole")]
    #[schema(minimum = 1, maximum = 4294967295_i64)]
    pub events_per_second: Option<u32>,
    /// Bytes of bodies in a second, decompressed.
    #[serde(default, deserialize_with = "whole")]
    #[schema(minimum = 1, maximum = 9007199254740992_i64)]
    pub bytes_per_second: Option<u64>,
}

/// What is to change of a key; what is missing stays.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct KeyChange {
    /// What people call it: 1 to 100 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<KeyName>)]
    pub name: Option<String>,
    /// What it may do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_items = 1, value_type = Option<Vec<ScopeName>>)]
    pub scopes: Option<Vec<String>>,
    /// How much it may publish.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<Limits>,
    /// From when on it no longer works; null: it does not expire.
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Timestamp>)]
    pub expires_at: Option<Option<Timestamp>>,
}

/// A whole number, also in the form `5.0`, which JSON does not tell from `5`.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the number is whole and within the range"
)]
fn whole<'de, D: Deserializer<'de>, T: TryFrom<u64>>(number: D) -> Result<Option<T>, D::Error> {
    const MAX: f64 = 9_007_199_254_740_992.0;
    let Some(number) = Option::<serde_json::Number>::deserialize(number)? else {
        return Ok(None);
    };
    let by_float = || {
        let number = number.as_f64().filter(|number| number.fract() == 0.0)?;
        (0.0..=MAX).contains(&number).then_some(number as u64)
    };
    let whole = number.as_u64().or_else(by_float);
    let found = whole.and_then(|whole| T::try_from(whole).ok());
    found
        .map(Some)
        .ok_or_else(|| serde::de::Error::custom("a limit is a whole number from 1"))
}

/// A member that is given, null or not.
fn given<'de, D: Deserializer<'de>>(value: D) -> Result<Option<Option<Timestamp>>, D::Error> {
    Option::deserialize(value).map(Some)
}

/// A request for a new secret.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Rotation {
    /// For how long the secret before works, too: `24h`, at most `30d`; `0s`: not at all.
    #[schema(
        example = "24h",
        pattern = "^(0s|[1-9][0-9]{0,2}[sm]|([1-9][0-9]?|[1-6][0-9][0-9])h|([1-9]|[12][0-9]|30)d)$"
    )]
    pub overlap: String,
}

/// A key, without its secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct KeyInfo {
    /// Which.
    pub id: String,
    /// What people call it.
    pub name: String,
    /// What it may do.
    pub scopes: Vec<String>,
    /// With which topics; null: all.
    pub topics: Option<Vec<String>>,
    /// How much it may publish.
    pub limits: Limits,
    /// When it was made.
    pub created_at: Timestamp,
    /// From when on it no longer works.
    pub expires_at: Option<Timestamp>,
    /// When it was revoked.
    pub revoked_at: Option<Timestamp>,
    /// When it was last used, to the minute or so.
    pub last_used_at: Option<Timestamp>,
    /// Until when the secret before the last rotation works, too.
    pub previous_until: Option<Timestamp>,
}

/// A key with its secret, which is shown this once.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct KeyWithSecret {
    /// `esk_ID_SECRET`: what a client presents.
    pub key: String,
    /// What is kept of it.
    #[serde(flatten)]
    pub info: KeyInfo,
}

/// Some keys.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Keys {
    /// By id.
    pub keys: Vec<KeyInfo>,
    /// The id to continue behind; null: there are no more.
    pub next: Option<String>,
}

impl KeyInfo {
    /// What is shown of a key.
    pub fn of(key: &Key) -> Self {
        let texts = |globs: &[TopicGlob]| globs.iter().map(ToString::to_string).collect();
        Self {
            id: key.id.to_string(),
            name: key.name.clone(),
            scopes: key.scopes.iter().map(|scope: Scope| scope.name().to_owned()).collect(),
            topics: key.topics.patterns().map(texts),
            limits: Limits {
                events_per_second: key.limits.events_per_second,
                bytes_per_second: key.limits.bytes_per_second,
            },
            created_at: key.created_at,
            expires_at: key.expires_at,
            revoked_at: key.revoked_at,
            last_used_at: key.last_used_at,
            previous_until: key.previous.map(|(_, until)| until),
        }
    }
}

impl From<Limits> for KeyLimits {
    fn from(limits: Limits) -> Self {
        Self {
            events_per_second: limits.events_per_second,
            bytes_per_second: limits.bytes_per_second,
        }
    }
}
