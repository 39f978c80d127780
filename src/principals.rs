//! Who sends a request, and what they may do: the keys of the store, known in memory.
//!
//! The keys are read once, and then what has changed, each second ([`Principals::watch`]), so a request costs the store nothing, and a
//! new or revoked key is known on every replica within two seconds. While the store is away, keys that were known go on being known for
//! five minutes; of one that is not known nothing can be said ([`Refusal::Unavailable`]).

mod bucket;
mod known;
mod principal;
mod watch;

pub(crate) use self::bucket::{Exceeded, Unit};
pub(crate) use self::known::{Principals, Refusal, Settings};
pub(crate) use self::principal::Principal;
