//! What the watcher and the subscribers share.

use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::{Notify, Semaphore, watch};
use tokio_util::sync::CancellationToken;

use super::ring::{Frames, Ring};
use crate::metrics::Metrics;
use crate::sink::HandoffQueue;
use crate::store::EventReader;

/// The live stream of this process. Cheap to clone.
#[derive(Clone)]
pub struct Subscribers(pub(super) Arc<Shared>);

pub(super) struct Shared {
    pub(super) store: Arc<dyn EventReader>,
    pub(super) handoff: Arc<HandoffQueue>,
    ring: Mutex<Ring>,
    /// Wakes subscribers when the ring buffer has changed.
    pub(super) changed: watch::Sender<()>,
    pub(super) permits: Arc<Semaphore>,
    permits_max: usize,
    /// Whether requests wait for a writer.
    pub(super) is_busy: Box<dyn Fn() -> bool + Send + Sync>,
    /// Wakes the watcher when a subscriber has arrived.
    pub(super) arrived: Notify,
    pub(super) metrics: Arc<Metrics>,
    pub(super) stop: CancellationToken,
}

/// The parts of a live stream.
pub struct Settings {
    /// Where events are read.
    pub store: Arc<dyn EventReader>,
    /// Where commits are announced.
    pub handoff: Arc<HandoffQueue>,
    /// The most subscribers at once.
    pub subscribers_max: usize,
    /// Returns whether requests wait for a writer.
    pub is_busy: Box<dyn Fn() -> bool + Send + Sync>,
    /// The metrics of this process.
    pub metrics: Arc<Metrics>,
    /// Ends all subscribers.
    pub stop: CancellationToken,
}

impl Subscribers {
    /// A live stream without its watcher ([`Subscribers::watch`]).
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
            ring: Mutex::default(),
            changed: watch::Sender::new(()),
            permits: Arc::new(Semaphore::new(permits_max)),
            permits_max,
            is_busy,
            arrived: Notify::new(),
            metrics,
            stop,
        }))
    }

    /// The number of subscribers.
    pub fn subscribers(&self) -> usize {
        self.0.permits_max - self.0.permits.available_permits()
    }

    /// The most subscribers at once.
    pub fn subscribers_max(&self) -> usize {
        self.0.permits_max
    }
}

impl Shared {
    /// Counts frames that are sent to a subscriber.
    pub(super) fn count(&self, frames: &Frames) {
        self.metrics.subscriber_events.inc_by(frames.events as u64);
        self.metrics.subscriber_bytes.inc_by(frames.bytes.len() as u64);
    }

    pub(super) fn ring(&self) -> MutexGuard<'_, Ring> {
        self.ring
            .lock()
            .expect("no code panics while it holds the lock of the ring buffer")
    }
}
