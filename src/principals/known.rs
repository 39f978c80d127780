//! The keys in memory.

use std::collections::HashMap;
use std::sync::{Arc, RwLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::watch;
use tokio::time::Instant;

use super::principal::{Entry, Kind, Principal};
use crate::access::{Key, KeyId, Presented, Scopes, SecretHash};
use crate::event::Timestamp;
use crate::store::KeyStore;

/// How long keys go on being known after they were last read.
const MEMORY: Duration = Duration::from_secs(300);

/// The store counts as away when it has not been read for so long: some times the interval of [`Principals::watch`].
const AWAY: Duration = Duration::from_secs(4);

/// How often a stream looks whether its principal has expired.
const LOOK: Duration = Duration::from_secs(1);

/// Why a credential is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// It is unknown, wrong, revoked or expired.
    Unknown,
    /// It is not known here, and the store, which may know it, is away.
    Unavailable,
}

/// The arguments of [`Principals::new`].
pub struct Settings {
    /// Where keys are kept.
    pub store: Arc<dyn KeyStore>,
    /// What may be done without a key.
    pub anonymous: Scopes,
    /// The hash of a key that may do everything.
    pub admin: Option<SecretHash>,
}

/// Who may do what. Cheap to clone.
#[derive(Clone)]
pub struct Principals(pub(super) Arc<Shared>);

pub(super) struct Shared {
    pub(super) store: Arc<dyn KeyStore>,
    anonymous: Principal,
    admin: Option<SecretHash>,
    known: RwLock<Known>,
    /// One reading at a time.
    pub(super) reading: tokio::sync::Mutex<()>,
    /// Tells that keys have changed.
    changed: watch::Sender<()>,
}

/// What is known of the keys.
#[derive(Default)]
struct Known {
    keys: HashMap<KeyId, Arc<Entry>>,
    /// The version of the newest change that is known.
    version: i64,
    /// When the store was last read.
    read_at: Option<Instant>,
}

impl Principals {
    /// No key is known yet.
    pub fn new(settings: Settings) -> Self {
        Self(Arc::new(Shared {
            store: settings.store,
            anonymous: Principal::anonymous(settings.anonymous),
            admin: settings.admin,
            known: RwLock::default(),
            reading: tokio::sync::Mutex::default(),
            changed: watch::Sender::new(()),
        }))
    }

    /// Who presents this; without a credential it is anonymous.
    pub fn identify(&self, credential: Option<&str>) -> Result<Principal, Refusal> {
        let Some(credential) = credential else {
            return Ok(self.0.anonymous.clone());
        };
        if self.0.admin.is_some_and(|admin| admin.is(&SecretHash::of(credential))) {
            return Ok(Principal::admin());
        }
        let presented = Presented::parse(credential).ok_or(Refusal::Unknown)?;
        // Whether the key is known or not: the time that the answer takes does not tell.
        let hash = SecretHash::of(presented.secret);
        let now = now();
        let known = self.read();
        match known.keys.get(&presented.id) {
            Some(entry) if known.remembers() && entry.key.accepts(&hash, now) => {
                if !entry.key.is_live(now) {
                    return Err(Refusal::Unknown);
                }
                entry.note_use(now);
                Ok(Principal::key(entry.clone(), hash))
            }
            _ if known.is_away() => Err(Refusal::Unavailable),
            _ => Err(Refusal::Unknown),
        }
    }

    /// Whether it is still what it was when it was identified.
    pub fn is_current(&self, principal: &Principal) -> bool {
        let Kind::Key(before, hash) = &principal.kind else {
            return true;
        };
        let (known, now) = (self.read(), now());
        known.keys.get(&before.key.id).is_some_and(|entry| {
            let key = &entry.key;
            known.remembers()
                && key.is_live(now)
                && key.accepts(hash, now)
                && key.scopes == before.key.scopes
                && key.topics == before.key.topics
        })
    }

    /// Waits until it is not any more.
    pub async fn ended(&self, principal: &Principal) {
        if !matches!(principal.kind, Kind::Key(..)) {
            return std::future::pending().await;
        }
        let mut changed = self.0.changed.subscribe();
        while self.is_current(principal) {
            tokio::select! {
                _ = changed.changed() => {}
                () = tokio::time::sleep(LOOK) => {}
            }
        }
    }

    /// Whether anybody has a key that works.
    pub fn has_keys(&self) -> bool {
        let now = now();
        self.0.admin.is_some() || self.read().keys.values().any(|entry| entry.key.is_live(now))
    }

    /// The version of the newest known change.
    pub(super) fn version(&self) -> i64 {
        self.read().version
    }

    /// Adds what has changed; with `anew` nothing else is known afterwards.
    pub(super) fn learn(&self, changed: Vec<Key>, version: i64, anew: bool) {
        let is_change = anew || !changed.is_empty();
        {
            let known = self.0.known.write();
            let mut known = known.expect("nothing panics while it holds the keys");
            let before = if anew {
                std::mem::take(&mut known.keys)
            } else {
                HashMap::new()
            };
            for key in changed {
                let id = key.id;
                let last = before.get(&id).or_else(|| known.keys.get(&id)).cloned();
                known.keys.insert(id, Arc::new(Entry::new(key, last.as_deref())));
            }
            known.version = version;
            known.read_at = Some(Instant::now());
        }
        if is_change {
            self.0.changed.send_replace(());
        }
    }

    /// The keys that were used since this time.
    pub(super) fn used_since(&self, since: Timestamp) -> Vec<(KeyId, Timestamp)> {
        let known = self.read();
        let used = known.keys.iter().filter_map(|(id, entry)| {
            let last = entry.uses.last.load(std::sync::atomic::Ordering::Relaxed);
            let last = Timestamp::from_micros(last).filter(|last| *last >= since && last.micros() > 0)?;
            Some((*id, last))
        });
        used.collect()
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, Known> {
        self.0.known.read().expect("nothing panics while it holds the keys")
    }
}

impl Known {
    /// Whether what is known is still worth something.
    fn remembers(&self) -> bool {
        self.read_at.is_some_and(|at| at.elapsed() < MEMORY)
    }

    fn is_away(&self) -> bool {
        self.read_at.is_none_or(|at| at.elapsed() > AWAY)
    }
}

/// The clock of this machine, by which keys expire.
#[expect(
    clippy::disallowed_methods,
    reason = "keys expire by the wall clock, and a request must not ask the store for it"
)]
pub(super) fn now() -> Timestamp {
    let micros = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .ok()
        .and_then(|since| i64::try_from(since.as_micros()).ok());
    micros
        .and_then(Timestamp::from_micros)
        .expect("the system's clock is between the years 1970 and 9999")
}
