//! How much is published at once: as much as the sink takes.
//!
//! A sink may cut the connection for what it is sent (Redis does with `maxmemory-clients`), and would do so again for the same. After each
//! such end half as many events are sent, down to one. An event that ends the connection alone, time and again, is the culprit.

use crate::event::{Cursor, StoredEvent};

/// So often a single event may end the connection before it is given up: a sink that is restarted cuts off some event, too.
pub(super) const CUTS_MAX: u32 = 5;

/// After so many answers in a row twice as much is sent.
const ANSWERS_FOR_MORE: u32 = 16;

/// How many events are published at once.
#[derive(Debug)]
pub(super) struct Amount {
    events_max: usize,
    answers: u32,
    /// The event that last ended the connection alone, and how often.
    cuts: Option<(Cursor, u32)>,
}

impl Default for Amount {
    fn default() -> Self {
        Self {
            events_max: usize::MAX,
            answers: 0,
            cuts: None,
        }
    }
}

impl Amount {
    pub(super) fn events_max(&self) -> usize {
        self.events_max
    }

    /// The sink has answered.
    pub(super) fn was_taken(&mut self) {
        self.answers += 1;
        if self.answers >= ANSWERS_FOR_MORE {
            self.answers = 0;
            self.events_max = self.events_max.saturating_mul(2);
        }
    }

    /// The connection ended when these were published. Returns whether the only one is to be given up.
    pub(super) fn was_too_much(&mut self, events: &[StoredEvent]) -> bool {
        self.answers = 0;
        self.events_max = (events.len() / 2).max(1);
        let [event] = events else { return false };
        let before = self.cuts.filter(|(cursor, _)| *cursor == event.cursor);
        let cuts = before.map_or(0, |(_, cuts)| cuts) + 1;
        self.cuts = Some((event.cursor, cuts));
        cuts >= CUTS_MAX
    }
}
