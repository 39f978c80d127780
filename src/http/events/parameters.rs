//! Query parameters: each read once, every fault listed.

use std::time::Duration;

use crate::event::{Cursor, EventId, Loc, Source, Timestamp, Topic, ValidationError, ValidationErrorKind};

/// The parameters of a request, and the faults found in them so far.
pub struct Parameters {
    pairs: Vec<(String, String)>,
    faults: Vec<ValidationError>,
}

impl Parameters {
    /// Decodes a query string. Names that nobody asks for are ignored.
    pub fn read(query: Option<&str>) -> Self {
        let pairs = form_urlencoded::parse(query.unwrap_or_default().as_bytes())
            .into_owned()
            .collect();
        Self {
            pairs,
            faults: Vec::new(),
        }
    }

    /// The faults, if there were any.
    pub fn finish(self) -> Result<(), Vec<ValidationError>> {
        if self.faults.is_empty() {
            Ok(())
        } else {
            Err(self.faults)
        }
    }

    /// `topic`
    pub fn topic(&mut self) -> Option<Topic> {
        self.parsed("topic", |text| Topic::parse(text.to_owned()))
    }

    /// `source`
    pub fn source(&mut self) -> Option<Source> {
        self.parsed("source", |text| Source::parse(text.to_owned()))
    }

    /// `event_id`
    pub fn event_id(&mut self) -> Option<EventId> {
        self.parsed("event_id", |text| EventId::parse(text.to_owned()))
    }

    /// `since` or `until`
    pub fn time(&mut self, name: &'static str) -> Option<Timestamp> {
        self.parsed(name, Timestamp::parse)
    }

    /// `after`: empty is the beginning.
    pub fn after(&mut self) -> Option<Cursor> {
        self.parsed("after", |text| {
            if text.is_empty() {
                Ok(Cursor::BEGINNING)
            } else {
                Cursor::parse(text)
            }
        })
    }

    /// A whole number of at least `min`, and at most `max`.
    pub fn number(&mut self, name: &'static str, min: u64, max: u64) -> Option<u64> {
        self.parsed(name, |text| {
            let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
            if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
                return Err(ValidationError::new(
                    ValidationErrorKind::IntParsing,
                    "Input should be a whole number",
                ));
            }
            // Only how it compares matters where a number is out of range, so one that fits no u64 is its bound.
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

    /// A length of time such as `60s` or `5m`, in whole seconds: at least one, and at most `max`.
    pub fn seconds(&mut self, name: &'static str, max: u64) -> Option<u64> {
        self.parsed(name, |text| {
            let length = humantime::parse_duration(text).map_err(|_| {
                let form = "Input should be a length of time such as 60s or 5m";
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
    pub fn word<T: Copy>(&mut self, name: &'static str, words: &[(&str, T)]) -> Option<T> {
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

    /// Adds a fault of a parameter that is fine in itself.
    pub fn refuse(&mut self, name: &'static str, breach: ValidationError) {
        self.faults.push(breach.at(vec![Loc::Name("query"), Loc::Name(name)]));
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
        result.map_err(|breach| self.refuse(name, breach)).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(query: &str) -> Result<u64, ValidationErrorKind> {
        let mut parameters = Parameters::read(Some(query));
        let number = parameters.number("limit", 1, 1000);
        parameters
            .finish()
            .map(|()| number.unwrap())
            .map_err(|faults| faults[0].kind)
    }

    #[test]
    fn a_number_is_taken_between_its_bounds_and_refused_beyond_them() {
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
    fn a_length_of_time_is_taken_between_a_second_and_its_bound() {
        let seconds = |text: &str| {
            let mut parameters = Parameters::read(Some(&format!("window={text}")));
            let seconds = parameters.seconds("window", 900);
            parameters
                .finish()
                .map(|()| seconds.unwrap())
                .map_err(|faults| faults[0].kind)
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
    fn every_fault_is_listed_with_its_place() {
        let mut parameters = Parameters::read(Some("topic=a+b&since=yesterday&order=up&after=x&source="));
        parameters.topic();
        parameters.source();
        parameters.time("since");
        parameters.after();
        parameters.word("order", &[("asc", 0), ("desc", 1)]);
        let faults = serde_json::to_value(parameters.finish().unwrap_err()).unwrap();
        let places: Vec<&str> = faults
            .as_array()
            .unwrap()
            .iter()
            .map(|fault| fault["loc"][1].as_str().unwrap())
            .collect();
        assert_eq!(places, ["topic", "source", "since", "after", "order"]);
        assert_eq!(faults[0]["loc"][0], "query");
    }
}
