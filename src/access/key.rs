//! A key, as it is kept.

use super::id::KeyId;
use super::scope::Scopes;
use super::secret::SecretHash;
use crate::event::{Timestamp, TopicGlobs};

/// The most characters of a name.
pub const NAME_CHARS_MAX: usize = 100;

/// The most patterns of topics of one key.
pub const GLOBS_MAX: usize = 64;

/// How much a key may publish on each replica; `None`: as much as it likes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct KeyLimits {
    /// Events in a second.
    pub events_per_second: Option<u32>,
    /// Bytes of bodies, decompressed, in a second.
    pub bytes_per_second: Option<u64>,
}

/// A key, as it is kept: nobody can present it from this.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// Which.
    pub id: KeyId,
    /// What people call it.
    pub name: String,
    /// What it may do.
    pub scopes: Scopes,
    /// With which topics.
    pub topics: TopicGlobs,
    /// How much of it.
    pub limits: KeyLimits,
    /// Of its secret.
    pub hash: SecretHash,
    /// Of its secret before the last rotation, and until when that still works.
    pub previous: Option<(SecretHash, Timestamp)>,
    /// When it was made.
    pub created_at: Timestamp,
    /// From when on it no longer works.
    pub expires_at: Option<Timestamp>,
    /// When it was revoked.
    pub revoked_at: Option<Timestamp>,
    /// When it was last used, to the minute or so.
    pub last_used_at: Option<Timestamp>,
    /// Rises with each change of any key; 0 for one that is not kept yet.
    pub version: i64,
}

impl Key {
    /// Whether it works now.
    pub fn is_live(&self, now: Timestamp) -> bool {
        self.revoked_at.is_none() && self.expires_at.is_none_or(|end| now < end)
    }

    /// Whether this is the hash of its secret, or of the one before until its time ends. The time that it takes does not depend on the hash.
    pub fn accepts(&self, hash: &SecretHash, now: Timestamp) -> bool {
        let is_current = self.hash.is(hash);
        let is_previous = self.previous.is_some_and(|(before, end)| before.is(hash) && now < end);
        is_current || is_previous
    }

    /// The patterns of its topics as one text, for a store; `None`: every topic.
    pub fn topics_text(&self) -> Option<String> {
        let globs: Vec<String> = self.topics.patterns()?.iter().map(ToString::to_string).collect();
        Some(globs.join(" "))
    }
}

#[cfg(test)]
mod tests {
    use super::super::secret::NewSecret;
    use super::*;

    #[test]
    fn works_until_it_expires_or_is_revoked() {
        let at = |second: i64| Timestamp::from_micros(second * 1_000_000).unwrap();
        let (first, second) = (NewSecret::of(KeyId::random()), NewSecret::of(KeyId::random()));
        let mut key = Key {
            id: KeyId::random(),
            name: "n".to_owned(),
            scopes: Scopes::ALL,
            topics: TopicGlobs::All,
            limits: KeyLimits::default(),
            hash: second.hash(),
            previous: Some((first.hash(), at(20))),
            created_at: at(0),
            expires_at: Some(at(30)),
            revoked_at: None,
            last_used_at: None,
            version: 0,
        };
        assert!(key.is_live(at(29)) && !key.is_live(at(30)));
        let (first, second) = (first.hash(), second.hash());
        assert!(key.accepts(&second, at(29)) && key.accepts(&first, at(19)) && !key.accepts(&first, at(20)));
        key.revoked_at = Some(at(1));
        assert!(!key.is_live(at(2)));
    }
}
