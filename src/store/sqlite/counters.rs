//! The counters of topics.

use rusqlite::{Connection, params};

use crate::event::Event;
use crate::store::{Counts, Outcome};

const COUNT_EVENTS: &str = include_str!("sql/count_events.sql");
const ADD_TO_TOTALS: &str = include_str!("sql/add_to_totals.sql");

/// What a batch adds to the counters, by topic. The rows of a batch are sorted by topic.
#[derive(Default)]
pub(super) struct Counters<'a>(Vec<(&'a str, Counts)>);

impl<'a> Counters<'a> {
    /// Adds to the counters of the store. `micros`: when the batch was received.
    pub(super) fn write(&self, connection: &Connection, micros: i64) -> rusqlite::Result<()> {
        let mut count = connection.prepare_cached(COUNT_EVENTS)?;
        let (mut all, mut new_topics) = (Counts::default(), 0);
        for (topic, counts) in &self.0 {
            let Counts {
                received,
                unique_processed,
                duplicate_dropped,
                conflicts,
                ..
            } = counts;
            let stored_at = (*unique_processed > 0).then_some(micros);
            let is_new: bool = count.query_row(
                params![
                    topic,
                    received,
                    unique_processed,
                    duplicate_dropped,
                    conflicts,
                    stored_at
                ],
                |row| row.get(0),
            )?;
            new_topics += i64::from(is_new);
            all.received += received;
            all.unique_processed += unique_processed;
            all.duplicate_dropped += duplicate_dropped;
            all.conflicts += conflicts;
        }
        connection.prepare_cached(ADD_TO_TOTALS)?.execute(params![
            all.received,
            all.unique_processed,
            all.duplicate_dropped,
            all.conflicts,
            new_topics
        ])?;
        Ok(())
    }

    pub(super) fn add(&mut self, event: &'a Event, copies: i64, outcome: &Outcome) {
        if self.0.last().is_none_or(|(topic, _)| *topic != event.topic.as_str()) {
            self.0.push((event.topic.as_str(), Counts::default()));
        }
        let Some((_, counts)) = self.0.last_mut() else { return };
        let stored = i64::from(matches!(outcome, Outcome::Stored(_)));
        counts.received += copies;
        counts.unique_processed += stored;
        counts.duplicate_dropped += copies - stored;
        if matches!(outcome, Outcome::Conflict(_)) {
            counts.conflicts += copies;
        }
    }
}
