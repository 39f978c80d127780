//! The public part of a key, and the characters of which keys are made.

use std::fmt;

use ring::rand::{SecureRandom, SystemRandom};

/// The characters of an id: 60 bits.
const ID_CHARS: usize = 12;
/// Five bits each, and none that is taken for another (Crockford's base 32).
const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

/// The public part of a key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId([u8; ID_CHARS]);

impl KeyId {
    /// A new one.
    pub fn random() -> Self {
        Self::parse(&random_text(ID_CHARS)).expect("it has the right characters")
    }

    /// Reads an id; `None`: it has another form.
    pub fn parse(text: &str) -> Option<Self> {
        let id = text.as_bytes().try_into().ok()?;
        is_plain(text).then_some(Self(id))
    }

    /// Its text.
    pub fn as_str(&self) -> &str {
        str::from_utf8(&self.0).expect("ids are ASCII")
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// So many random characters.
pub(super) fn random_text(characters: usize) -> String {
    let mut bytes = vec![0; characters];
    SystemRandom::new()
        .fill(&mut bytes)
        .expect("the system gives random bytes once it has started");
    let character = |byte: &u8| char::from(ALPHABET[usize::from(byte & 31)]);
    bytes.iter().map(character).collect()
}

/// Whether a text is made of the characters of keys.
pub(super) fn is_plain(text: &str) -> bool {
    text.bytes().all(|byte| ALPHABET.contains(&byte))
}
