//! A position in the log.

use std::fmt;

use serde::{Serialize, Serializer};

use crate::event::validation_error::{ValidationError, ValidationErrorKind};

const BATCH_DIGITS: usize = 16;
const POSITION_DIGITS: usize = 8;

/// The position of an event in the log. Clients see an opaque text of fixed width; texts and cursors sort the same, in the order
/// of the log.
///
/// The store defines `batch` and `position`, but every event has a cursor after [`Cursor::BEGINNING`]: batches count from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cursor {
    batch: i64,
    position: i32,
}

impl Cursor {
    /// Before every event.
    pub const BEGINNING: Self = Self { batch: 0, position: 0 };

    /// The pattern that exactly the texts of cursors match: two numbers that are not negative.
    pub const PATTERN: &str = "[0-7][0-9a-f]{15}[0-7][0-9a-f]{7}";

    /// The event at `position` in `batch`. Negative numbers are taken as 0.
    pub fn new(batch: i64, position: i32) -> Self {
        Self {
            batch: batch.max(0),
            position: position.max(0),
        }
    }

    /// The batch, 0 or more.
    pub fn batch(self) -> i64 {
        self.batch
    }

    /// The position in the batch, 0 or more.
    pub fn position(self) -> i32 {
        self.position
    }

    /// Reads the text that `Display` writes, and no other.
    pub fn parse(text: &str) -> Result<Self, ValidationError> {
        read(text).ok_or_else(|| {
            ValidationError::new(
                ValidationErrorKind::CursorInvalid,
                "Input should be a cursor from an earlier response",
            )
        })
    }
}

fn read(text: &str) -> Option<Cursor> {
    let lower_hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    if text.len() != BATCH_DIGITS + POSITION_DIGITS || !text.bytes().all(lower_hex) {
        return None;
    }
    let (batch, position) = text.split_at(BATCH_DIGITS);
    Some(Cursor {
        batch: i64::from_str_radix(batch, 16).ok()?,
        position: i32::from_str_radix(position, 16).ok()?,
    })
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:0BATCH_DIGITS$x}{:0POSITION_DIGITS$x}", self.batch, self.position)
    }
}

impl Serialize for Cursor {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn writes_a_text_of_fixed_width() {
        for (cursor, text) in [
            (Cursor::BEGINNING, "000000000000000000000000"),
            (Cursor::new(1, 0), "000000000000000100000000"),
            (Cursor::new(i64::MAX, i32::MAX), "7fffffffffffffff7fffffff"),
        ] {
            assert_eq!(cursor.to_string(), text);
            assert_eq!(Cursor::parse(text), Ok(cursor));
        }
        assert_eq!(
            serde_json::to_string(&Cursor::new(10, 11)).unwrap(),
            r#""000000000000000a0000000b""#
        );
    }

    #[test]
    fn rejects_any_other_text() {
        for text in [
            "",
            "0",
            "00000000000000010000000",
            "0000000000000001000000000",
            "000000000000000A00000000",
            "+00000000000000100000000",
            "0000000000000001+0000000",
            "-00000000000000100000000",
            "800000000000000000000000",
            "000000000000000180000000",
            "ffffffffffffffffffffffff",
            " 0000000000000010000000 ",
            "0000000000000001000000é",
            "00000000000000é100000000",
        ] {
            assert_eq!(
                Cursor::parse(text).unwrap_err().kind,
                ValidationErrorKind::CursorInvalid,
                "{text:?}"
            );
        }
    }

    #[test]
    fn takes_negative_numbers_as_the_beginning() {
        assert_eq!(Cursor::new(-1, -1), Cursor::BEGINNING);
        assert_eq!(Cursor::new(-1, i32::MAX), Cursor::new(0, i32::MAX));
    }

    proptest! {
        #[test]
        fn texts_and_cursors_sort_the_same(a in 0..=i64::MAX, b in 0..=i64::MAX, m in 0..=i32::MAX, n in 0..=i32::MAX) {
            for (one, other) in [((a, m), (b, n)), ((a, m), (a, n))] {
                let (one, other) = (Cursor::new(one.0, one.1), Cursor::new(other.0, other.1));
                prop_assert_eq!(one.cmp(&other), one.to_string().cmp(&other.to_string()));
                prop_assert_eq!(Cursor::parse(&one.to_string()), Ok(one));
                prop_assert!(Cursor::BEGINNING <= one);
            }
        }

        #[test]
        fn only_the_text_of_a_cursor_is_read(text in "[0-9a-fA-F+]{24}") {
            if let Ok(cursor) = Cursor::parse(&text) {
                prop_assert_eq!(cursor.to_string(), text);
            }
        }
    }
}
