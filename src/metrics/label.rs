//! What some labels may say. Nothing else stands in them, so the number of series is fixed.

/// What becomes of events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// New, and stored.
    Stored,
    /// There already.
    Duplicate,
    /// There already, with another payload.
    Conflict,
    /// Against a rule.
    Rejected,
    /// Answered 503.
    Refused,
    /// Answered 504.
    Unknown,
}

impl Fate {
    pub(super) const ALL: [Fate; 6] = [
        Fate::Stored,
        Fate::Duplicate,
        Fate::Conflict,
        Fate::Rejected,
        Fate::Refused,
        Fate::Unknown,
    ];

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Fate::Stored => "stored",
            Fate::Duplicate => "duplicate",
            Fate::Conflict => "conflict",
            Fate::Rejected => "rejected",
            Fate::Refused => "refused",
            Fate::Unknown => "unknown",
        }
    }
}

/// How an event gets to the fan-out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// From memory, right after its commit.
    Fast,
    /// From the outbox.
    Repair,
}

impl Way {
    pub(super) const ALL: [Way; 2] = [Way::Fast, Way::Repair];

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Way::Fast => "fast",
            Way::Repair => "repair",
        }
    }
}

/// How a flush ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FlushEnd {
    /// It is in the store.
    Committed,
    /// The store will not have something in it.
    Refused,
    /// Surely nothing was stored.
    Again,
    /// Nobody knows.
    Unknown,
}

impl FlushEnd {
    pub(super) const ALL: [FlushEnd; 4] = [
        FlushEnd::Committed,
        FlushEnd::Refused,
        FlushEnd::Again,
        FlushEnd::Unknown,
    ];

    pub(super) fn as_str(self) -> &'static str {
        match self {
            FlushEnd::Committed => "committed",
            FlushEnd::Refused => "refused",
            FlushEnd::Again => "again",
            FlushEnd::Unknown => "unknown",
        }
    }
}
