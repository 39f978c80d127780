//! Numbers that may be known within bounds only.

use std::fmt;

/// A number that is known to lie between two bounds, and mostly is known exactly.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// The lower bound.
    pub low: u64,
    /// The upper bound, which may be reached.
    pub high: u64,
}

impl Span {
    /// The number is `number`.
    #[must_use]
    pub fn exactly(number: u64) -> Self {
        Self {
            low: number,
            high: number,
        }
    }

    /// Adds a number of which these two bounds are known.
    pub fn add(&mut self, low: u64, high: u64) {
        self.low += low;
        self.high += high;
    }

    /// Whether the number may be `number`.
    #[must_use]
    pub fn contains(self, number: u64) -> bool {
        (self.low..=self.high).contains(&number)
    }
}

impl fmt::Display for Span {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.low == self.high {
            return self.low.fmt(out);
        }
        out.pad(&format!("{} to {}", self.low, self.high))
    }
}
