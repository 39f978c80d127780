//! The contract of a sink, and its errors.

use async_trait::async_trait;

use crate::event::StoredEvent;

/// Where stored events are published.
#[async_trait]
pub trait Sink: Send + Sync + 'static {
    /// Makes sure of a connection that works, so that no batches are claimed for a sink that is down.
    async fn connect(&self) -> Result<(), SinkError>;

    /// Publishes events in this order, in one pipeline. Returns those that it rejects; it has taken all others.
    ///
    /// # Errors
    /// Some of the events may be published, unless [`SinkError::kind`] says otherwise.
    async fn publish(&self, events: &[StoredEvent]) -> Result<Vec<Undeliverable>, SinkError>;
}

/// An event that a sink rejects, while it takes others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Undeliverable {
    /// The index of the event among those to be published.
    pub index: usize,
    /// The error of the sink, in one line.
    pub reason: String,
}

/// What is wrong with a sink.
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
    /// It denies access: the password, the permissions, or the type of a key is wrong.
    Forbidden,
    /// It answered these events with an error that this program does not know.
    Unexpected,
}

impl SinkErrorKind {
    /// All of them.
    pub const ALL: [SinkErrorKind; 6] = [
        SinkErrorKind::Unreachable,
        SinkErrorKind::Starting,
        SinkErrorKind::ReadOnly,
        SinkErrorKind::Full,
        SinkErrorKind::Forbidden,
        SinkErrorKind::Unexpected,
    ];

    /// The name in logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            SinkErrorKind::Unreachable => "unreachable",
            SinkErrorKind::Starting => "starting",
            SinkErrorKind::ReadOnly => "read_only",
            SinkErrorKind::Full => "full",
            SinkErrorKind::Forbidden => "forbidden",
            SinkErrorKind::Unexpected => "unexpected",
        }
    }

    /// The reason in `/health`: one sentence without names of hosts.
    pub fn sentence(self) -> &'static str {
        match self {
            SinkErrorKind::Unreachable => "Redis cannot be reached.",
            SinkErrorKind::Starting => "Redis is starting.",
            SinkErrorKind::ReadOnly => "Redis is read-only: it is a replica.",
            SinkErrorKind::Full => "Redis is full.",
            SinkErrorKind::Forbidden => {
                "Redis denies access: check the password, the permissions, and the types of the keys."
            }
            SinkErrorKind::Unexpected => "Redis returned an unexpected error.",
        }
    }
}

/// An error of a sink. Its text is for logs, never for answers.
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
