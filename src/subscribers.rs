//! The fan-out inside the process: followers of the log, in its order, without a gap.
//!
//! One watcher for all followers ([`Live::watch`]) follows the settled edge and reads each newly settled event once, into a
//! bounded tail in memory, already written as it will be sent. Followers ([`Subscriber`]) take from the tail what lies behind
//! their own cursor, and ask the store only when they are behind the tail. Both go by the same cursors: nothing can fall
//! between catching up and following live.
//!
//! The watcher looks at the store often as long as somebody follows, and not at all otherwise. So it hears of other replicas'
//! events within some hundredths of a second, with or without Redis, and needs no subscription of its own: an empty look
//! costs the store less than a message for each event would cost this process.
//!
//! Publishing comes first. What many followers read costs more than what was published once, so while requests wait for a
//! writer the watcher hands out little at a time and pauses in between: followers then lag, and catch up when there is room. If
//! there is none for some seconds they get their share all the same.

mod ring;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::ring::{Look, Ring, frames};
use crate::event::{Cursor, Topic};
use crate::metrics::Metrics;
use crate::sink::HandoffQueue;
use crate::store::backoff::Backoff;
use crate::store::{EventReader, Filter, Page, Scan, StoreError};

/// How long after a commit of this process the watcher looks: by then more have come, and most are settled.
const GATHER: Duration = Duration::from_millis(10);
/// How often it looks without having heard of a commit: other replicas commit, too, and what was unsettled settles.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// How much the watcher reads at a time.
const WATCH_EVENTS: u32 = 1000;
const WATCH_BYTES: usize = 1 << 20;
/// While publishing waits, the watcher hands out so many bytes at a time to all followers together (each gets a copy), which
/// takes a core about five milliseconds,
const BUSY_BYTES: usize = 5 << 20;
/// and then pauses for twenty times as long;
const BUSY_PAUSE: Duration = Duration::from_millis(100);
/// but not when it has been behind for longer than this.
const BUSY_LAG_MAX: Duration = Duration::from_secs(5);

/// How much a follower that is behind the tail reads at a time: many may be, each with as much in memory.
const CATCH_UP_EVENTS: u32 = 200;
const CATCH_UP_BYTES: usize = 64 << 10;

/// The live end of the log, shared by the followers of this process. Cheap to clone.
#[derive(Clone)]
pub struct Live(Arc<Shared>);

struct Shared {
    store: Arc<dyn EventReader>,
    handoff: Arc<HandoffQueue>,
    tail: std::sync::Mutex<Ring>,
    /// Says that the tail has changed, to whoever waits.
    changed: watch::Sender<()>,
    permits: Arc<Semaphore>,
    permits_max: usize,
    /// Whether requests wait for a writer.
    is_busy: Box<dyn Fn() -> bool + Send + Sync>,
    /// Says that somebody follows, to the watcher.
    arrived: tokio::sync::Notify,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
}

/// What a live end is made of.
pub struct Settings {
    /// Where events are read.
    pub store: Arc<dyn EventReader>,
    /// Where commits are announced.
    pub handoff: Arc<HandoffQueue>,
    /// The most followers at once.
    pub subscribers_max: usize,
    /// Tells whether requests wait for a writer.
    pub is_busy: Box<dyn Fn() -> bool + Send + Sync>,
    /// The figures of this process.
    pub metrics: Arc<Metrics>,
    /// Ends all followers.
    pub stop: CancellationToken,
}

/// There is no place for one more follower.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("there are as many subscribers as there may be")]
pub struct TooManySubscribers;

