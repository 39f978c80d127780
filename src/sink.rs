//! The contract of a fan-out: where stored events go.
//!
//! A fan-out takes events and hands them to whoever listens. It **promises**:
//!
//! - [`Sink::publish`] answers when every event has been taken, in the order given, or says which it refuses for themselves,
//!   or that nobody knows what became of them. What was taken may be forgotten by those who do not listen at that moment.
//! - It is called again for events that it may have taken already: whoever listens drops them by their cursor.
//!
//! It does **not** remember, retry or wait: that is the relay's (the room `outbox`), which alone calls it, beside the command of
//! that name. It knows nothing of requests, and of the store only what a stored event is.
//!
//! Without a fan-out to somewhere else events are told of inside the process alone: [`HandoffQueue`] announces each commit to
//! the followers of this process (the room `follow`).

mod handoff;
#[cfg(feature = "redis")]
mod redis;

use std::sync::Arc;

use async_trait::async_trait;

pub use self::handoff::{Committed, HandoffQueue, OutboxLease};
#[cfg(feature = "redis")]
use self::redis::Redis;
use crate::config::{ConfigError, RedisConfig};
use crate::event::StoredEvent;

/// Somewhere that stored events go.
#[async_trait]
pub trait Sink: Send + Sync + 'static {
    /// Sees to it that there is a connection that works, so that nobody claims events for a fan-out that is not there.
    ///
    /// # Errors
    /// As [`SinkError::kind`] says.
    async fn connect(&self) -> Result<(), SinkError>;

    /// Publishes events in this order, in one pipeline. Answers with those that it refuses for themselves; all others were
    /// taken.
    ///
    /// # Errors
    /// As [`SinkError::kind`] says. What became of the events is then unknown, unless it says otherwise.
    async fn publish(&self, events: &[StoredEvent]) -> Result<Vec<Undeliverable>, SinkError>;
}

/// An event that a fan-out refuses for itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Undeliverable {
    /// The index of the event in what was to be published.
    pub index: usize,
    /// What the fan-out said, in one line.
    pub reason: String,
}

/// What is wrong with a fan-out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SinkErrorKind {
    /// It cannot be reached, or does not answer in time.
    Unreachable,
    /// It is up, and not ready yet.
    Starting,
    /// It takes no writes: it is a replica now.
    ReadOnly,
    /// It is full. Nothing was taken.
    Full,
    /// It refuses us: our password, our rights, or what lies under our keys.
    Forbidden,
    /// It said something about these events that nobody knows.
    Odd,
}

impl SinkErrorKind {
    /// All of them.
    pub const ALL: [SinkErrorKind; 6] = [
        SinkErrorKind::Unreachable,
        SinkErrorKind::Starting,
        SinkErrorKind::ReadOnly,
        SinkErrorKind::Full,
        SinkErrorKind::Forbidden,
        SinkErrorKind::Odd,
    ];

    /// The name that metrics bear.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            SinkErrorKind::Unreachable => "unreachable",
            SinkErrorKind::Starting => "starting",
            SinkErrorKind::ReadOnly => "read_only",
            SinkErrorKind::Full => "full",
            SinkErrorKind::Forbidden => "forbidden",
            SinkErrorKind::Odd => "odd",
        }
    }

    /// What `/health` says of it: one sentence without names of hosts.
    #[must_use]
    pub fn sentence(self) -> &'static str {
        match self {
            SinkErrorKind::Unreachable => "Redis cannot be reached.",
            SinkErrorKind::Starting => "Redis is starting.",
            SinkErrorKind::ReadOnly => "Redis takes no writes: it is a replica.",
            SinkErrorKind::Full => "Redis is full.",
            SinkErrorKind::Forbidden => {
                "Redis refuses this service: its password, its rights, or what lies under its keys."
            }
            SinkErrorKind::Odd => "Redis answers with an unknown error.",
        }
    }
}

/// A failure of a fan-out. Its text is for logs, never for answers.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{line}")]
pub struct SinkError {
    /// What is wrong.
    pub kind: SinkErrorKind,
    line: String,
}

impl SinkError {
    /// An error with what was being done and what went wrong, in one line.
    pub fn new(kind: SinkErrorKind, line: impl Into<String>) -> Self {
        Self {
            kind,
            line: line.into(),
        }
    }
}

/// The fan-out to a Redis. Nothing is connected yet.
///
/// # Errors
/// [`ConfigError`] when its URL is not understood.
#[cfg(feature = "redis")]
pub fn open(config: RedisConfig) -> Result<Arc<dyn Sink>, ConfigError> {
    Ok(Arc::new(Redis::open(config)?))
}

/// Refuses: this build has no Redis.
///
/// # Errors
/// Always.
#[cfg(not(feature = "redis"))]
pub fn open(_config: RedisConfig) -> Result<Arc<dyn Sink>, ConfigError> {
    Err(ConfigError(vec![
        "this eventsieve was built without Redis: build it with the feature `redis`, or unset REDIS_URL".to_owned(),
    ]))
}
