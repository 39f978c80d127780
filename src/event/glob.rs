//! Patterns of topics.

use std::fmt;

use crate::event::name::Topic;

/// A pattern of topics: `*` stands for any run of characters, also none; nothing else is special.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TopicGlob(String);

impl TopicGlob {
    /// Reads a pattern. `None` for a text that matches no topic because it is empty, or has white space or control characters.
    pub fn parse(text: &str) -> Option<Self> {
        let is_valid = !text.is_empty() && !text.contains(|c: char| c.is_whitespace() || c.is_control());
        is_valid.then(|| Self(text.to_owned()))
    }

    /// The pattern as it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it matches a topic.
    pub fn matches(&self, topic: &Topic) -> bool {
        matches(&self.0, topic.as_str())
    }

    /// The same pattern for SQL's `like`, with a backslash as the escape.
    pub fn like(&self) -> String {
        let mut like = String::with_capacity(self.0.len() + 8);
        for character in self.0.chars() {
            match character {
                '*' => like.push('%'),
                '%' | '_' | '\\' => like.extend(['\\', character]),
                _ => like.push(character),
            }
        }
        like
    }
}

impl fmt::Display for TopicGlob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The pieces between the stars must occur in their order, the first at the beginning and the last at the end. To take each piece
/// where it occurs first leaves the most for those behind it.
fn matches(glob: &str, text: &str) -> bool {
    let Some((first, rest)) = glob.split_once('*') else {
        return glob == text;
    };
    let Some(mut text) = text.strip_prefix(first) else {
        return false;
    };
    let (middle, last) = rest.rsplit_once('*').unwrap_or(("", rest));
    for piece in middle.split('*') {
        match text.find(piece) {
            Some(at) => text = &text[at + piece.len()..],
            None => return false,
        }
    }
    text.ends_with(last)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn star_stands_for_any_run() {
        for (glob, yes, no) in [
            ("a", "a", "A ab ba"),
            ("*", "a a.b", ""),
            ("a.*", "a. a.b a.b.c", "a ab b.a."),
            ("*.b", ".b a.b", "b a.b.c"),
            ("a*b*c", "abc aXbYc abcbc", "ab ac acb abcd"),
            ("a**b", "ab aXb", "a b"),
            ("ab*ba", "abba abXba", "aba ab ba"),
            ("100%_", "100%_", "100x_ 1000_ 100%x"),
        ] {
            let glob = TopicGlob::parse(glob).unwrap();
            let is_match = |text: &&str| glob.matches(&Topic::parse((*text).to_owned()).unwrap());
            assert!(
                yes.split_whitespace().collect::<Vec<_>>().iter().all(is_match),
                "{glob}"
            );
            assert!(
                !no.split_whitespace().collect::<Vec<_>>().iter().any(is_match),
                "{glob}"
            );
        }
    }

    #[test]
    fn pattern_for_like_escapes_what_is_special_there() {
        assert_eq!(TopicGlob::parse(r"a*_%\b").unwrap().like(), r"a%\_\%\\b");
    }

    #[test]
    fn text_that_matches_no_topic_is_rejected() {
        for text in ["", " ", "a b", "a\n", "a\u{a0}*"] {
            assert_eq!(TopicGlob::parse(text), None, "{text:?}");
        }
    }

    /// By trying every way.
    fn naive(glob: &[u8], text: &[u8]) -> bool {
        match glob.split_first() {
            None => text.is_empty(),
            Some((b'*', rest)) => (0..=text.len()).any(|at| naive(rest, &text[at..])),
            Some((byte, rest)) => text
                .split_first()
                .is_some_and(|(first, text)| first == byte && naive(rest, text)),
        }
    }

    proptest! {
        #[test]
        fn agrees_with_trying_every_way(glob in "[ab*]{1,7}", text in "[ab]{1,9}") {
            prop_assert_eq!(matches(&glob, &text), naive(glob.as_bytes(), text.as_bytes()));
        }
    }
}
