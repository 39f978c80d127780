//! A point in time, to the microsecond.

mod hint;

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
            let reads = |text: &str| Reader(text.as_bytes()).date_time().is_some();
            let hint = hint::of(text, reads).map_or(String::new(), |hint| format!("; {hint}"));
            let message = format!("Input should be a valid datetime: RFC 3339, in the years 0001 to 9999 of UTC{hint}");
            ValidationError::new(ValidationErrorKind::DatetimeParsing, message)
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
mod tests;
