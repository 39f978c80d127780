//! Topic, event id and source: the short texts of an event.

use std::fmt;

use bytestring::ByteString;

use crate::event::validation_error::{ValidationError, ValidationErrorKind};

/// The most bytes of UTF-8 in a topic, an event id or a source. Two of them together stay far below the 2704 bytes that a key of
/// a PostgreSQL index can hold.
pub const NAME_BYTES_MAX: usize = 255;

/// Whether a name may contain white space (Unicode `White_Space`). No name may contain control characters (Unicode `Cc`).
#[derive(Clone, Copy, PartialEq)]
enum Space {
    Allowed,
    Rejected,
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $space:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(ByteString);

        impl $name {
            /// Takes a valid text as it is: nothing is trimmed, folded or normalised. Otherwise returns the first error.
            pub fn parse(text: impl Into<ByteString>) -> Result<Self, ValidationError> {
                let text = text.into();
                check(&text, $space)?;
                Ok(Self(text))
            }

            /// Takes a text from the store, unchecked: it was parsed before it was stored.
            pub fn from_stored(text: impl Into<ByteString>) -> Self {
                Self(text.into())
            }

            /// The text. Names sort byte by byte.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(self.as_str(), f)
            }
        }
    };
}

name!(
    /// The kind of event: 1 to 255 bytes of UTF-8, without white space and control characters.
    Topic,
    Space::Rejected
);
name!(
    /// The client's name for an event: 1 to 255 bytes of UTF-8, not all blank, without control characters.
    EventId,
    Space::Allowed
);
name!(
    /// The publisher of an event: 1 to 255 bytes of UTF-8, not all blank, without control characters.
    Source,
    Space::Allowed
);

fn check(text: &str, space: Space) -> Result<(), ValidationError> {
    if text.is_empty() {
        return Err(ValidationError::new(
            ValidationErrorKind::StringTooShort,
            "String should have at least 1 byte",
        ));
    }
    if text.len() > NAME_BYTES_MAX {
        return Err(ValidationError::new(
            ValidationErrorKind::StringTooLong,
            format!("String should have at most {NAME_BYTES_MAX} bytes"),
        ));
    }
    if text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Ok(());
    }
    if text.contains(char::is_control) {
        return Err(mismatch("String should have no control characters"));
    }
    if space == Space::Rejected && text.contains(char::is_whitespace) {
        return Err(mismatch("String should have no white space"));
    }
    if text.chars().all(char::is_whitespace) {
        return Err(mismatch("String should not be blank"));
    }
    Ok(())
}

fn mismatch(msg: &'static str) -> ValidationError {
    ValidationError::new(ValidationErrorKind::StringPatternMismatch, msg)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds(text: &str) -> [Option<ValidationErrorKind>; 3] {
        [
            Topic::parse(text).err().map(|error| error.kind),
            EventId::parse(text).err().map(|error| error.kind),
            Source::parse(text).err().map(|error| error.kind),
        ]
    }

    #[test]
    fn a_name_has_1_to_255_bytes_of_utf_8() {
        assert_eq!(kinds(""), [Some(ValidationErrorKind::StringTooShort); 3]);
        assert_eq!(kinds("a"), [None; 3]);
        assert_eq!(kinds(&"a".repeat(255)), [None; 3]);
        assert_eq!(kinds(&"a".repeat(256)), [Some(ValidationErrorKind::StringTooLong); 3]);
        assert_eq!(kinds(&format!("{}a", "é".repeat(127))), [None; 3]);
        assert_eq!(kinds(&"é".repeat(128)), [Some(ValidationErrorKind::StringTooLong); 3]);
    }

    #[test]
    fn rejects_control_characters() {
        for control in (0..=0x1f).chain(0x7f..=0x9f).filter_map(char::from_u32) {
            let text = format!("a{control}b");
            assert_eq!(
                kinds(&text),
                [Some(ValidationErrorKind::StringPatternMismatch); 3],
                "{text:?}"
            );
        }
        assert_eq!(kinds("a~b"), [None; 3]);
        assert_eq!(kinds("a¡b"), [None; 3]);
    }

    #[test]
    fn rejects_white_space_in_topics_only() {
        for space in [
            ' ', '\u{a0}', '\u{1680}', '\u{2003}', '\u{2028}', '\u{2029}', '\u{3000}',
        ] {
            for text in [format!("a{space}b"), format!("{space}a"), format!("a{space}")] {
                assert_eq!(
                    kinds(&text),
                    [Some(ValidationErrorKind::StringPatternMismatch), None, None],
                    "{text:?}"
                );
            }
        }
    }

    #[test]
    fn keeps_and_sorts_names_byte_by_byte() {
        for text in [
            "a ",
            " a",
            "É",
            "e\u{301}",
            "\u{e9}",
            "'; drop table events; --",
            "*",
            "\u{202e}x",
            "😀",
        ] {
            assert_eq!(EventId::parse(text).unwrap().as_str(), text);
            assert_eq!(EventId::parse(text).unwrap().to_string(), text);
        }
        let mut topics = ["é", "Z", "a", "😀", "\u{ffff}"].map(|text| Topic::parse(text).unwrap());
        topics.sort();
        assert_eq!(topics.map(|topic| topic.to_string()), ["Z", "a", "é", "\u{ffff}", "😀"]);
    }
}
