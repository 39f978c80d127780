//! The three short texts of an event.

use std::fmt;

use bytestring::ByteString;

use crate::event::validation_error::{Breach, ValidationErrorKind};

/// The most bytes of UTF-8 that a topic, an event id or a source may have. Two of them together stay far below the 2704 bytes that a key of a
/// PostgreSQL index can hold.
pub const NAME_BYTES_MAX: usize = 255;

/// Whether a name may have white space (Unicode `White_Space`) in it. Control characters (Unicode `Cc`) none may have.
#[derive(Clone, Copy, PartialEq)]
enum Space {
    Allowed,
    Refused,
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $space:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(ByteString);

        impl $name {
            /// Takes a text that keeps the rules as it is: nothing is trimmed, folded or normalised. Else the first rule that it breaks.
            pub fn parse(text: impl Into<ByteString>) -> Result<Self, Breach> {
                let text = text.into();
                check(&text, $space)?;
                Ok(Self(text))
            }

            /// Takes, unchecked, what a store gives back: it was parsed before it was stored.
            pub fn from_stored(text: impl Into<ByteString>) -> Self {
                Self(text.into())
            }

            /// The text. It sorts byte by byte.
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
    /// What kind of thing happened: 1 to 255 bytes of UTF-8, without white space and control characters.
    Topic,
    Space::Refused
);
name!(
    /// The client's name for an event: 1 to 255 bytes of UTF-8, without control characters.
    EventId,
    Space::Allowed
);
name!(
    /// Who published an event: 1 to 255 bytes of UTF-8, without control characters.
    Source,
    Space::Allowed
);

fn check(text: &str, space: Space) -> Result<(), Breach> {
    if text.is_empty() {
        return Err(Breach::new(
            ValidationErrorKind::StringTooShort,
            "String should have at least 1 byte",
        ));
    }
    if text.len() > NAME_BYTES_MAX {
        return Err(Breach::new(
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
    if space == Space::Refused && text.contains(char::is_whitespace) {
        return Err(mismatch("String should have no white space"));
    }
    Ok(())
}

fn mismatch(msg: &'static str) -> Breach {
    Breach::new(ValidationErrorKind::StringPatternMismatch, msg)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds(text: &str) -> [Option<ValidationErrorKind>; 3] {
        [
            Topic::parse(text).err().map(|breach| breach.kind),
            EventId::parse(text).err().map(|breach| breach.kind),
            Source::parse(text).err().map(|breach| breach.kind),
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
    fn control_characters_are_refused_everywhere() {
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
    fn white_space_is_refused_in_a_topic_alone() {
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
    fn a_name_comes_back_byte_for_byte_and_sorts_byte_by_byte() {
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
