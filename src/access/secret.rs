//! The texts of keys. Only a hash of the secret is ever kept.

use std::fmt;

use ring::digest::{SHA256, digest};
use subtle::ConstantTimeEq;

use super::id::{KeyId, is_plain, random_text};

/// What every key begins with, by which it is recognized where it should not be.
const PREFIX: &str = "esk_";
/// The characters of a secret: 200 bits.
const SECRET_CHARS: usize = 40;
/// The SHA-256 of a secret.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SecretHash(pub [u8; 32]);

impl SecretHash {
    /// Of this text.
    pub fn of(secret: &str) -> Self {
        let mut hash = [0; 32];
        hash.copy_from_slice(digest(&SHA256, secret.as_bytes()).as_ref());
        Self(hash)
    }

    /// Whether it is the same; takes the same time whatever they are.
    pub fn is(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl fmt::Debug for SecretHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// A key as a client presents it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Presented<'a> {
    /// Which key.
    pub id: KeyId,
    /// What proves it.
    pub secret: &'a str,
}

impl<'a> Presented<'a> {
    /// Reads `esk_ID_SECRET`; `None`: it has another form.
    pub fn parse(text: &'a str) -> Option<Self> {
        let (id, secret) = text.strip_prefix(PREFIX)?.split_once('_')?;
        let is_secret = secret.len() == SECRET_CHARS && is_plain(secret);
        is_secret.then_some(Self {
            id: KeyId::parse(id)?,
            secret,
        })
    }
}

/// A secret that was just made, for its owner alone.
pub struct NewSecret {
    id: KeyId,
    secret: String,
}

impl NewSecret {
    /// A new secret of a key.
    pub fn of(id: KeyId) -> Self {
        let secret = random_text(SECRET_CHARS);
        Self { id, secret }
    }

    /// The key as its owner presents it.
    pub fn key(&self) -> String {
        format!("{PREFIX}{}_{}", self.id, self.secret)
    }

    /// What is kept of it.
    pub fn hash(&self) -> SecretHash {
        SecretHash::of(&self.secret)
    }
}

impl fmt::Debug for NewSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}_[redacted]", self.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_read_as_it_was_made() {
        let id = KeyId::random();
        let new = NewSecret::of(id);
        let key = new.key();
        let presented = Presented::parse(&key).unwrap();
        assert_eq!(presented.id, id);
        assert!(new.hash().is(&SecretHash::of(presented.secret)));
        assert!(
            !new.hash()
                .is(&SecretHash::of(&presented.secret.replace(|c| c != '0', "1")))
        );
        assert!(!format!("{new:?} {:?}", new.hash()).contains(presented.secret));
        assert_ne!(NewSecret::of(id).key(), key);
    }

    #[test]
    fn another_form_is_no_key() {
        let key = NewSecret::of(KeyId::random()).key();
        for wrong in [
            "",
            "esk_",
            &key[1..],
            &key[..key.len() - 1],
            &format!("{key}0"),
            &key.to_uppercase(),
            &key.replacen("esk_", "esk-", 1),
        ] {
            assert!(Presented::parse(wrong).is_none(), "{wrong}");
        }
    }
}
