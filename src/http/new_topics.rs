//! A limit of new topics: each costs the store rows that stay, and a place in every list, whoever made it.
//!
//! A topic is new if the store has no counters of it. Which topics it has is remembered, up to a bound, so that the store is asked only
//! for those that this process has not seen lately.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::time::Instant;

use super::error::ApiError;
use crate::event::Event;
use crate::metrics::Metrics;
use crate::store::EventReader;

/// So many topics are remembered, and once more as many of those that were seen before them.
const KNOWN_TOPICS: usize = 100_000;

const MINUTE: Duration = Duration::from_secs(60);

/// Which topics are known, and how many new ones may come.
pub(super) struct NewTopics {
    store: Arc<dyn EventReader>,
    metrics: Arc<Metrics>,
    hasher: RandomState,
    known: Mutex<Known>,
    allowance: Mutex<Allowance>,
}

/// The hashes of topics that the store has.
#[derive(Default)]
struct Known {
    recent: HashSet<u64>,
    earlier: HashSet<u64>,
}

/// How many new topics may come now.
struct Allowance {
    per_minute: u32,
    left: f64,
    at: Instant,
}

impl NewTopics {
    pub(super) fn new(store: Arc<dyn EventReader>, metrics: Arc<Metrics>, per_minute: u32) -> Self {
        Self {
            store,
            metrics,
            hasher: RandomState::new(),
            known: Mutex::default(),
            allowance: Mutex::new(Allowance {
                per_minute,
                left: f64::from(per_minute),
                at: Instant::now(),
            }),
        }
    }

    /// Admits the topics of a request, or none of them. Where the store does not say which are new, all are admitted: publishing must not
    /// depend on reading.
    pub(super) async fn admit(&self, events: &[Event]) -> Result<(), ApiError> {
        let unseen = self.unseen(events);
        if unseen.is_empty() {
            return Ok(());
        }
        let new = match self.store.unknown_topics(&unseen).await {
            Ok(new) => new,
            Err(error) => {
                tracing::debug!(
                    error.class = error.class.as_str(),
                    "failed to look for new topics, admitting all: {}",
                    error.line()
                );
                return Ok(());
            }
        };
        if !new.is_empty() {
            let taken = self.allowance().take(u32::try_from(new.len()).unwrap_or(u32::MAX));
            if let Err(error) = taken {
                self.metrics.topics_refused.inc_by(new.len() as u64);
                return Err(error);
            }
        }
        let mut known = self.known();
        for topic in unseen {
            known.add(self.hasher.hash_one(topic));
        }
        Ok(())
    }

    /// The topics of these events that are not remembered, each once.
    fn unseen<'e>(&self, events: &'e [Event]) -> Vec<&'e str> {
        let known = self.known();
        let mut unseen: Vec<&str> = Vec::new();
        let mut last = None;
        for event in events {
            let topic = event.topic.as_str();
            if last != Some(topic) && !known.has(self.hasher.hash_one(topic)) {
                unseen.push(topic);
            }
            last = Some(topic);
        }
        drop(known);
        unseen.sort_unstable();
        unseen.dedup();
        unseen
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().expect("nothing panics while it holds the topics")
    }

    fn allowance(&self) -> MutexGuard<'_, Allowance> {
        self.allowance.lock().expect("nothing panics while it counts topics")
    }
}

impl Known {
    fn has(&self, topic: u64) -> bool {
        self.recent.contains(&topic) || self.earlier.contains(&topic)
    }

    fn add(&mut self, topic: u64) {
        if self.recent.len() >= KNOWN_TOPICS {
            self.earlier = std::mem::take(&mut self.recent);
        }
        self.recent.insert(topic);
    }
}

impl Allowance {
    /// Takes so many, or none.
    fn take(&mut self, topics: u32) -> Result<(), ApiError> {
        let now = Instant::now();
        let max = f64::from(self.per_minute);
        let came = max * (now - self.at).as_secs_f64() / MINUTE.as_secs_f64();
        self.left = (self.left + came).min(max);
        self.at = now;
        if topics > self.per_minute {
            return Err(ApiError::TooManyTopicsAtOnce(self.per_minute));
        }
        let missing = f64::from(topics) - self.left;
        if missing > 0.0 {
            let wait = MINUTE.mul_f64(missing / max);
            // Rounded up, so that then there are enough.
            let seconds = u32::try_from(wait.as_secs()).unwrap_or(u32::MAX).saturating_add(1);
            return Err(ApiError::TooManyTopics { seconds });
        }
        self.left -= f64::from(topics);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn allowance_comes_back_in_a_minute() {
        let mut allowance = Allowance {
            per_minute: 60,
            left: 60.0,
            at: Instant::now(),
        };
        assert!(allowance.take(50).is_ok());
        let Err(ApiError::TooManyTopics { seconds }) = allowance.take(20) else {
            panic!("there are ten left");
        };
        assert_eq!(seconds, 11);
        tokio::time::advance(Duration::from_secs(seconds.into())).await;
        assert!(allowance.take(20).is_ok());
        assert!(allowance.take(1).is_ok(), "what was refused took none");
        tokio::time::advance(10 * MINUTE).await;
        assert!(matches!(allowance.take(61), Err(ApiError::TooManyTopicsAtOnce(60))));
        assert!(allowance.take(60).is_ok());
    }

    #[test]
    fn remembers_a_bounded_number_of_topics() {
        let mut known = Known::default();
        for topic in 0..1_000_000 {
            known.add(topic);
        }
        assert!(known.recent.len() + known.earlier.len() <= 2 * KNOWN_TOPICS);
        assert!(known.has(999_999) && !known.has(0));
    }
}
