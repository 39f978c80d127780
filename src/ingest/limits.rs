//! The limits of the queue, and what makes a batch.

/// The bytes of bodies after which a writer adds no more requests to its batch: a larger batch is no faster and costs memory
/// twice, here and on its way to the store. A single request may be larger.
pub(super) const BATCH_BYTES: usize = 4 << 20;

/// While a batch is being committed, another writer starts the next one as soon as this fraction (one fifth) of a full batch is
/// waiting. Fewer events wait for the end of the commit, and are committed together. With 64 concurrent requests of one event
/// each, PostgreSQL then spends 28 µs on an event, against 58 µs with as many concurrent batches as there are writers (22 000
/// events/s instead of 14 500; two cores, `make bench`). Another run measured 24 µs, and 35, 31 and 28 µs with thresholds of
/// 16, 24 and 32 events instead of 100; none of them was faster.
pub(super) const EVENTS_WORTH_A_WRITER: usize = 5;
/// The same for the bytes of a batch (one tenth).
pub(super) const BYTES_WORTH_A_WRITER: usize = 10;

/// A small request has at most so many events, however many a batch of the store may have.
const SMALL_EVENTS: usize = 100;

/// How many events the queue and a batch may have.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// In memory: queued, or being committed.
    pub(super) queue_events_max: usize,
    /// With this number a batch is full. A single request may have more.
    pub(super) batch_events: usize,
    pub(super) writers: u32,
}

impl Limits {
    /// A request that could not fill a batch, and is not worth a writer of its own.
    pub(super) fn is_small(self, events: usize, bytes: usize) -> bool {
        events <= (self.batch_events / EVENTS_WORTH_A_WRITER).min(SMALL_EVENTS)
            && bytes <= BATCH_BYTES / BYTES_WORTH_A_WRITER
    }
}
