//! A subscriber: reads the log as it grows.

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, watch};

use super::hub::{Shared, Subscribers};
use super::ring::{RingRead, frames};
use crate::event::{Cursor, Topic};
use crate::store::backoff::Backoff;
use crate::store::{Filter, Page, Scan, StoreError};

/// How much a subscriber that is behind the ring buffer reads at a time: there may be many, each with this much in memory.
const CATCH_UP_EVENTS: u32 = 200;
const CATCH_UP_BYTES: usize = 64 << 10;

/// The limit of subscribers is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the limit of subscribers is reached")]
pub struct TooManySubscribers;

/// The permit of one subscriber.
pub struct SubscriberPermit {
    subscribers: Subscribers,
    _permit: OwnedSemaphorePermit,
}

impl Subscribers {
    /// A permit for one more subscriber.
    ///
    /// # Errors
    /// [`TooManySubscribers`] when the limit is reached.
    pub fn permit(&self) -> Result<SubscriberPermit, TooManySubscribers> {
        let permits = self.0.permits.clone();
        let permit = permits.try_acquire_owned().map_err(|_| TooManySubscribers)?;
        self.0.arrived.notify_one();
        Ok(SubscriberPermit {
            subscribers: self.clone(),
            _permit: permit,
        })
    }
}

impl SubscriberPermit {
    /// Subscribes to the events after `after`, of one topic or of all. `None`: to the events after the last stable position. An
    /// event that was acknowledged a moment before may be among them: a repeated event is better than a lost one.
    ///
    /// # Errors
    /// The store cannot tell the last stable position.
    pub async fn subscribe(self, after: Option<Cursor>, topic: Option<Topic>) -> Result<Subscriber, StoreError> {
        let at = match after {
            Some(after) => after,
            None => self.subscribers.0.store.stability().await?.last_stable,
        };
        Ok(Subscriber {
            changed: self.subscribers.0.changed.subscribe(),
            permit: self,
            topic,
            at,
            backoff: Backoff::default(),
        })
    }
}

/// Reads the log as it grows. While it is not polled it costs only its memory.
pub struct Subscriber {
    permit: SubscriberPermit,
    changed: watch::Receiver<()>,
    topic: Option<Topic>,
    /// The position that it has come to.
    at: Cursor,
    backoff: Backoff,
}

impl Subscriber {
    /// Waits for the next events, and returns them as frames of a stream of Server-Sent Events. `None` at the stop. The future
    /// may be dropped: no event is lost.
    pub async fn next(&mut self) -> Option<Bytes> {
        let subscribers = self.permit.subscribers.clone();
        let shared = &*subscribers.0;
        while !shared.stop.is_cancelled() {
            // Before the read, so that a change after it is noticed.
            self.changed.mark_unchanged();
            let read = shared.ring().read(self.at, self.topic.as_ref());
            let frames = match read {
                RingRead::Frames(frames, at) => {
                    self.at = at;
                    Some(frames)
                }
                RingRead::UpToDate => None,
                RingRead::Behind => match self.read_store(shared).await {
                    Ok(page) => {
                        let has_more = !page.is_last;
                        self.backoff.reset();
                        self.at = page.next;
                        if page.events.is_empty() && !has_more {
                            None
                        } else {
                            Some(frames(&page.events))
                        }
                    }
                    Err(error) => {
                        let wait = self.backoff.next_wait();
                        tracing::debug!(
                            error.class = error.class.as_str(),
                            retry_in = ?wait,
                            "failed to read events for a subscriber, retrying: {}",
                            error.line()
                        );
                        shared.stop.run_until_cancelled(tokio::time::sleep(wait)).await;
                        continue;
                    }
                },
            };
            match frames {
                Some(frames) if frames.events > 0 => {
                    shared.metrics.subscriber_events.inc_by(frames.events as u64);
                    shared.metrics.subscriber_bytes.inc_by(frames.bytes.len() as u64);
                    return Some(frames.bytes);
                }
                // No event of the topic, and there may be more.
                Some(_) => {}
                None => {
                    let changed = self.changed.changed();
                    shared.stop.run_until_cancelled(changed).await.map(Result::ok);
                }
            }
        }
        None
    }

    async fn read_store(&self, shared: &Shared) -> Result<Page, StoreError> {
        let scan = Scan {
            filter: Filter {
                topic: self.topic.clone(),
                ..Filter::default()
            },
            after: self.at,
            limit: CATCH_UP_EVENTS,
            bytes_max: CATCH_UP_BYTES,
        };
        shared.store.scan(&scan).await
    }
}
