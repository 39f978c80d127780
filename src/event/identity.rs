//! The key of an identity.

use ring::digest::{Context, SHA256};

use crate::event::name::{EventId, Topic};

/// A fixed-size key for an identity: the first 16 bytes of the SHA-256 of the topic, a zero byte, and the event id. Neither name can
/// contain a zero byte. Two identities have the same key with a probability of 2^-128.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct IdentityKey(pub [u8; 16]);

impl IdentityKey {
    /// The key of an identity.
    pub fn of(topic: &Topic, event_id: &EventId) -> Self {
        let mut context = Context::new(&SHA256);
        context.update(topic.as_str().as_bytes());
        context.update(&[0]);
        context.update(event_id.as_str().as_bytes());
        let digest = context.finish();
        Self(*digest.as_ref().first_chunk().expect("a SHA-256 has 32 bytes"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_is_the_beginning_of_the_hash_of_both_names() {
        let key = IdentityKey::of(
            &Topic::parse("order.created".to_owned()).unwrap(),
            &EventId::parse("evt-1").unwrap(),
        );
        // printf 'order.created\0evt-1' | sha256sum
        assert_eq!(u128::from_be_bytes(key.0), 0x21c208f6_7ffcb327_544abacb_a7a5c59a);
    }
}
