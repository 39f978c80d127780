//! What some labels may say. Nothing else stands in them, so the number of series is fixed.

/// What becomes of events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutcomeLabel {
    /// New, and stored.
    Stored,
    /// There already.
    Duplicate,
    /// There already, with another payload.
    Conflict,
    /// Against a rule.
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

/// How an event gets to the fan-out.
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

/// How a flush ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CommitOutcome {
    /// It is in the store.
    Committed,
    /// The store refuses an event of it.
    Poison,
    /// Surely nothing was stored.
    Retry,
    /// Nobody knows.
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
