//! Which events beyond the position of the walk were printed.

use std::collections::HashSet;

/// How many cursors are kept before the position is moved on, so that they can be forgotten: some 10 MB.
const SEEN_MAX: usize = 100_000;

/// Where the walk is, and what was printed of what it has not shown yet.
#[derive(Debug, Default)]
pub struct Seen {
    position: String,
    beyond: HashSet<Box<str>>,
}

impl Seen {
    /// Everything up to `position` is seen.
    #[must_use]
    pub fn up_to(position: String) -> Self {
        Self {
            position,
            beyond: HashSet::new(),
        }
    }

    /// Where the walk goes on.
    #[must_use]
    pub fn position(&self) -> &str {
        &self.position
    }

    /// Takes the event at `cursor`, which the channel brought, and says whether it is new.
    pub fn is_new(&mut self, cursor: &str) -> bool {
        cursor > self.position.as_str() && self.beyond.insert(cursor.into())
    }

    /// Takes the event at `cursor`, which the walk shows, and says whether it is new. The walk does not show it again.
    pub fn is_new_in_walk(&mut self, cursor: &str) -> bool {
        cursor > self.position.as_str() && !self.beyond.remove(cursor)
    }

    /// The walk has shown everything up to `position`.
    pub fn walked_to(&mut self, position: String) {
        self.position = position.max(std::mem::take(&mut self.position));
    }

    /// Forgets what the walk has passed without showing it: it was deleted meanwhile.
    pub fn forget_what_is_behind(&mut self) {
        self.beyond.retain(|cursor| **cursor > *self.position);
    }

    /// Whether it is time for the walk to move on.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.beyond.len() > SEEN_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_new_once_whoever_brings_it_first() {
        let mut seen = Seen::up_to("2".to_owned());
        assert!(!seen.is_new("1") && !seen.is_new("2"));
        assert!(seen.is_new("5"));
        assert!(!seen.is_new("5"));
        assert!(seen.is_new_in_walk("3"));
        assert!(!seen.is_new_in_walk("5"));
        seen.walked_to("5".to_owned());
        assert!(!seen.is_new("3") && !seen.is_new("5") && seen.is_new("6"));
        assert_eq!(seen.position(), "5");
    }

    #[test]
    fn what_is_behind_the_position_takes_no_memory() {
        let mut seen = Seen::default();
        for number in 0..=SEEN_MAX {
            assert!(!seen.is_full());
            assert!(seen.is_new(&format!("{number:06}")));
        }
        assert!(seen.is_full());
        seen.walked_to("050000".to_owned());
        seen.forget_what_is_behind();
        assert_eq!(seen.beyond.len(), SEEN_MAX - 50_000);
    }
}
