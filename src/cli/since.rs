//! Times on the command line: RFC 3339, or a length of time ago.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use chrono::Utc;

use crate::event::Timestamp;

/// A time in the past, or one that is given whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Since(Timestamp);

impl FromStr for Since {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Ok(time) = Timestamp::parse(text) {
            return Ok(Self(time));
        }
        let ago = humantime::parse_duration(text)
            .map_err(|_| "give a length of time such as 10m, or a time such as 2025-10-24T10:30:00Z")?;
        before(now_micros(), ago)
            .map(Self)
            .ok_or("this reaches back further than the year 1: give a shorter time")
    }
}

fn before(now_micros: i64, ago: Duration) -> Option<Timestamp> {
    let ago = i64::try_from(ago.as_micros()).ok()?;
    Timestamp::from_micros(now_micros.checked_sub(ago)?)
}

#[expect(
    clippy::disallowed_methods,
    reason = "a length of time on the command line counts back from the caller's clock"
)]
fn now_micros() -> i64 {
    Utc::now().timestamp_micros()
}

impl fmt::Display for Since {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_whole_or_count_back_from_now() {
        let whole: Since = "2025-10-24T10:30:00+02:00".parse().unwrap();
        assert_eq!(whole.to_string(), "2025-10-24T08:30:00Z");
        let (ago, earlier): (Since, Since) = ("10m".parse().unwrap(), "1h 5m".parse().unwrap());
        assert!(earlier.0 < ago.0);
        assert_eq!(
            before(whole.0.micros(), Duration::from_secs(600)).unwrap().to_string(),
            "2025-10-24T08:20:00Z"
        );
        for text in ["", "yesterday", "9000000y"] {
            assert!(text.parse::<Since>().is_err(), "{text}");
        }
    }
}
