//! What a failure of a store means.

use std::sync::Arc;

/// What kind of failure it was: the only judge of what may be done next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorClass {
    /// A row cannot be kept: never retry the whole, find the culprit.
    Data,
    /// A race for a key was lost: send the flush again.
    LostRace,
    /// Locks, deadlocks, a cancelled statement: nothing was written; retry with jitter.
    Contention,
    /// The store is full or short of something: nothing was written; back off, not ready.
    Resources,
    /// It takes no writes: close every connection, not ready.
    ReadOnly,
    /// It may have committed or not: reconnect and send the same flush again.
    Ambiguous,
    /// It never reached the store: back off and retry.
    NotSent,
    /// A prepared statement is no longer good: close the connection, send again.
    StalePlan,
    /// Wrong password, missing database or privilege, a schema that is not ours: retrying is no use at start.
    Configuration,
    /// Anything else: treated as ambiguous, a bounded number of times.
    Unexpected,
}

impl ErrorClass {
    /// All of them.
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

    /// Whether the flush may have been committed all the same.
    #[must_use]
    pub fn is_ambiguous(self) -> bool {
        matches!(self, ErrorClass::Ambiguous | ErrorClass::Unexpected)
    }

    /// Whether the connection that met it must be closed: its state is unknown, or it is of no more use. A new one is cheap
    /// beside a flush, so only the classes that leave a session surely intact keep theirs.
    #[must_use]
    pub fn breaks_connection(self) -> bool {
        !matches!(self, ErrorClass::Data | ErrorClass::LostRace | ErrorClass::Contention)
    }

    /// The name that logs and metrics bear.
    #[must_use]
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

/// A failure of the store. Its text is for logs, never for answers: it may name a host or hold SQL.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{context}")]
pub struct StoreError {
    /// What may be done next.
    pub class: ErrorClass,
    context: String,
    #[source]
    source: Option<Arc<dyn std::error::Error + Send + Sync>>,
}

impl StoreError {
    /// An error of this class, with what was being done or is wrong.
    pub fn new(class: ErrorClass, context: impl Into<String>) -> Self {
        Self {
            class,
            context: context.into(),
            source: None,
        }
    }

    /// The same, caused by `source`.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.source = Some(source.into().into());
        self
    }

    /// The same failure, met where it means `class`.
    #[must_use]
    pub fn as_class(mut self, class: ErrorClass) -> Self {
        self.class = class;
        self
    }

    /// The same, met before a flush was sent: whatever it was, nothing of the flush can have been stored.
    #[must_use]
    pub fn before_sending(mut self) -> Self {
        if self.class.is_ambiguous() {
            self.class = ErrorClass::NotSent;
        }
        self
    }

    /// What was being done and what went wrong, in one line for the log.
    #[must_use]
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
    fn an_error_says_in_one_line_what_was_done_and_why_it_failed() {
        let error = StoreError::new(ErrorClass::Contention, "flushing");
        assert_eq!(error.line(), "flushing");
        assert_eq!(
            error.with_source("deadlock detected").line(),
            "flushing: deadlock detected"
        );
    }
}
