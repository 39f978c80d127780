//! Whether requests are refused for want of room, and since when.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// A refusal is forgotten after this time: nobody has asked since.
const MEMORY: Duration = Duration::from_secs(2);

/// Follows what is admitted and what is refused. Only small requests count: whoever sends much may find no room for it while there is
/// room for others.
#[derive(Debug, Default)]
pub(super) struct Pressure {
    /// When the first and the last one were refused, since one was admitted.
    refused: Mutex<Option<(Instant, Instant)>>,
    /// Whether there is such a one: to admit must cost nothing.
    is_refusing: AtomicBool,
}

impl Pressure {
    pub(super) fn refuse(&self) {
        let now = Instant::now();
        let mut refused = self.refused.lock().expect("nothing panics while it holds the lock");
        let first = refused
            .filter(|(_, last)| now - *last < MEMORY)
            .map_or(now, |(first, _)| first);
        *refused = Some((first, now));
        self.is_refusing.store(true, Ordering::Relaxed);
    }

    pub(super) fn admit(&self) {
        if self.is_refusing.load(Ordering::Relaxed) {
            *self.refused.lock().expect("nothing panics while it holds the lock") = None;
            self.is_refusing.store(false, Ordering::Relaxed);
        }
    }

    /// For how long every one has been refused; `None`: the last one was admitted, or nobody has asked lately.
    pub(super) fn lasts(&self) -> Option<Duration> {
        let refused = *self.refused.lock().expect("nothing panics while it holds the lock");
        let (first, last) = refused?;
        (last.elapsed() < MEMORY).then(|| first.elapsed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn lasts_until_one_is_admitted_or_nobody_asks() {
        let pressure = Pressure::default();
        let second = Duration::from_secs(1);
        assert_eq!(pressure.lasts(), None);
        for _ in 0..5 {
            pressure.refuse();
            tokio::time::advance(second).await;
        }
        assert_eq!(pressure.lasts(), Some(5 * second));
        tokio::time::advance(second).await;
        assert_eq!(pressure.lasts(), None, "nobody has asked for two seconds");
        pressure.refuse();
        assert_eq!(pressure.lasts(), Some(Duration::ZERO), "it begins anew");
        pressure.admit();
        assert_eq!(pressure.lasts(), None);
    }
}
