//! What became of the lines.

use crate::api::publish::{EventResult, EventStatus, PublishAnswer};
use crate::cli::progress::Done;
use crate::cli::table::{count, values};

/// How many events have which outcome.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) stored: u64,
    /// Without the conflicting ones.
    pub(crate) duplicate: u64,
    pub(crate) conflicting: u64,
    pub(crate) rejected: u64,
    /// Their last attempt got no answer, or an earlier one did not, and they were given up.
    pub(crate) unknown: u64,
    /// Sent again after an attempt without answer, counted once for each time.
    pub(crate) resent: u64,
}

impl Tally {
    /// Counts the results of an answer to a request of so many events. Gives back the results of rejected events, or nothing if the
    /// answer does not have one result for each event.
    pub(crate) fn answered<'a>(
        &mut self,
        events: usize,
        answer: &'a PublishAnswer<'_>,
    ) -> Option<Vec<&'a EventResult<'a>>> {
        let results = answer.results.as_deref().unwrap_or_default();
        if results.len() != events {
            return None;
        }
        let mut rejected = Vec::new();
        for result in results {
            match result {
                EventResult::Received(received) => match received.status {
                    EventStatus::Stored => self.stored += 1,
                    EventStatus::Duplicate => self.duplicate += 1,
                    EventStatus::Conflict => self.conflicting += 1,
                },
                EventResult::Rejected(_) => {
                    self.rejected += 1;
                    rejected.push(result);
                }
            }
        }
        Some(rejected)
    }

    /// How many events are accounted for.
    fn events(&self) -> u64 {
        self.stored + self.duplicate + self.conflicting + self.rejected + self.unknown
    }

    /// How far the run is.
    pub(crate) fn done(&self) -> Done {
        Done {
            events: self.events(),
            details: format!("{} stored", count(self.stored)),
        }
    }

    /// The table that a run of so many events ends with.
    pub(crate) fn table(&self, events: u64) -> String {
        let mut rows = vec![
            ("stored", self.stored),
            ("duplicate", self.duplicate),
            ("conflicting", self.conflicting),
            ("rejected", self.rejected),
            ("not sent", events.saturating_sub(self.events())),
        ];
        let rare = [("outcome unknown", self.unknown), ("resent", self.resent)];
        rows.extend(rare.into_iter().filter(|(_, number)| *number > 0));
        values(rows.into_iter().map(|(label, number)| (label, count(number))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_accounted_for_was_not_sent() {
        let mut tally = Tally {
            stored: 1000,
            rejected: 1,
            ..Tally::default()
        };
        assert_eq!(
            tally.table(1011),
            "stored       1,000\nduplicate        0\nconflicting      0\nrejected         1\nnot sent        10\n"
        );
        tally.unknown = 10;
        assert!(
            tally
                .table(1011)
                .ends_with("not sent             0\noutcome unknown     10\n")
        );
    }
}
