//! The keys of clients, which the service knows by their hashes.

use async_trait::async_trait;

use super::error::StoreError;
use super::name::Named;
use crate::access::{Key, KeyId};
use crate::event::Timestamp;

/// The most keys in a store. Those that were revoked count for a day.
pub const KEYS_MAX: u32 = 10_000;

/// The keys that were changed after a version, from one snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyChanges {
    /// The version of the newest change.
    pub version: i64,
    /// The changed keys, those that were revoked too, in the order of their versions.
    pub keys: Vec<Key>,
}

/// What became of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeySaved {
    /// It is kept, with this version.
    Saved(i64),
    /// The key has been changed since it was read, or it is gone.
    Changed,
    /// There are too many keys ([`KEYS_MAX`]).
    TooMany,
}

/// The part of a store that keeps keys.
#[async_trait]
pub trait KeyStore: Named {
    /// The keys that were changed after a version, at most `limit`. Changes become visible in the order of their versions.
    async fn changed_keys(&self, after: i64, limit: u32) -> Result<KeyChanges, StoreError>;

    /// The keys behind this id, by id, at most `limit`.
    async fn keys(&self, after: Option<KeyId>, limit: u32) -> Result<Vec<Key>, StoreError>;

    /// One key.
    async fn key(&self, id: KeyId) -> Result<Option<Key>, StoreError>;

    /// Keeps a new key ([`Key::version`] is 0), or a changed one, if it is still as it was read. When it was last used does not change.
    async fn save_key(&self, key: &Key) -> Result<KeySaved, StoreError>;

    /// Notes when keys were last used. Their versions stay.
    async fn note_key_uses(&self, uses: &[(KeyId, Timestamp)]) -> Result<(), StoreError>;
}