impl Live {
    /// A live end that nobody watches yet.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        let Settings {
            store,
            handoff,
            subscribers_max,
            is_busy,
            metrics,
            stop,
        } = settings;
        let permits_max = subscribers_max.min(Semaphore::MAX_PERMITS);
        Self(Arc::new(Shared {
            store,
            handoff,
            tail: std::sync::Mutex::default(),
            changed: watch::Sender::new(()),
            permits: Arc::new(Semaphore::new(permits_max)),
            permits_max,
            is_busy,
            arrived: tokio::sync::Notify::new(),
            metrics,
            stop,
        }))
    }

    /// How many follow.
    #[must_use]
    pub fn subscribers(&self) -> usize {
        self.0.permits_max - self.0.permits.available_permits()
    }

    /// How many may follow.
    #[must_use]
    pub fn subscribers_max(&self) -> usize {
        self.0.permits_max
    }

    /// A place for one more follower.
    ///
    /// # Errors
    /// [`TooManySubscribers`].
    pub fn enter(&self) -> Result<LogPosition, TooManySubscribers> {
        let permit = self
            .0
            .permits
            .clone()
            .try_acquire_owned()
            .map_err(|_| TooManySubscribers)?;
        self.0.arrived.notify_one();
        Ok(LogPosition {
            live: self.clone(),
            _permit: permit,
        })
    }

    /// Keeps the tail up to date while somebody follows, until the stop.
    pub async fn watch(self) {
        let shared = &*self.0;
        let mut backoff = Backoff::default();
        // Since when there was more to read than was read.
        let mut behind_since = None;
        while !shared.stop.is_cancelled() {
            if self.subscribers() == 0 {
                *shared.tail() = Ring::default();
                let arrived = shared.arrived.notified();
                shared.stop.run_until_cancelled(arrived).await;
                continue;
            }
            let has_patience = behind_since.is_none_or(|since: Instant| since.elapsed() < BUSY_LAG_MAX);
            let step = self.busy_step().filter(|_| has_patience);
            match shared.look(step.unwrap_or(WATCH_BYTES)).await {
                Ok(is_last) => {
                    backoff.reset();
                    behind_since = if is_last {
                        None
                    } else {
                        behind_since.or(Some(Instant::now()))
                    };
                    if step.is_some() {
                        let pause = tokio::time::sleep(BUSY_PAUSE);
                        shared.stop.run_until_cancelled(pause).await;
                    } else if is_last {
                        shared.occasion().await;
                    }
                }
                Err(error) => {
                    tracing::warn!(
                        error.class = error.class.as_str(),
                        "the subscribers wait: {}",
                        error.line()
                    );
                    let wait = tokio::time::sleep(backoff.next_wait());
                    shared.stop.run_until_cancelled(wait).await;
                }
            }
        }
        shared.changed.send_replace(());
    }
}

impl Live {
    /// How many bytes to hand out at a time while publishing waits; nothing while it does not, or while so few follow that
    /// they cost next to nothing.
    fn busy_step(&self) -> Option<usize> {
        let bytes = BUSY_BYTES / self.subscribers().max(1);
        (bytes < WATCH_BYTES && (self.0.is_busy)()).then_some(bytes)
    }
}

impl Shared {
    /// Reads what has settled since the last look, at most so many bytes. Answers whether that was all.
    async fn look(&self, bytes_max: usize) -> Result<bool, StoreError> {
        let end = self.tail().end();
        let Some(after) = end else {
            // The tail begins at what is settled now; who wants more than that reads it from the store.
            let edge = self.store.stability().await?.last_stable;
            self.tail().begin(edge);
            self.changed.send_replace(());
            return Ok(true);
        };
        let walk = Scan {
            filter: Filter::default(),
            after,
            limit: WATCH_EVENTS,
            bytes_max,
        };
        let page = self.store.scan(&walk).await?;
        let is_last = page.is_last;
        if !page.events.is_empty() || page.next > after {
            self.tail().extend(&page);
            self.changed.send_replace(());
        }
        Ok(is_last)
    }

    /// Waits for the next occasion to look.
    async fn occasion(&self) {
        let announced = async {
            self.handoff.committed().await;
            tokio::time::sleep(GATHER).await;
        };
        tokio::select! {
            () = announced => {}
            () = tokio::time::sleep(LOOK_INTERVAL) => {}
            () = self.stop.cancelled() => {}
        }
    }

    fn tail(&self) -> std::sync::MutexGuard<'_, Ring> {
        self.tail.lock().expect("nothing panics while it holds the tail")
    }
}

/// A follower's place, before it follows.
pub struct LogPosition {
    live: Live,
    _permit: OwnedSemaphorePermit,
}

impl LogPosition {
    /// Follows the events behind `after`, of one topic or of all. `None`: those that come next, which are those that are not
    /// settled yet. One that was acknowledged a moment before may be among them: better twice than never.
    ///
    /// # Errors
    /// When the store does not say what comes next.
    pub async fn follow(self, after: Option<Cursor>, topic: Option<Topic>) -> Result<Subscriber, StoreError> {
        let at = match after {
            Some(after) => after,
            None => self.live.0.store.stability().await?.last_stable,
        };
        Ok(Subscriber {
            changed: self.live.0.changed.subscribe(),
            place: self,
            topic,
            at,
            backoff: Backoff::default(),
        })
    }
}

/// Somebody who reads the log as it grows. One that does not ask costs nothing but itself.
pub struct Subscriber {
    place: LogPosition,
    changed: watch::Receiver<()>,
    topic: Option<Topic>,
    at: Cursor,
    backoff: Backoff,
}

