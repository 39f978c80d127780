//! How much a key may publish: token buckets.

use tokio::time::Instant;

use crate::access::KeyLimits;

/// A bucket holds what comes in so many seconds.
const BURST_SECONDS: f64 = 10.0;

/// What a limit is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Events.
    Events,
    /// Bytes of bodies.
    Bytes,
}

/// A limit that a request exceeds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Exceeded {
    /// Of what.
    pub unit: Unit,
    /// The limit, in a second.
    pub rate: f64,
    /// How much is left for now.
    pub left: f64,
    /// In how many seconds there will be enough; `None`: never, the request is larger than the bucket.
    pub seconds: Option<f64>,
}

impl Exceeded {
    /// How much a request may have at most.
    pub fn burst(&self) -> f64 {
        self.rate * BURST_SECONDS
    }
}

/// The buckets of a key.
#[derive(Debug)]
pub(super) struct Buckets {
    events: Option<Bucket>,
    bytes: Option<Bucket>,
}

impl Buckets {
    /// Full ones.
    pub(super) fn new(limits: &KeyLimits, now: Instant) -> Self {
        let bucket = |rate: f64| Bucket {
            rate,
            left: rate * BURST_SECONDS,
            at: now,
        };
        #[expect(clippy::cast_precision_loss, reason = "limits are far below 2^53")]
        let bytes = limits.bytes_per_second.map(|rate| bucket(rate as f64));
        Self {
            events: limits.events_per_second.map(|rate| bucket(rate.into())),
            bytes,
        }
    }

    /// Takes what a request needs, from both or from none.
    #[expect(clippy::cast_precision_loss, reason = "what a request has is far below 2^53")]
    pub(super) fn take(&mut self, (events, bytes): (usize, usize), now: Instant) -> Result<(), Exceeded> {
        let needed = [
            (&mut self.events, Unit::Events, events as f64),
            (&mut self.bytes, Unit::Bytes, bytes as f64),
        ];
        let mut takes = Vec::new();
        for (bucket, unit, needed) in needed {
            if let Some(bucket) = bucket {
                bucket.fill(now);
                bucket.check(unit, needed)?;
                takes.push((bucket, needed));
            }
        }
        for (bucket, needed) in takes {
            bucket.left -= needed;
        }
        Ok(())
    }
}

#[derive(Debug)]
struct Bucket {
    rate: f64,
    left: f64,
    at: Instant,
}

impl Bucket {
    fn fill(&mut self, now: Instant) {
        let came = now.saturating_duration_since(self.at).as_secs_f64() * self.rate;
        self.left = (self.left + came).min(self.rate * BURST_SECONDS);
        self.at = now;
    }

    fn check(&self, unit: Unit, needed: f64) -> Result<(), Exceeded> {
        if needed <= self.left {
            return Ok(());
        }
        let fits = needed <= self.rate * BURST_SECONDS;
        Err(Exceeded {
            unit,
            rate: self.rate,
            left: self.left,
            seconds: fits.then(|| (needed - self.left) / self.rate),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn holds_ten_seconds_and_fills_up() {
        let begin = Instant::now();
        let limits = KeyLimits {
            events_per_second: Some(100),
            bytes_per_second: Some(1000),
        };
        let mut buckets = Buckets::new(&limits, begin);
        let at = |seconds: f64| begin + Duration::from_secs_f64(seconds);
        buckets.take((1000, 0), at(0.0)).unwrap();
        let exceeded = buckets.take((50, 10), at(0.0)).unwrap_err();
        assert_eq!(
            (exceeded.unit, exceeded.left, exceeded.seconds),
            (Unit::Events, 0.0, Some(0.5))
        );
        buckets.take((50, 10), at(0.51)).unwrap();
        // Nothing was taken from one of them where the other refused.
        let exceeded = buckets.take((1, 10_001), at(2.0)).unwrap_err();
        assert_eq!(
            (exceeded.unit, exceeded.seconds, exceeded.burst()),
            (Unit::Bytes, None, 10_000.0)
        );
        buckets.take((149, 10_000), at(2.0)).unwrap();
        buckets.take((1000, 10_000), at(100.0)).unwrap();
    }

    #[test]
    fn without_a_limit_everything_fits() {
        let mut buckets = Buckets::new(&KeyLimits::default(), Instant::now());
        buckets.take((usize::MAX, usize::MAX), Instant::now()).unwrap();
    }
}
