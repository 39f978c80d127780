//! The errors of a store.

use std::sync::Arc;

/// The kind of an error. It alone decides what the caller may do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorClass {
    /// A row cannot be stored: do not retry the batch, find the poison event.
    Data,
    /// Another transaction inserted the key first: send the group commit again.
    LostRace,
    /// A lock, a deadlock, a cancelled statement: nothing was written; retry with jitter.
    Contention,
    /// The store has run out of disk, memory or connections: nothing was written; back off, not ready.
    Resources,
    /// The store takes no writes: close every connection, not ready.
    ReadOnly,
    /// The outcome of the commit is unknown: reconnect and send the same group commit again.
    Ambiguous,
    /// The call never reached the store: back off and retry.
    NotSent,
    /// A prepared statement is no longer valid: close the connection, send again.
    StalePlan,
    /// Wrong password, missing database or privilege, a foreign schema: at start, retrying does not help.
    Configuration,
    /// Anything else: treated as ambiguous, a limited number of times.
    Unexpected,
}

impl ErrorClass {
    /// All classes.
    pub const ALL: [ErrorClass; 10] = [
        ErrorClass::Data,
        ErrorClass::LostRace,
        ErrorClass::Contention,
        ErrorClass::Resources,
        ErrorClass::ReadOnly,
        ErrorClass::Ambiguous,
        ErrorClass::NotSent,
        ErrorClass::StalePlan,
        ErrorClass::Configuration,
        ErrorClass::Unexpected,
    ];

    /// Whether the group commit may have been committed all the same.
    pub fn is_ambiguous(self) -> bool {
        matches!(self, ErrorClass::Ambiguous | ErrorClass::Unexpected)
    }

    /// Whether the connection must be closed: its state is unknown, or it is useless. A new connection is cheap compared with a
    /// group commit, so a connection is kept only after errors that surely leave the session intact.
    pub fn breaks_connection(self) -> bool {
        !matches!(self, ErrorClass::Data | ErrorClass::LostRace | ErrorClass::Contention)
    }

    /// The name in logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            ErrorClass::Data => "data",
            ErrorClass::LostRace => "lost_race",
            ErrorClass::Contention => "contention",
            ErrorClass::Resources => "resources",
            ErrorClass::ReadOnly => "read_only",
            ErrorClass::Ambiguous => "ambiguous",
            ErrorClass::NotSent => "not_sent",
            ErrorClass::StalePlan => "stale_plan",
            ErrorClass::Configuration => "configuration",
            ErrorClass::Unexpected => "unexpected",
        }
    }
}

/// An error of the store. Its text is for logs, never for answers: it may contain a host name or SQL.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{context}")]
pub struct StoreError {
    /// What the caller may do next.
    pub class: ErrorClass,
    context: String,
    #[source]
    source: Option<Arc<dyn std::error::Error + Send + Sync>>,
}

impl StoreError {
    /// An error of this class. `context` says what failed or what is wrong.
    pub fn new(class: ErrorClass, context: impl Into<String>) -> Self {
        Self {
            class,
            context: context.into(),
            source: None,
        }
    }

    /// The same error with its cause.
    pub fn with_source(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.source = Some(source.into().into());
        self
    }

    /// The same error as another class.
    pub fn as_class(mut self, class: ErrorClass) -> Self {
        self.class = class;
        self
    }

    /// The same error, before anything was sent: nothing can have been stored, so it is not ambiguous.
    pub fn before_sending(mut self) -> Self {
        if self.class.is_ambiguous() {
            self.class = ErrorClass::NotSent;
        }
        self
    }

    /// The context and the cause in one line for the log.
    pub fn line(&self) -> String {
        match &self.source {
            Some(source) => format!("{}: {source}", self.context),
            None => self.context.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_has_context_and_cause() {
        let error = StoreError::new(ErrorClass::Contention, "failed to commit a batch");
        assert_eq!(error.line(), "failed to commit a batch");
        assert_eq!(
            error.with_source("deadlock detected").line(),
            "failed to commit a batch: deadlock detected"
        );
    }
}
