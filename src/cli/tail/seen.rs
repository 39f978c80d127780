//! Which events beyond the position of the cursor read were printed.

use std::collections::HashSet;

/// How many cursors are kept before the position is moved on, so that they can be forgotten: some 10 MB.
const SEEN_MAX: usize = 100_000;

/// The position of the cursor read, and the printed events beyond it.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    position: String,
    beyond: HashSet<Box<str>>,
}

impl Seen {
    /// Everything up to `position` is seen.
    pub(crate) fn up_to(position: String) -> Self {
        Self {
            position,
            beyond: HashSet::new(),
        }
    }

    /// Where the cursor read goes on.
    pub(crate) fn position(&self) -> &str {
        &self.position
    }

    /// Takes the event at `cursor`, which the channel brought, and says whether it is new.
    pub(crate) fn is_new(&mut self, cursor: &str) -> bool {
        cursor > self.position.as_str() && self.beyond.insert(cursor.into())
    }

    /// Takes the event at `cursor`, which the cursor read returned, and says whether it is new. The cursor read does not return it again.
    pub(crate) fn is_new_in_scan(&mut self, cursor: &str) -> bool {
        cursor > self.position.as_str() && !self.beyond.remove(cursor)
    }

    /// The cursor read has returned everything up to `position`.
    pub(crate) fn scanned_to(&mut self, position: String) {
        self.position = position.max(std::mem::take(&mut self.position));
    }

    /// Forgets events that the cursor read has passed without returning them: they were deleted meanwhile.
    pub(crate) fn forget_what_is_behind(&mut self) {
        self.beyond.retain(|cursor| **cursor > *self.position);
    }

    /// Whether it is time for the cursor read to move on.
    pub(crate) fn is_full(&self) -> bool {
        self.beyond.len() > SEEN_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_new_only_once() {
        let mut seen = Seen::up_to("2".to_owned());
        assert!(!seen.is_new("1") && !seen.is_new("2"));
        assert!(seen.is_new("5"));
        assert!(!seen.is_new("5"));
        assert!(seen.is_new_in_scan("3"));
        assert!(!seen.is_new_in_scan("5"));
        seen.scanned_to("5".to_owned());
        assert!(!seen.is_new("3") && !seen.is_new("5") && seen.is_new("6"));
        assert_eq!(seen.position(), "5");
    }

    #[test]
    fn events_behind_the_position_take_no_memory() {
        let mut seen = Seen::default();
        for number in 0..=SEEN_MAX {
            assert!(!seen.is_full());
            assert!(seen.is_new(&format!("{number:06}")));
        }
        assert!(seen.is_full());
        seen.scanned_to("050000".to_owned());
        seen.forget_what_is_behind();
        assert_eq!(seen.beyond.len(), SEEN_MAX - 50_000);
    }
}
