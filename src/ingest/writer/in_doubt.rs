//! What is known of a flush that has no answer yet.

use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use crate::ingest::queue::Seated;
use crate::metrics::CommitOutcome;
use crate::store::ErrorClass;

/// A flush whose first attempt is older is never sent again: its ledger row may be gone, and a second copy of its counts
/// could not be told. A process that was frozen comes back to this.
const FLUSH_AGE_MAX: Duration = Duration::from_secs(600);

/// How often an error that nobody knows is met before the flush is given up.
const UNEXPECTED_MAX: u32 = 5;

/// Why a flush has no verdicts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Failure {
    /// Surely nothing was stored; it may be tried again.
    Definite,
    /// Surely nothing was stored; the store refuses something in it.
    Refused,
    /// Nobody knows.
    Unknown,
}

impl Failure {
    /// How the flush has ended.
    pub(super) fn end(self) -> CommitOutcome {
        match self {
            Failure::Definite => CommitOutcome::Retry,
            Failure::Refused => CommitOutcome::Poison,
            Failure::Unknown => CommitOutcome::Unknown,
        }
    }
}

/// What is known about the attempts of one flush.
#[derive(Debug, Default)]
pub(super) struct Doubt {
    /// When the first attempt failed whose outcome is unknown, by both clocks: the monotonic one stands still while a
    /// machine sleeps, the other may be set back.
    since: Option<(Instant, SystemTime)>,
    unexpected: u32,
}

impl Doubt {
    #[expect(
        clippy::disallowed_methods,
        reason = "a frozen machine is told by the wall clock alone"
    )]
    pub(super) fn note(&mut self, class: ErrorClass) {
        if class.is_ambiguous() {
            self.since.get_or_insert_with(|| (Instant::now(), SystemTime::now()));
        }
        self.unexpected += u32::from(class == ErrorClass::Unexpected);
    }

    /// Once an attempt was ambiguous, nothing but success settles the flush.
    pub(super) fn is_ambiguous(&self) -> bool {
        self.since.is_some()
    }

    /// Whether to give up: nobody waits any more, it is too old, or the error is one that nobody knows, again and again.
    pub(super) fn is_over(&self, group: &[Seated]) -> bool {
        let age = self.since.map_or(Duration::ZERO, |(monotonic, wall)| {
            monotonic.elapsed().max(wall.elapsed().unwrap_or_default())
        });
        let nobody_waits = group.iter().all(|(_, work)| work.is_late());
        self.unexpected >= UNEXPECTED_MAX || age >= FLUSH_AGE_MAX || nobody_waits
    }
}
