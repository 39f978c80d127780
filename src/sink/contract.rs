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
    /// It is up, and not ready: it is starting, or its Cluster is changing.
    Starting,
    /// It takes no writes: it is a replica now.
    ReadOnly,
    /// It is full. Nothing was taken.
    Full,
    /// It denies access: the password, the permissions, or the type of a key is wrong.
    Forbidden,
    /// TLS fails: a certificate of either side is not accepted, or the server does not use TLS.
    Untrusted,
    /// It does not have the database that the URL names.
    NoDatabase,
    /// The URL is for another kind of Redis: a server, Sentinels, or a Cluster.
    WrongScheme,
    /// The Sentinels do not know the service that the URL names.
    UnknownService,
    /// It answered these events with an error that this program does not know.
    Unexpected,
}

impl SinkErrorKind {
    /// All of them.
    pub const ALL: [SinkErrorKind; 10] = [
        SinkErrorKind::Unreachable,
        SinkErrorKind::Starting,
        SinkErrorKind::ReadOnly,
        SinkErrorKind::Full,
        SinkErrorKind::Forbidden,
        SinkErrorKind::Untrusted,
        SinkErrorKind::NoDatabase,
        SinkErrorKind::WrongScheme,
        SinkErrorKind::UnknownService,
        SinkErrorKind::Unexpected,
    ];

    /// Whether waiting alone does not end it: the configuration is wrong, here or at the sink.
    pub fn is_lasting(self) -> bool {
        matches!(
            self,
            SinkErrorKind::Forbidden
                | SinkErrorKind::Untrusted
                | SinkErrorKind::NoDatabase
                | SinkErrorKind::WrongScheme
                | SinkErrorKind::UnknownService
        )
    }

    /// The name in logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            SinkErrorKind::Unreachable => "unreachable",
            SinkErrorKind::Starting => "starting",
            SinkErrorKind::ReadOnly => "read_only",
            SinkErrorKind::Full => "full",
            SinkErrorKind::Forbidden => "forbidden",
            SinkErrorKind::Untrusted => "untrusted",
            SinkErrorKind::NoDatabase => "no_database",
            SinkErrorKind::WrongScheme => "wrong_scheme",
            SinkErrorKind::UnknownService => "unknown_service",
            SinkErrorKind::Unexpected => "unexpected",
        }
    }

    /// The reason in `/health`: one sentence without names of hosts.
    pub fn sentence(self) -> &'static str {
        match self {
            SinkErrorKind::Unreachable => "Redis cannot be reached.",
            SinkErrorKind::Starting => "Redis is not ready: it is starting, or its Cluster is changing.",
            SinkErrorKind::ReadOnly => "Redis is read-only: it is a replica.",
            SinkErrorKind::Full => "Redis is full.",
            SinkErrorKind::Forbidden => {
                "Redis denies access: check the password, the permissions, and the types of the keys."
            }
            SinkErrorKind::Untrusted => {
                "TLS to Redis fails: check the certificates of both sides, and whether Redis uses TLS."
            }
            SinkErrorKind::NoDatabase => "Redis does not have the database that REDIS_URL names.",
            SinkErrorKind::WrongScheme => {
                "REDIS_URL is for another kind of Redis: check whether it is a server, Sentinels or a Cluster."
            }
            SinkErrorKind::UnknownService => "The Sentinels do not know the service that REDIS_URL names.",
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
    /// Whether the connection worked, and ended without an answer to what was sent: that may have been too much for the sink.
    pub is_cut: bool,
    /// Whether another server has the key now.
    pub is_moved: bool,
    line: String,
}

impl SinkError {
    /// An error with what was being done and what went wrong, in one line.
    pub fn new(kind: SinkErrorKind, line: impl Into<String>) -> Self {
        Self {
            kind,
            is_cut: false,
            is_moved: false,
            line: line.into(),
        }
    }

    /// The same for a key that another server has.
    pub fn moved(self) -> Self {
        Self { is_moved: true, ..self }
    }

    /// The same for a connection that worked, and ended without an answer.
    pub fn cut(self) -> Self {
        Self { is_cut: true, ..self }
    }
}
