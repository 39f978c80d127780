//! Requests and answers about keys.

use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;

use crate::access::{Key, KeyLimits, Scope};
use crate::event::{Timestamp, TopicGlob};

/// The most keys of a page.
pub const KEYS_MAX: u32 = 1000;

/// A key to make.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewKey {
    /// What people call it: 1 to 100 characters.
    #[schema(min_length = 1, max_length = 100)]
    pub name: String,
    /// What it may do: `publish`, `read`, `consume`, `manage`, `metrics`.
    #[schema(min_items = 1)]
    pub scopes: Vec<String>,
    /// With which topics: patterns in which `*` stands for any characters, at most 64; all topics where this is missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, max_items = 64)]
    pub topics: Option<Vec<String>>,
    /// How much it may publish.
    #[serde(default)]
    pub limits: Limits,
    /// From when on it no longer works.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub expires_at: Option<Timestamp>,
}

/// How much a key may publish on each replica; without a number as much as it likes. Ten seconds' worth may come at once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Events in a second.
    #[serde(default)]
    #[schema(minimum = 1)]
    pub events_per_second: Option<u32>,
    /// Bytes of bodies in a second, decompressed.
    #[serde(default)]
    #[schema(minimum = 1)]
    pub bytes_per_second: Option<u64>,
}

/// What is to change of a key; what is missing stays.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct KeyChange {
    /// What people call it: 1 to 100 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, min_length = 1, max_length = 100)]
    pub name: Option<String>,
    /// What it may do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, min_items = 1)]
    pub scopes: Option<Vec<String>>,
    /// How much it may publish.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub limits: Option<Limits>,
    /// From when on it no longer works; null: it does not expire.
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Timestamp>)]
    pub expires_at: Option<Option<Timestamp>>,
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
    #[schema(example = "24h")]
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
