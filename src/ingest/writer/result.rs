//! How the attempt to commit a batch ends.

use tokio::time::Instant;

use crate::metrics::CommitOutcome;
use crate::store::Appended;

/// A batch that was committed, and the lease that it was committed under.
#[derive(Debug)]
pub(super) struct CommittedBatch {
    pub(super) appended: Appended,
    /// When the group commit began.
    pub(super) since: Instant,
    /// Whether a lease keeps other relays away from the batch.
    pub(super) is_leased: bool,
}

/// Why a batch was not committed, or may not have been.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CommitFailure {
    /// Certainly nothing was stored; the requests may be tried again.
    NotStored,
    /// Certainly nothing was stored; the store rejects an event of the batch.
    Poison,
    /// The outcome is unknown, and the batch was given up.
    Unknown,
}

impl CommitFailure {
    /// The outcome as the metrics name it.
    pub(super) fn outcome(self) -> CommitOutcome {
        match self {
            CommitFailure::NotStored => CommitOutcome::Retry,
            CommitFailure::Poison => CommitOutcome::Poison,
            CommitFailure::Unknown => CommitOutcome::Unknown,
        }
    }
}