impl Subscriber {
    /// Waits for the next events, and answers with them as frames of a stream of Server-Sent Events. `None` at the stop. May be
    /// cancelled: nothing is lost.
    pub async fn next(&mut self) -> Option<Bytes> {
        let live = self.place.live.clone();
        let shared = &*live.0;
        while !shared.stop.is_cancelled() {
            // Armed before it looks: a change in between is not slept over.
            self.changed.mark_unchanged();
            let look = shared.tail().look(self.at, self.topic.as_ref());
            let frames = match look {
                Look::Frames(frames, at) => {
                    self.at = at;
                    Some(frames)
                }
                Look::Nothing => None,
                Look::Behind => match self.read(shared).await {
                    Ok(page) => {
                        let goes_on = !page.is_last;
                        self.backoff.reset();
                        self.at = page.next;
                        if page.events.is_empty() && !goes_on {
                            None
                        } else {
                            Some(frames(&page.events))
                        }
                    }
                    Err(error) => {
                        tracing::debug!(
                            error.class = error.class.as_str(),
                            "a subscriber waits: {}",
                            error.line()
                        );
                        let wait = tokio::time::sleep(self.backoff.next_wait());
                        shared.stop.run_until_cancelled(wait).await;
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
                // Nothing of its topic there; there may be more.
                Some(_) => {}
                None => {
                    let changed = self.changed.changed();
                    shared.stop.run_until_cancelled(changed).await.map(Result::ok);
                }
            }
        }
        None
    }

    async fn read(&self, shared: &Shared) -> Result<Page, StoreError> {
        let walk = Scan {
            filter: Filter {
                topic: self.topic.clone(),
                ..Filter::default()
            },
            after: self.at,
            limit: CATCH_UP_EVENTS,
            bytes_max: CATCH_UP_BYTES,
        };
        shared.store.scan(&walk).await
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;
    use crate::event::{Event, EventId, Payload, Source, Timestamp};
    use crate::store::{Batch, GroupCommit, Store};

    /// A live end of an embedded store that has these events, and whether it takes publishing for busy.
    async fn live(folder: &std::path::Path, events: usize) -> (Live, Arc<AtomicBool>) {
        let store: Arc<dyn Store> = Arc::new(crate::store::sqlite::Sqlite::open(&folder.join("a.db")).unwrap());
        store.migrate().await.unwrap();
        let event = |number: usize| Event {
            topic: Topic::parse("t").unwrap(),
            event_id: EventId::parse(number.to_string()).unwrap(),
            occurred_at: Timestamp::from_micros(0).unwrap(),
            source: Source::parse("s").unwrap(),
            payload: Payload::parse(format!(r#"{{"text":"{}"}}"#, "x".repeat(1000))).unwrap(),
        };
        let (batch, _) = Batch::new((0..events).map(event).collect());
        let flush = GroupCommit {
            id: uuid::Uuid::new_v4(),
            batch: &batch,
            lease: None,
        };
        let mut appender = store.appender(0).await.unwrap();
        appender.append(&flush, Duration::from_secs(5)).await.unwrap();
        let busy = Arc::new(AtomicBool::new(true));
        let is_busy = busy.clone();
        let live = Live::new(Settings {
            store,
            handoff: Arc::new(HandoffQueue::new(None)),
            subscribers_max: 100,
            is_busy: Box::new(move || is_busy.load(Ordering::Relaxed)),
            metrics: Arc::default(),
            stop: CancellationToken::new(),
        });
        (live, busy)
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn while_publishing_waits_many_followers_get_little_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let (live, busy) = live(folder.path(), 200).await;
        live.0.tail().begin(Cursor::BEGINNING);
        let one = live.enter().unwrap();
        assert_eq!(live.busy_step(), None, "one subscriber costs next to nothing");
        let others: Vec<LogPosition> = (1..100).map(|_| live.enter().unwrap()).collect();
        assert!(live.enter().is_err());
        let step = live.busy_step().unwrap();
        assert!(!live.0.look(step).await.unwrap(), "it is not handed all at once");
        let handed_out = live.0.tail().end().unwrap().position();
        assert!((10..100).contains(&handed_out), "{handed_out} of 200 events of 1 KB");
        busy.store(false, Ordering::Relaxed);
        assert_eq!(live.busy_step(), None);
        assert!(live.0.look(WATCH_BYTES).await.unwrap());
        drop((one, others));
        assert_eq!(live.subscribers(), 0);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_follower_catches_up_from_the_store_and_goes_on_from_the_tail() {
        let folder = tempfile::tempdir().unwrap();
        let (live, _) = live(folder.path(), 500).await;
        let watching = tokio::task::JoinSet::from_iter([live.clone().watch()]);
        let mut subscriber = live
            .enter()
            .unwrap()
            .follow(Some(Cursor::BEGINNING), None)
            .await
            .unwrap();
        let mut text = String::new();
        while text.matches("event: event\n").count() < 500 {
            text.push_str(std::str::from_utf8(&subscriber.next().await.unwrap()).unwrap());
        }
        assert_eq!(text.matches("event: event\n").count(), 500);
        live.0.stop.cancel();
        assert_eq!(subscriber.next().await, None);
        watching.join_all().await;
    }
}
