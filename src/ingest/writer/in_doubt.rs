//! What is known about a group commit that has no outcome yet.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use crate::ingest::pending::PendingRequest;
use crate::store::ErrorClass;

/// A group commit whose first ambiguous attempt is older is never sent again: its row in the commit ledger may have been pruned,
/// and then a second copy of its counts could not be recognised. This protects against a process that was frozen.
const AGE_MAX: Duration = Duration::from_secs(600);

/// How many unexpected errors end the attempts.
const UNEXPECTED_MAX: u32 = 5;

/// What is known about the attempts of one group commit.
#[derive(Debug, Default)]
pub(super) struct InDoubtCommit {
    /// When the first attempt failed whose outcome is unknown, by both clocks: the monotonic one stands still while a
    /// machine sleeps, the other may be set back.
    since: Option<(Instant, SystemTime)>,
    unexpected: u32,
}

impl InDoubtCommit {
    /// Takes note of a failed attempt.
    #[expect(
        clippy::disallowed_methods,
        reason = "only the wall clock shows that the machine was frozen"
    )]
    pub(super) fn note(&mut self, class: ErrorClass) {
        if class.is_ambiguous() {
            self.since.get_or_insert_with(|| (Instant::now(), SystemTime::now()));
        }
        self.unexpected += u32::from(class == ErrorClass::Unexpected);
    }

    /// Whether an attempt was ambiguous: then only a later success shows the outcome.
    pub(super) fn is_ambiguous(&self) -> bool {
        self.since.is_some()
    }

    /// Whether to give up: all clients were answered at their deadlines, the first attempt is too old, or unexpected errors go
    /// on.
    pub(super) fn is_over(&self, requests: &[Arc<PendingRequest>]) -> bool {
        let age = self.since.map_or(Duration::ZERO, |(monotonic, wall)| {
            monotonic.elapsed().max(wall.elapsed().unwrap_or_default())
        });
        let all_late = requests.iter().all(|request| request.is_late());
        self.unexpected >= UNEXPECTED_MAX || age >= AGE_MAX || all_late
    }
}
