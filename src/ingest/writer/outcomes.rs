//! The outcome of a group commit: for each event, and in numbers.

use std::time::Duration;

use crate::ingest::submission::EventOutcome;
use crate::metrics::Commit;
use crate::store::{Appended, Batch, Outcome};

/// How many events of each outcome a batch had. Of the copies in one stored row the first counts as stored.
pub(super) fn commit_of(batch: &Batch, appended: &Appended, latency: Duration) -> Commit {
    let mut commit = Commit {
        stored: 0,
        duplicates: 0,
        conflicts: 0,
        latency,
    };
    for (row, outcome) in batch.rows().iter().zip(&appended.outcomes) {
        let copies = u64::from(row.copies);
        match outcome {
            Outcome::Stored(_) => {
                commit.stored += 1;
                commit.duplicates += copies - 1;
            }
            Outcome::Duplicate(_) => commit.duplicates += copies,
            Outcome::Conflict(_) => commit.conflicts += copies,
        }
    }
    commit
}

/// The outcome of each event, in the order of their arrival.
pub(super) fn outcomes(batch: &Batch, row_of: &[u32], appended: &Appended) -> Vec<EventOutcome> {
    let outcome = |(index, row): (u32, &u32)| {
        let row = *row as usize;
        match appended.outcomes[row] {
            // A copy that was folded into the row of the first.
            Outcome::Stored(first) if batch.rows()[row].position != index => EventOutcome::Duplicate(first),
            outcome => outcome.into(),
        }
    };
    (0u32..).zip(row_of).map(outcome).collect()
}
