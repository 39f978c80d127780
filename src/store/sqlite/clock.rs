//! The store's clock, and the form of stored times: microseconds since 1970.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::event::Timestamp;

/// A row that was received later than this from now was received when the clock was wrong: it says nothing about those behind it.
pub(super) const FUTURE_MICROS: i64 = 3_600_000_000;

/// The store's clock.
#[expect(
    clippy::disallowed_methods,
    reason = "this is the store's clock, which makes received_at"
)]
pub(super) fn now() -> Timestamp {
    let micros = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .ok()
        .and_then(|since| i64::try_from(since.as_micros()).ok());
    micros
        .and_then(Timestamp::from_micros)
        .expect("the system's clock is between the years 1970 and 9999")
}

/// A stored time.
pub(super) fn timestamp(micros: i64) -> rusqlite::Result<Timestamp> {
    Timestamp::from_micros(micros).ok_or(rusqlite::Error::IntegralValueOutOfRange(0, micros))
}

pub(super) fn in_micros(time: Duration) -> i64 {
    i64::try_from(time.as_micros()).unwrap_or(i64::MAX)
}
