//! Labels with a fixed set of values, so that the number of series is fixed.

/// The outcome of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutcomeLabel {
    /// New, and stored.
    Stored,
    /// Stored before.
    Duplicate,
    /// Stored before with another payload.
    Conflict,
    /// Invalid.
    Rejected,
    /// Answered 503.
    Unavailable,
    /// Answered 504.
    Unknown,
}

impl OutcomeLabel {
    pub(super) const ALL: [OutcomeLabel; 6] = [
        OutcomeLabel::Stored,
        OutcomeLabel::Duplicate,
        OutcomeLabel::Conflict,
        OutcomeLabel::Rejected,
        OutcomeLabel::Unavailable,
        OutcomeLabel::Unknown,
    ];

    pub(super) fn as_str(self) -> &'static str {
        match self {
            OutcomeLabel::Stored => "stored",
            OutcomeLabel::Duplicate => "duplicate",
            OutcomeLabel::Conflict => "conflict",
            OutcomeLabel::Rejected => "rejected",
            OutcomeLabel::Unavailable => "unavailable",
            OutcomeLabel::Unknown => "unknown",
        }
    }
}

/// The path by which an event is published to the sink.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PublishPath {
    /// From memory, right after its commit.
    Fast,
    /// From the outbox.
    CatchUp,
}

impl PublishPath {
    pub(super) const ALL: [PublishPath; 2] = [PublishPath::Fast, PublishPath::CatchUp];

    pub(super) fn as_str(self) -> &'static str {
        match self {
            PublishPath::Fast => "fast",
            PublishPath::CatchUp => "catch_up",
        }
    }
}

/// The outcome of a group commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CommitOutcome {
    /// Committed.
    Committed,
    /// The store rejects an event of the batch.
    Poison,
    /// Certainly nothing was stored.
    Retry,
    /// Given up: the outcome is unknown.
    Unknown,
}

impl CommitOutcome {
    pub(super) const ALL: [CommitOutcome; 4] = [
        CommitOutcome::Committed,
        CommitOutcome::Poison,
        CommitOutcome::Retry,
        CommitOutcome::Unknown,
    ];

    pub(super) fn as_str(self) -> &'static str {
        match self {
            CommitOutcome::Committed => "committed",
            CommitOutcome::Poison => "poison",
            CommitOutcome::Retry => "retry",
            CommitOutcome::Unknown => "unknown",
        }
    }
}
