//! A subscriber: reads the log as it grows.

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, watch};

use super::hub::{Shared, Subscribers};
use super::ring::{RingRead, frames, notice};
use crate::api::events::StreamNotice;
use crate::event::{Cursor, Topic, TopicGlobs};
use crate::store::backoff::Backoff;
use crate::store::{Filter, Page, Scan, ScanError, StoreError, Turn};

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
    /// Subscribes to the events after `after`, of one topic, or of those that some patterns match. `None`: to the events after the last stable position. An
    /// event that was acknowledged a moment before may be among them: a repeated event is better than a lost one.
    ///
    /// # Errors
    /// The store cannot tell the last stable position.
    pub async fn subscribe(
        self,
        after: Option<Cursor>,
        topic: Option<Topic>,
        globs: TopicGlobs,
    ) -> Result<Subscriber, StoreError> {
        let at = match after {
            Some(after) => after,
            None => self.subscribers.0.store.stability().await?.last_stable,
        };
        Ok(Subscriber {
            changed: self.subscribers.0.changed.subscribe(),
            permit: self,
            topic,
            globs,
            at,
            has_ended: false,
            backoff: Backoff::default(),
        })
    }
}

/// Reads the log as it grows. While it is not polled it costs only its memory.
pub struct Subscriber {
    permit: SubscriberPermit,
    changed: watch::Receiver<()>,
    topic: Option<Topic>,
    globs: TopicGlobs,
    /// The position that it has come to.
    at: Cursor,
    /// Whether the log has not given out that position.
    has_ended: bool,
    backoff: Backoff,
}

impl Subscriber {
    /// Waits for the next events, and returns them as frames of a stream of Server-Sent Events. `None` at the stop, and after a
    /// frame that says that the log has not given out the position. The future may be dropped: no event is lost.
    pub async fn next(&mut self) -> Option<Bytes> {
        let subscribers = self.permit.subscribers.clone();
        let shared = &*subscribers.0;
        while !shared.stop.is_cancelled() && !self.has_ended {
            // Before the read, so that a change after it is noticed.
            self.changed.mark_unchanged();
            let read = shared.ring().read(self.at, self.topic.as_ref(), &self.globs);
            let frames = match read {
                RingRead::Frames(frames, at) => {
                    self.at = at;
                    Some(frames)
                }
                RingRead::UpToDate => None,
                RingRead::Behind => match self.read_store(shared).await {
                    Ok(page) => {
                        self.backoff.reset();
                        let after = std::mem::replace(&mut self.at, page.next);
                        let frames = frames(&page.events);
                        if page.is_truncated {
                            let mut notice = notice(StreamNotice::truncated(after));
                            notice.extend_from_slice(&frames.bytes);
                            shared.count(&frames);
                            return Some(notice.into());
                        }
                        (frames.events > 0 || !page.is_last).then_some(frames)
                    }
                    Err(ScanError::UnknownCursor) => {
                        self.has_ended = true;
                        return Some(notice(StreamNotice::cursor_unknown(self.at)).into());
                    }
                    Err(ScanError::Store(error)) => {
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
                    shared.count(&frames);
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

    async fn read_store(&self, shared: &Shared) -> Result<Page, ScanError> {
        let scan = Scan {
            filter: Filter {
                topic: self.topic.clone(),
                globs: self.globs.clone(),
                ..Filter::default()
            },
            after: self.at,
            limit: CATCH_UP_EVENTS,
            bytes_max: CATCH_UP_BYTES,
            turn: Turn::Client,
        };
        shared.store.scan(&scan).await
    }
}
