//! Query parameters: each is parsed once, and all validation errors are collected. A parameter that no handler reads is one: whoever
//! writes `cursor=` for `after=` must not get the first page for ever.

use std::collections::BTreeSet;
use std::time::Duration;

use percent_encoding::percent_decode_str;

use crate::access::KeyId;
use crate::event::{
    Cursor, EventId, Loc, Source, Timestamp, Topic, VALIDATION_ERRORS_MAX, ValidationError, ValidationErrorKind,
};

/// The parameters of a request, and the validation errors found so far.
pub(super) struct Query {
    pairs: Vec<(String, String)>,
    /// The parameters that the handler has read.
    known: Vec<&'static str>,
    errors: Vec<ValidationError>,
}

/// What other services call our parameters, in lower case and without hyphens and underscores.
const OTHER_NAMES: [(&str, &str); 8] = [
    ("cursor", "after"),
    ("lasteventid", "after"),
    ("next", "after"),
    ("pagetoken", "after"),
    ("size", "limit"),
    ("pagesize", "limit"),
    ("perpage", "limit"),
    ("skip", "offset"),
];

/// How alike a name must be to be suggested, from 0 to 1.
const LIKENESS: f64 = 0.8;

/// The most characters of an unknown name in an answer.
const NAME_CHARACTERS: usize = 100;

impl Query {
    /// Decodes a query string.
    pub(super) fn read(query: Option<&str>) -> Self {
        let query = query.unwrap_or_default();
        let mut read = Self {
            pairs: form_urlencoded::parse(query.as_bytes()).into_owned().collect(),
            known: Vec::new(),
            errors: Vec::new(),
        };
        let parts = query.split('&').filter(|part| !part.is_empty());
        for (part, (name, _)) in parts.zip(&read.pairs) {
            // Decoding has replaced what is not UTF-8.
            if read.errors.len() < VALIDATION_ERRORS_MAX && percent_decode_str(part).decode_utf8().is_err() {
                let error = ValidationError::new(ValidationErrorKind::StringPatternMismatch, "Input should be UTF-8");
                let name = Loc::Name(shortened(name).into());
                read.errors.push(error.at(vec![Loc::name("query"), name]));
            }
        }
        read
    }

    /// Fails with the validation errors, if there are any.
    pub(super) fn finish(mut self) -> Result<(), Vec<ValidationError>> {
        let unknown = self.pairs.iter().map(|(name, _)| name.as_str());
        let unknown: BTreeSet<&str> = unknown.filter(|name| !self.known.contains(name)).collect();
        for name in unknown.into_iter().take(VALIDATION_ERRORS_MAX) {
            let error = ValidationError::new(ValidationErrorKind::ExtraForbidden, self.hint(name));
            let name = Loc::Name(shortened(name).into());
            self.errors.push(error.at(vec![Loc::name("query"), name]));
        }
        self.errors.truncate(VALIDATION_ERRORS_MAX);
        if self.errors.is_empty() {
            Ok(())
        } else {
            Err(self.errors)
        }
    }

    /// What to write instead of an unknown parameter.
    fn hint(&self, name: &str) -> String {
        let plain: String = name.chars().filter(|char| !matches!(char, '-' | '_')).collect();
        let plain = plain.to_lowercase();
        let other = OTHER_NAMES
            .iter()
            .find(|(other, _)| *other == plain)
            .map(|(_, name)| *name);
        let like = |name: &str| strsim::jaro_winkler(&plain, &name.replace('_', ""));
        let nearest = self.known.iter().copied().max_by(|a, b| like(a).total_cmp(&like(b)));
        let meant = other
            .filter(|other| self.known.contains(other))
            .or(nearest.filter(|name| like(name) >= LIKENESS));
        let known: Vec<String> = self.known.iter().map(|name| format!("'{name}'")).collect();
        let known = known.join(", ");
        match meant {
            Some(meant) => format!("Unknown parameter: did you mean '{meant}'? The parameters are {known}"),
            None => format!("Unknown parameter. The parameters are {known}"),
        }
    }

    /// `topic`
    pub(super) fn topic(&mut self) -> Option<Topic> {
        self.parsed("topic", |text| Topic::parse(text.to_owned()))
    }

    /// A topic, or the beginning of one; empty where it is not given.
    pub(super) fn topic_or_empty(&mut self, name: &'static str) -> String {
        let topic = self.parsed(name, |text| match text {
            "" => Ok(String::new()),
            text => Topic::parse(text.to_owned()).map(|topic| topic.to_string()),
        });
        topic.unwrap_or_default()
    }

