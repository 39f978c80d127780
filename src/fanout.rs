//! The contract of a fan-out: where stored events go.
//!
//! A fan-out takes events and hands them to whoever listens. It **promises**:
//!
//! - [`Fanout::publish`] answers when every event has been taken, in the order given, or says which it refuses for themselves,
//!   or that nobody knows what became of them. What was taken may be forgotten by those who do not listen at that moment.
//! - It is called again for events that it may have taken already: whoever listens drops them by their cursor.
//!
//! It does **not** remember, retry or wait: that is the relay's (the room `outbox`), which alone calls it, beside the command of
//! that name. It knows nothing of requests, and of the store only what a stored event is.
//!
//! Without a fan-out to somewhere else events are told of inside the process alone: [`Handover`] announces each commit to
//! the followers of this process (the room `follow`).

mod handover;
mod redis;

use std::sync::Arc;

use async_trait::async_trait;

pub use self::handover::{Committed, Debt, Handover};
pub use self::redis::Redis;
use crate::config::{ConfigError, RedisConfig};
use crate::event::StoredEvent;

/// Somewhere that stored events go.
#[async_trait]
pub trait Fanout: Send + Sync + 'static {
    /// Sees to it that there is a connection that works, so that nobody claims events for a fan-out that is not there.
    ///
    /// # Errors
    /// As [`FanoutError::trouble`] says.
    async fn connect(&self) -> Result<(), FanoutError>;

    /// Publishes events in this order, in one pipeline. Answers with those that it refuses for themselves; all others were
    /// taken.
    ///
    /// # Errors
    /// As [`FanoutError::trouble`] says. What became of the events is then unknown, unless it says otherwise.
    async fn publish(&self, events: &[StoredEvent]) -> Result<Vec<Refusal>, FanoutError>;
}

/// An event that a fan-out refuses for itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The index of the event in what was to be published.
    pub index: usize,
    /// What the fan-out said, in one line.
    pub reason: String,
}

/// What is wrong with a fan-out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Trouble {
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

impl Trouble {
    /// All of them.
    pub const ALL: [Trouble; 6] = [
        Trouble::Unreachable,
        Trouble::Starting,
        Trouble::ReadOnly,
        Trouble::Full,
        Trouble::Forbidden,
        Trouble::Odd,
    ];

    /// The name that metrics bear.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Trouble::Unreachable => "unreachable",
            Trouble::Starting => "starting",
            Trouble::ReadOnly => "read_only",
            Trouble::Full => "full",
            Trouble::Forbidden => "forbidden",
            Trouble::Odd => "odd",
        }
    }

    /// What `/health` says of it: one sentence without names of hosts.
    #[must_use]
    pub fn sentence(self) -> &'static str {
        match self {
            Trouble::Unreachable => "Redis cannot be reached.",
            Trouble::Starting => "Redis is starting.",
            Trouble::ReadOnly => "Redis takes no writes: it is a replica.",
            Trouble::Full => "Redis is full.",
            Trouble::Forbidden => "Redis refuses this service: its password, its rights, or what lies under its keys.",
            Trouble::Odd => "Redis answers with an unknown error.",
        }
    }
}

/// A failure of a fan-out. Its text is for logs, never for answers.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{line}")]
pub struct FanoutError {
    /// What is wrong.
    pub trouble: Trouble,
    line: String,
}

impl FanoutError {
    /// An error with what was being done and what went wrong, in one line.
    pub fn new(trouble: Trouble, line: impl Into<String>) -> Self {
        Self {
            trouble,
            line: line.into(),
        }
    }
}

/// The fan-out to a Redis. Nothing is connected yet.
///
/// # Errors
/// [`ConfigError`] when its URL is not understood.
pub fn open(config: RedisConfig) -> Result<Arc<dyn Fanout>, ConfigError> {
    Ok(Arc::new(Redis::open(config)?))
}
