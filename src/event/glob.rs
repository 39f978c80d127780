//! Patterns of topics.

use std::fmt;
use std::sync::Arc;

use crate::event::name::{NAME_BYTES_MAX, Topic};

/// A pattern of topics: `*` stands for any run of characters, also none; nothing else is special.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TopicGlob(String);

impl TopicGlob {
    /// Reads a pattern. `None` for a text that is empty, has white space or control characters, or more bytes than a topic.
    pub fn parse(text: &str) -> Option<Self> {
        let is_valid =
            (1..=NAME_BYTES_MAX).contains(&text.len()) && !text.contains(|c: char| c.is_whitespace() || c.is_control());
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

/// Some topics: all, or those that one of some patterns matches.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum TopicGlobs {
    /// Every topic.
    #[default]
    All,
    /// Those that one of these matches; no topic where there are none.
    Of(Arc<[TopicGlob]>),
}

/// The names from `low` on, and below `below` where there is one, compared byte by byte.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NameRange {
    /// The lowest.
    pub low: String,
    /// They all lie below this; `None`: there is no such name.
    pub below: Option<String>,
}

impl TopicGlobs {
    /// Whether a topic is one of them.
    pub fn matches(&self, topic: &Topic) -> bool {
        match self {
            Self::All => true,
            Self::Of(globs) => globs.iter().any(|glob| glob.matches(topic)),
        }
    }

    /// Whether all of them are meant, whatever their names.
    pub fn is_all(&self) -> bool {
        *self == Self::All
    }

    /// The patterns; `None`: every topic.
    pub fn patterns(&self) -> Option<&[TopicGlob]> {
        match self {
            Self::All => None,
            Self::Of(globs) => Some(globs),
        }
    }

    /// Whether every topic that `other` has is one of them. A pattern is covered if one other pattern matches its text: what its stars
    /// stand for then lies in a run that a star of the other stands for.
    pub fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::All, _) => true,
            (Self::Of(_), Self::All) => false,
            (Self::Of(own), Self::Of(globs)) => globs.iter().all(|glob| own.iter().any(|own| matches(&own.0, &glob.0))),
        }
    }

    /// Ranges of names that have all of them, in order and without overlap, by what the patterns begin with.
    pub fn ranges(&self) -> Vec<NameRange> {
        let prefixes = match self {
            Self::All => vec![""],
            Self::Of(globs) => {
                let mut prefixes: Vec<&str> = globs
                    .iter()
                    .map(|glob| glob.0.split('*').next().unwrap_or_default())
                    .collect();
                prefixes.sort_unstable();
                prefixes
            }
        };
        let mut ranges: Vec<NameRange> = Vec::new();
        for prefix in prefixes {
            // What sorts behind a prefix and begins with it lies within its range.
            if ranges.last().is_none_or(|last| !prefix.starts_with(&last.low)) {
                let (low, below) = (prefix.to_owned(), above_prefix(prefix));
                ranges.push(NameRange { low, below });
            }
        }
        ranges
    }
}

impl FromIterator<TopicGlob> for TopicGlobs {
    fn from_iter<I: IntoIterator<Item = TopicGlob>>(globs: I) -> Self {
        Self::Of(globs.into_iter().collect())
    }
}

/// The name below which those with a prefix lie, compared byte by byte; `None`: every name from the prefix on has it.
pub fn above_prefix(prefix: &str) -> Option<String> {
    // The next character after the last that has one.
    let mut characters: Vec<char> = prefix.chars().collect();
    while let Some(last) = characters.pop() {
        let next = (u32::from(last) + 1..=u32::from(char::MAX)).find_map(char::from_u32);
        if let Some(next) = next {
            characters.push(next);
            return Some(characters.into_iter().collect());
        }
    }
    None
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

    fn globs(texts: &str) -> TopicGlobs {
        let globs = texts.split_whitespace();
        globs.map(|text| TopicGlob::parse(text).unwrap()).collect()
    }

    #[test]
    fn globs_match_what_one_of_them_matches() {
        let topic = |name: &str| Topic::parse(name.to_owned()).unwrap();
        assert!(TopicGlobs::All.matches(&topic("a")));
        assert!(!globs("").matches(&topic("a")));
        assert!(globs("a.* b").matches(&topic("b")));
        assert!(!globs("a.* b").matches(&topic("b.a.b")));
    }

    #[test]
    fn globs_cover_narrower_ones() {
        for (own, yes, no) in [
            ("a.*", "a.* a.b a.b.* a.*.c a. a.*b", "* a b.* *a."),
            ("a.* *.z", "a.b *.y.z", "a z a*z"),
            ("*", "* a *a*", ""),
            ("", "", "a *"),
        ] {
            assert!(globs(own).covers(&globs(yes)), "{own}: {yes}");
            for other in no.split_whitespace() {
                assert!(!globs(own).covers(&globs(other)), "{own}: {other}");
            }
            assert!(!globs(own).covers(&TopicGlobs::All));
            assert!(TopicGlobs::All.covers(&globs(own)));
        }
    }

    #[test]
    fn ranges_have_every_topic_once() {
        let ranges = |texts: &str| {
            let ranges = globs(texts).ranges().into_iter();
            let ranges = ranges.map(|range| format!("{}-{}", range.low, range.below.unwrap_or_default()));
            ranges.collect::<Vec<_>>().join(" ")
        };
        assert_eq!(ranges("b.* a.x a.* a.*.c"), "a.-a/ b.-b/");
        assert_eq!(ranges("b *"), "-");
        assert_eq!(ranges("b b*"), "b-c");
        assert_eq!(ranges(""), "");
        assert_eq!(ranges("\u{10ffff}*"), "\u{10ffff}-");
        assert_eq!(TopicGlobs::All.ranges().len(), 1);
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
        fn what_is_covered_is_matched(own in "[ab*]{1,5}", glob in "[ab*]{1,5}", text in "[ab]{1,9}") {
            let topic = Topic::parse(text).unwrap();
            let (own, other) = (globs(&own), globs(&glob));
            prop_assert!(!own.covers(&other) || !other.matches(&topic) || own.matches(&topic));
            if other.matches(&topic) {
                let name = topic.as_str();
                let is_in = |range: &NameRange| *range.low <= *name && range.below.as_deref().is_none_or(|below| name < below);
                prop_assert_eq!(other.ranges().iter().filter(|range| is_in(range)).count(), 1);
            }
        }

        #[test]
        fn agrees_with_trying_every_way(glob in "[ab*]{1,7}", text in "[ab]{1,9}") {
            prop_assert_eq!(matches(&glob, &text), naive(glob.as_bytes(), text.as_bytes()));
        }
    }
}
