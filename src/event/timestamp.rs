//! A point in time, to the microsecond.

use std::fmt;

use chrono::{DateTime, Datelike, NaiveDate, Timelike, Utc};
use serde::{Serialize, Serializer};

use crate::event::validation_error::{ValidationError, ValidationErrorKind};

/// 0001-01-01T00:00:00Z.
const MICROS_MIN: i64 = -62_135_596_800_000_000;
/// 9999-12-31T23:59:59.999999Z.
const MICROS_MAX: i64 = 253_402_300_799_999_999;
const MICROS_PER_SECOND: i64 = 1_000_000;
/// The length of `0001-01-01T00:00:00.000000Z`.
const TEXT_BYTES: usize = 27;

/// A point in time in the years 0001 to 9999 of UTC, in microseconds since the Unix epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

impl Timestamp {
    /// Microseconds since the Unix epoch. `None` outside the years 0001 to 9999.
    pub fn from_micros(micros: i64) -> Option<Self> {
        (MICROS_MIN..=MICROS_MAX).contains(&micros).then_some(Self(micros))
    }

    /// Microseconds since the Unix epoch.
    pub fn micros(self) -> i64 {
        self.0
    }

    /// Reads a date-time of RFC 3339; also without seconds, with a blank or `t` for the `T`, with `z`, and without an offset, which
    /// means UTC. Digits of the fraction beyond the sixth are cut. Second 60 and hour 24 are invalid, and so are years other than
    /// 0001 to 9999 *in UTC*.
    pub fn parse(text: &str) -> Result<Self, ValidationError> {
        Reader(text.as_bytes()).date_time().ok_or_else(|| {
            ValidationError::new(
                ValidationErrorKind::DatetimeParsing,
                "Input should be a valid datetime: RFC 3339, in the years 0001 to 9999 of UTC",
            )
        })
    }

    /// Writes the text of `Display` into `buffer` and returns it.
    fn text(self, buffer: &mut [u8; TEXT_BYTES]) -> &str {
        let time = DateTime::<Utc>::from(self);
        buffer.copy_from_slice(b"0000-00-00T00:00:00.000000Z");
        write_digits(&mut buffer[0..4], time.year().unsigned_abs());
        write_digits(&mut buffer[5..7], time.month());
        write_digits(&mut buffer[8..10], time.day());
        write_digits(&mut buffer[11..13], time.hour());
        write_digits(&mut buffer[14..16], time.minute());
        write_digits(&mut buffer[17..19], time.second());
        write_digits(&mut buffer[20..26], time.timestamp_subsec_micros());
        let mut end = TEXT_BYTES - 1;
        while buffer[end - 1] == b'0' && end > 20 {
            end -= 1;
        }
        if end == 20 {
            end = 19;
        }
        buffer[end] = b'Z';
        str::from_utf8(&buffer[..=end]).expect("digits and marks are ASCII")
    }
}

fn write_digits(slot: &mut [u8], mut number: u32) {
    for digit in slot.iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.text(&mut [0; TEXT_BYTES]))
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.text(&mut [0; TEXT_BYTES]))
    }
}

impl From<Timestamp> for DateTime<Utc> {
    fn from(timestamp: Timestamp) -> Self {
        Self::from_timestamp_micros(timestamp.0).expect("chrono reaches beyond the year 9999")
    }
}

impl TryFrom<DateTime<Utc>> for Timestamp {
    type Error = ValidationError;

    /// Cut to the microsecond. Fails outside the years 0001 to 9999.
    fn try_from(time: DateTime<Utc>) -> Result<Self, ValidationError> {
        Self::from_micros(time.timestamp_micros()).ok_or_else(|| {
            ValidationError::new(
                ValidationErrorKind::DatetimeParsing,
                "Input should be in the years 0001 to 9999 of UTC",
            )
        })
    }
}