    /// The id of a key.
    pub(super) fn key_id(&mut self, name: &'static str) -> Option<KeyId> {
        self.parsed(name, |text| {
            KeyId::parse(text).ok_or_else(|| {
                let message = "Input should be the id of a key";
                ValidationError::new(ValidationErrorKind::StringPatternMismatch, message)
            })
        })
    }

    /// `source`
    pub(super) fn source(&mut self) -> Option<Source> {
        self.parsed("source", |text| Source::parse(text.to_owned()))
    }

    /// `event_id`
    pub(super) fn event_id(&mut self) -> Option<EventId> {
        self.parsed("event_id", |text| EventId::parse(text.to_owned()))
    }

    /// `since` or `until`
    pub(super) fn time(&mut self, name: &'static str) -> Option<Timestamp> {
        self.parsed(name, Timestamp::parse)
    }

    /// `after`: empty is the beginning.
    pub(super) fn after(&mut self) -> Option<Cursor> {
        self.parsed("after", |text| {
            if text.is_empty() {
                Ok(Cursor::BEGINNING)
            } else {
                Cursor::parse(text)
            }
        })
    }

    /// A whole number of at least `min`, and at most `max`.
    pub(super) fn number(&mut self, name: &'static str, min: u64, max: u64) -> Option<u64> {
        self.parsed(name, |text| {
            let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
            if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
                return Err(ValidationError::new(
                    ValidationErrorKind::IntParsing,
                    "Input should be a whole number",
                ));
            }
            // Out of range, only the comparison matters: a number that does not fit into a u64 counts as the largest.
            let is_negative = text.starts_with('-') && digits.bytes().any(|byte| byte != b'0');
            let number = if is_negative {
                None
            } else {
                Some(digits.parse().unwrap_or(u64::MAX))
            };
            match number {
                Some(number) if number > max => Err(ValidationError::new(
                    ValidationErrorKind::LessThanEqual,
                    format!("Input should be less than or equal to {max}"),
                )),
                Some(number) if number >= min => Ok(number),
                _ => Err(ValidationError::new(
                    ValidationErrorKind::GreaterThanEqual,
                    format!("Input should be greater than or equal to {min}"),
                )),
            }
        })
    }

    /// A duration such as `60s` or `5m`, in whole seconds: at least one, and at most `max`.
    pub(super) fn seconds(&mut self, name: &'static str, max: u64) -> Option<u64> {
        self.parsed(name, |text| {
            let length = humantime::parse_duration(text).map_err(|_| {
                let form = "Input should be a duration such as 60s or 5m";
                ValidationError::new(ValidationErrorKind::StringPatternMismatch, form)
            })?;
            let (kind, bound) = match length.as_secs() {
                0 => (
                    ValidationErrorKind::GreaterThanEqual,
                    "greater than or equal to 1 second".to_owned(),
                ),
                _ if length > Duration::from_secs(max) => (
                    ValidationErrorKind::LessThanEqual,
                    format!("less than or equal to {max} seconds"),
                ),
                seconds => return Ok(seconds),
            };
            Err(ValidationError::new(kind, format!("Input should be {bound}")))
        })
    }

    /// One of some words.
    pub(super) fn word<T: Copy>(&mut self, name: &'static str, words: &[(&str, T)]) -> Option<T> {
        self.parsed(name, |text| {
            let known = words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value);
            known.ok_or_else(|| {
                let expected: Vec<String> = words.iter().map(|(word, _)| format!("'{word}'")).collect();
                ValidationError::new(
                    ValidationErrorKind::LiteralError,
                    format!("Input should be {}", expected.join(" or ")),
                )
            })
        })
    }

    /// Adds a validation error of a parameter whose value alone is valid.
    pub(super) fn reject(&mut self, name: &'static str, error: ValidationError) {
        self.errors.push(error.at(vec![Loc::name("query"), Loc::name(name)]));
    }

    fn parsed<T>(&mut self, name: &'static str, parse: impl FnOnce(&str) -> Result<T, ValidationError>) -> Option<T> {
        self.known.push(name);
        let mut values = self
            .pairs
            .iter()
            .filter(|(key, _)| key == name)
            .map(|(_, value)| value.as_str());
        let first = values.next()?;
        let result = match values.next() {
            Some(_) => Err(ValidationError::new(
                ValidationErrorKind::RepeatedMember,
                "Parameter given more than once",
            )),
            None => parse(first),
        };
        result.map_err(|error| self.reject(name, error)).ok()
    }
}

/// A name of a client, which may be as long as a head.
fn shortened(name: &str) -> String {
    name.chars().take(NAME_CHARACTERS).collect()
}

#[cfg(test)]
mod tests;
