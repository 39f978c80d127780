//! Who may do what: scopes, and keys with their secrets. What keeps and checks them is elsewhere.

mod id;
mod key;
mod scope;
mod secret;

pub(crate) use self::id::KeyId;
pub(crate) use self::key::{GLOBS_MAX, Key, KeyLimits, NAME_CHARS_MAX};
pub(crate) use self::scope::{Scope, Scopes};
pub(crate) use self::secret::{NewSecret, Presented, SecretHash};
