//! Query parameters: each is parsed once, and all validation errors are collected.

use std::time::Duration;

use crate::event::{Cursor, EventId, Loc, Source, Timestamp, Topic, ValidationError, ValidationErrorKind};

/// The parameters of a request, and the validation errors found so far.
pub(super) struct Query {
    pairs: Vec<(String, String)>,
    errors: Vec<ValidationError>,
}

impl Query {
    /// Decodes a query string. Parameters that the handler does not read are ignored.
    pub(super) fn read(query: Option<&str>) -> Self {
        let pairs = form_urlencoded::parse(query.unwrap_or_default().as_bytes())
            .into_owned()
            .collect();
        Self {
            pairs,
            errors: Vec::new(),
        }
    }

    /// Fails with the validation errors, if there are any.
    pub(super) fn finish(self) -> Result<(), Vec<ValidationError>> {
        if self.errors.is_empty() {
            Ok(())
        } else {
            Err(self.errors)
        }
    }

    /// `topic`
    pub(super) fn topic(&mut self) -> Option<Topic> {
        self.parsed("topic", |text| Topic::parse(text.to_owned()))
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

#[cfg(test)]
mod tests {
    use super::*;

    fn number(text: &str) -> Result<u64, ValidationErrorKind> {
        let mut query = Query::read(Some(text));
        let number = query.number("limit", 1, 1000);
        query
            .finish()
            .map(|()| number.unwrap())
            .map_err(|errors| errors[0].kind)
    }

    #[test]
    fn number_must_be_within_its_bounds() {
        assert_eq!(number("limit=1"), Ok(1));
        assert_eq!(number("limit=1000"), Ok(1000));
        assert_eq!(number("limit=0"), Err(ValidationErrorKind::GreaterThanEqual));
        assert_eq!(number("limit=-0"), Err(ValidationErrorKind::GreaterThanEqual));
        assert_eq!(number("limit=-5"), Err(ValidationErrorKind::GreaterThanEqual));
        assert_eq!(number("limit=1001"), Err(ValidationErrorKind::LessThanEqual));
        assert_eq!(
            number("limit=99999999999999999999999"),
            Err(ValidationErrorKind::LessThanEqual)
        );
        assert_eq!(number("limit="), Err(ValidationErrorKind::IntParsing));
        assert_eq!(number("limit=1.5"), Err(ValidationErrorKind::IntParsing));
        assert_eq!(number("limit=5&limit=6"), Err(ValidationErrorKind::RepeatedMember));
    }

    #[test]
    fn duration_must_be_within_its_bounds() {
        let seconds = |text: &str| {
            let mut query = Query::read(Some(&format!("window={text}")));
            let seconds = query.seconds("window", 900);
            query
                .finish()
                .map(|()| seconds.unwrap())
                .map_err(|errors| errors[0].kind)
        };
        assert_eq!(seconds("1s"), Ok(1));
        assert_eq!(seconds("90500ms"), Ok(90));
        assert_eq!(seconds("15m"), Ok(900));
        assert_eq!(seconds("900001ms"), Err(ValidationErrorKind::LessThanEqual));
        assert_eq!(seconds("999ms"), Err(ValidationErrorKind::GreaterThanEqual));
        for text in ["", "60", "soon", "-5m", "99999999999999999999s"] {
            assert_eq!(seconds(text), Err(ValidationErrorKind::StringPatternMismatch), "{text}");
        }
    }

    #[test]
    fn every_error_is_listed_with_its_location() {
        let mut query = Query::read(Some("topic=a+b&since=yesterday&order=up&after=x&source="));
        query.topic();
        query.source();
        query.time("since");
        query.after();
        query.word("order", &[("asc", 0), ("desc", 1)]);
        let errors = serde_json::to_value(query.finish().unwrap_err()).unwrap();
        let locations: Vec<&str> = errors
            .as_array()
            .unwrap()
            .iter()
            .map(|error| error["loc"][1].as_str().unwrap())
            .collect();
        assert_eq!(locations, ["topic", "source", "since", "after", "order"]);
        assert_eq!(errors[0]["loc"][0], "query");
    }
}
