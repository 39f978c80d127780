//! A principal, and what it may do.

use std::fmt;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};

use tokio::time::Instant;

use super::bucket::{Buckets, Exceeded};
use crate::access::{Key, Scope, Scopes, SecretHash};
use crate::event::{Timestamp, TopicGlobs};

/// Who sends a request.
#[derive(Debug, Clone)]
pub struct Principal {
    pub(super) kind: Kind,
    scopes: Scopes,
    topics: TopicGlobs,
}

#[derive(Debug, Clone)]
pub(super) enum Kind {
    Anonymous,
    Admin,
    /// A key, and the hash of the secret that was presented: after a rotation it has two for a while.
    Key(Arc<Entry>, SecretHash),
}

/// A key in memory.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) key: Key,
    pub(super) uses: Arc<Uses>,
}

/// What is known of the use of a key, whatever becomes of the key itself.
#[derive(Debug)]
pub(super) struct Uses {
    /// Microseconds since 1970; 0: not since the start.
    pub(super) last: AtomicI64,
    buckets: Mutex<Buckets>,
}

impl Entry {
    /// A key as it is kept now, where `before` was known of it.
    pub(super) fn new(key: Key, before: Option<&Self>) -> Self {
        let same = before.filter(|before| before.key.limits == key.limits);
        let uses = same.map_or_else(
            || {
                Arc::new(Uses {
                    last: AtomicI64::new(0),
                    buckets: Mutex::new(Buckets::new(&key.limits, Instant::now())),
                })
            },
            |before| before.uses.clone(),
        );
        Self { key, uses }
    }

    pub(super) fn note_use(&self, now: Timestamp) {
        self.uses.last.store(now.micros(), Ordering::Relaxed);
    }
}

impl Principal {
    pub(super) fn anonymous(scopes: Scopes) -> Self {
        Self {
            kind: Kind::Anonymous,
            scopes,
            topics: TopicGlobs::All,
        }
    }

    pub(super) fn admin() -> Self {
        Self {
            kind: Kind::Admin,
            scopes: Scopes::ALL,
            topics: TopicGlobs::All,
        }
    }

    pub(super) fn key(entry: Arc<Entry>, hash: SecretHash) -> Self {
        Self {
            scopes: entry.key.scopes,
            topics: entry.key.topics.clone(),
            kind: Kind::Key(entry, hash),
        }
    }

    /// Whether it has a scope.
    pub fn may(&self, scope: Scope) -> bool {
        self.scopes.has(scope)
    }

    /// Its scopes.
    pub fn scopes(&self) -> Scopes {
        self.scopes
    }

    /// The topics that exist for it.
    pub fn topics(&self) -> &TopicGlobs {
        &self.topics
    }

    /// Whether it has presented nothing.
    pub fn is_anonymous(&self) -> bool {
        matches!(self.kind, Kind::Anonymous)
    }

    /// Takes events and bytes of bodies out of its limits.
    pub fn take(&self, events: usize, bytes: usize) -> Result<(), Exceeded> {
        match &self.kind {
            Kind::Key(entry, _) => {
                let buckets = entry.uses.buckets.lock();
                let mut buckets = buckets.expect("nothing panics while it holds the limits of a key");
                buckets.take((events, bytes), Instant::now())
            }
            Kind::Anonymous | Kind::Admin => Ok(()),
        }
    }
}

/// As it stands in the log.
impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            Kind::Anonymous => f.write_str("anonymous"),
            Kind::Admin => f.write_str("admin"),
            Kind::Key(entry, _) => write!(f, "key:{}", entry.key.id),
        }
    }
}