/// The rest of a date-time that is being read.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn date_time(mut self) -> Option<Timestamp> {
        let year = self.number(4)?;
        self.one_of(b"-")?;
        let month = self.number(2)?;
        self.one_of(b"-")?;
        let day = self.number(2)?;
        self.one_of(b"Tt ")?;
        let hour = self.number(2)?;
        self.one_of(b":")?;
        let minute = self.number(2)?;
        let mut second = 0;
        let mut micros = 0;
        if self.one_of(b":").is_some() {
            second = self.number(2)?;
            if self.one_of(b".").is_some() {
                micros = self.fraction()?;
            }
        }
        let offset_seconds = self.offset()?;
        if !self.0.is_empty() {
            return None;
        }
        let date = NaiveDate::from_ymd_opt(i32::try_from(year).ok()?, month, day)?;
        let local = date.and_hms_opt(hour, minute, second)?.and_utc();
        let seconds = local.timestamp() - offset_seconds;
        Timestamp::from_micros(seconds * MICROS_PER_SECOND + micros)
    }

    fn one_of(&mut self, bytes: &[u8]) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        bytes.contains(first).then(|| {
            self.0 = rest;
            *first
        })
    }

    fn number(&mut self, digits: usize) -> Option<u32> {
        let mut number = 0;
        for _ in 0..digits {
            number = number * 10 + u32::from(self.one_of(b"0123456789")? - b'0');
        }
        Some(number)
    }

    /// One digit or more, as microseconds.
    fn fraction(&mut self) -> Option<i64> {
        let mut micros = 0;
        let mut unit = MICROS_PER_SECOND / 10;
        let count = self.0.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let (digits, rest) = self.0.split_at(count);
        for digit in digits.iter().take(6) {
            micros += i64::from(digit - b'0') * unit;
            unit /= 10;
        }
        self.0 = rest;
        (count > 0).then_some(micros)
    }

    /// The offset in seconds east of UTC; 0 if there is none.
    fn offset(&mut self) -> Option<i64> {
        if self.0.is_empty() || self.one_of(b"Zz").is_some() {
            return Some(0);
        }
        let sign = if self.one_of(b"+-")? == b'+' { 1 } else { -1 };
        let hours = self.number(2)?;
        self.one_of(b":")?;
        let minutes = self.number(2)?;
        (hours < 24 && minutes < 60).then(|| sign * i64::from(hours * 3600 + minutes * 60))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_every_allowed_form_and_writes_utc() {
        for (text, back) in [
            ("2025-10-24T10:30:00Z", "2025-10-24T10:30:00Z"),
            ("2025-10-24t10:30:00z", "2025-10-24T10:30:00Z"),
            ("2025-10-24 10:30:00Z", "2025-10-24T10:30:00Z"),
            ("2025-10-24T10:30:00", "2025-10-24T10:30:00Z"),
            ("2025-10-24T10:30", "2025-10-24T10:30:00Z"),
            ("2025-10-24T10:30Z", "2025-10-24T10:30:00Z"),
            ("2025-10-24 10:30+02:00", "2025-10-24T08:30:00Z"),
            ("2025-10-24T10:30:00-00:00", "2025-10-24T10:30:00Z"),
            ("2025-10-24T00:00:00+23:59", "2025-10-23T00:01:00Z"),
            ("2025-12-31T23:59:59-23:59", "2026-01-01T23:58:59Z"),
            ("2025-10-24T10:30:00.25Z", "2025-10-24T10:30:00.25Z"),
            ("2025-10-24T10:30:00.250000Z", "2025-10-24T10:30:00.25Z"),
            ("2025-10-24T10:30:00.000001", "2025-10-24T10:30:00.000001Z"),
            ("2025-10-24T10:30:00.0000009Z", "2025-10-24T10:30:00Z"),
            ("2025-10-24T10:30:00.1234569Z", "2025-10-24T10:30:00.123456Z"),
            ("2025-10-24T10:30:10.000Z", "2025-10-24T10:30:10Z"),
            ("1969-12-31T23:59:59.9999999Z", "1969-12-31T23:59:59.999999Z"),
            ("1969-12-31T23:59:59.0000009Z", "1969-12-31T23:59:59Z"),
            ("2024-02-29T00:00:00Z", "2024-02-29T00:00:00Z"),
            ("2000-02-29T23:59:59Z", "2000-02-29T23:59:59Z"),
            ("0001-01-01T00:00:00Z", "0001-01-01T00:00:00Z"),
            ("0000-12-31T23:59:59-00:01", "0001-01-01T00:00:59Z"),
            ("9999-12-31T23:59:59.9999999Z", "9999-12-31T23:59:59.999999Z"),
            ("9999-12-31T23:59:59+00:01", "9999-12-31T23:58:59Z"),
        ] {
            let timestamp = Timestamp::parse(text).expect(text);
            assert_eq!(timestamp.to_string(), back, "{text}");
            assert_eq!(Timestamp::parse(back), Ok(timestamp), "{text}");
        }
    }

    #[test]
    fn rejects_any_other_text() {
        for text in [
            "",
            "now",
            "infinity",
            "1761301800",
            "2025-10-24",
            "2025-10-24T10",
            "2025-10-24T10:30:",
            "2025-10-24T10:30.5",
            "2025-10-24T10:30:00.",
            "2025-10-24T10:30:00.Z",
            "2025-10-24T10:30:00,5Z",
            "2025-10-24T10:30:00.5 Z",
            "2025-10-24T10:30:00 Z",
            "2025-10-24  10:30:00Z",
            "2025-10-24_10:30:00Z",
            "2025-10-24T10:30:00ZZ",
            "2025-10-24T10:30:00Z ",
            " 2025-10-24T10:30:00Z",
            "2025-10-24T10:30:00+02",
            "2025-10-24T10:30:00+0200",
            "2025-10-24T10:30:00+2:00",
            "2025-10-24T10:30:00+24:00",
            "2025-10-24T10:30:00+23:60",
            "2025-10-24T10:30:00\u{2212}02:00",
            "2025-10-24T24:00:00Z",
            "2025-10-24T23:60:00Z",
            "2025-10-24T23:59:60Z",
            "2016-12-31T23:59:60Z",
            "2025-10-24T1:30:00Z",
            "2025-1-24T10:30:00Z",
            "2025-00-24T10:30:00Z",
            "2025-13-24T10:30:00Z",
            "2025-10-00T10:30:00Z",
            "2025-10-32T10:30:00Z",
            "2025-02-29T10:30:00Z",
            "1900-02-29T10:30:00Z",
            "0000-12-31T23:59:59Z",
            "0001-01-01T00:00:00+00:01",
            "9999-12-31T23:59:59-00:01",
            "10000-01-01T00:00:00Z",
            "+2025-10-24T10:30:00Z",
            "-0001-10-24T10:30:00Z",
            "٢٠٢٥-10-24T10:30:00Z",
            "2025-W43-5T10:30:00Z",
        ] {
            assert_eq!(
                Timestamp::parse(text).unwrap_err().kind,
                ValidationErrorKind::DatetimeParsing,
                "{text}"
            );
        }
    }

    #[test]
    fn a_fraction_may_have_any_number_of_digits() {
        let text = format!("2025-10-24T10:30:00.123456{}Z", "9".repeat(1_000_000));
        assert_eq!(
            Timestamp::parse(&text).unwrap().to_string(),
            "2025-10-24T10:30:00.123456Z"
        );
    }

    #[test]
    fn the_bounds_are_the_years_0001_and_9999() {
        for (micros, text) in [
            (MICROS_MIN, "0001-01-01T00:00:00Z"),
            (-1, "1969-12-31T23:59:59.999999Z"),
            (0, "1970-01-01T00:00:00Z"),
            (MICROS_MAX, "9999-12-31T23:59:59.999999Z"),
        ] {
            assert_eq!(Timestamp::from_micros(micros).unwrap().to_string(), text);
        }
        assert_eq!(Timestamp::from_micros(MICROS_MIN - 1), None);
        assert_eq!(Timestamp::from_micros(MICROS_MAX + 1), None);
        assert!(Timestamp::try_from(DateTime::<Utc>::MAX_UTC).is_err());
        assert!(Timestamp::try_from(DateTime::<Utc>::MIN_UTC).is_err());
    }

    proptest! {
        #[test]
        fn the_text_reads_back_as_the_same_time(micros in MICROS_MIN..=MICROS_MAX) {
            let timestamp = Timestamp::from_micros(micros).unwrap();
            prop_assert_eq!(Timestamp::parse(&timestamp.to_string()), Ok(timestamp));
            prop_assert_eq!(Timestamp::try_from(DateTime::<Utc>::from(timestamp)), Ok(timestamp));
            prop_assert_eq!(serde_json::to_string(&timestamp).unwrap(), format!("\"{timestamp}\""));
        }

        #[test]
        fn chrono_reads_a_full_date_time_as_we_do(micros in MICROS_MIN..=MICROS_MAX, minutes in -1439..=1439i32, digits in 0..=9usize) {
            let offset = chrono::FixedOffset::east_opt(minutes * 60).unwrap();
            let local = DateTime::<Utc>::from(Timestamp(micros)).with_timezone(&offset);
            let text = local.format(&format!("%Y-%m-%dT%H:%M:%S{}%:z", ["", "%.3f", "%.6f", "%.9f"][digits % 4])).to_string();
            if let (Ok(theirs), Ok(ours)) = (DateTime::parse_from_rfc3339(&text), Timestamp::parse(&text)) {
                prop_assert_eq!(ours.micros(), theirs.timestamp_micros(), "{}", text);
            } else {
                prop_assert!(text.starts_with(['+', '-']) || local.with_timezone(&Utc).year() < 1, "{}", text);
            }
        }
    }
}
