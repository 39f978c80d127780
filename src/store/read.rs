//! The read side of a store: lists, scans, counters, and how far the log is stable.

use async_trait::async_trait;

use super::append::LogPosition;
use super::error::StoreError;
use super::name::Named;
use super::outbox::Backlog;
use crate::event::{
    Cursor, EventId, NameRange, Payload, Source, StoredEvent, Timestamp, Topic, TopicGlobs, above_prefix,
};

/// Which events to read. Members that are `None` do not filter.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Of this topic.
    pub topic: Option<Topic>,
    /// Of these topics, where no single one is given.
    pub globs: TopicGlobs,
    /// From this source.
    pub source: Option<Source>,
    /// With this id.
    pub event_id: Option<EventId>,
    /// With a `timestamp` at this time or later.
    pub since: Option<Timestamp>,
    /// With a `timestamp` before this time.
    pub until: Option<Timestamp>,
}

/// The order of a list.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Order {
    /// Log order.
    #[default]
    Ascending,
    /// The newest first.
    Descending,
}

/// A request for a list.
#[derive(Debug, Clone, Default)]
pub struct List {
    /// Which events.
    pub filter: Filter,
    /// In which order.
    pub order: Order,
    /// How many events to skip first.
    pub offset: u64,
    /// How many events at most; at least 1.
    pub limit: u32,
    /// Only events behind this place, in the order of the list: this is how a long list is read page by page.
    pub behind: Option<Cursor>,
    /// The list ends before its payloads and headers exceed this many bytes, but has at least one event. `None`: no limit.
    pub bytes_max: Option<usize>,
    /// Only batches below this number: [`Stability::committed_below`] of the time when a long list began.
    pub below: Option<i64>,
}

/// A request for one page of a cursor read.
#[derive(Debug, Clone)]
pub struct Scan {
    /// Which events.
    pub filter: Filter,
    /// Only events after this place.
    pub after: Cursor,
    /// How many events at most; at least 1.
    pub limit: u32,
    /// The page ends before its payloads and headers exceed this many bytes, but has at least one event.
    pub bytes_max: usize,
    /// For whom it is read.
    pub turn: Turn,
}

/// For whom something is read. Clients together have fewer turns than there are, so that however much they read, what the service
/// reads for all of them goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// For one client.
    Client,
    /// For the service itself.
    Service,
}

/// Some events, and where to continue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// The events, in the requested order.
    pub events: Vec<StoredEvent>,
    /// Where a cursor read continues: never beyond the last stable position.
    pub next: Cursor,
    /// Whether the page reaches the end of what there was to read.
    pub is_last: bool,
    /// Whether events are gone that a cursor read has not returned: they were pruned, or lost with a copy of the log. Never of a
    /// list, nor of a cursor read that begins at the beginning.
    pub is_truncated: bool,
}

impl List {
    /// The page of these events, of a log with this last stable position. `is_cut`: an event did not fit any more.
    pub(super) fn page(&self, events: Vec<StoredEvent>, is_cut: bool, last_stable: Cursor) -> Page {
        // Events that were committed after a long list began are not in it, and a cursor read from its `next` must not skip them.
        let has_ended_before = self.below.is_some_and(|below| last_stable.batch() >= below);
        let newest = events.iter().map(|event| event.cursor).max();
        let stable = if has_ended_before {
            newest.map_or(Cursor::BEGINNING, |newest| newest.min(last_stable))
        } else {
            last_stable
        };
        let is_last = !is_cut && events.len() < self.limit as usize;
        let next = match (self.order, events.last()) {
            (Order::Ascending, Some(last)) if !is_last => last.cursor.min(stable),
            _ => stable,
        };
        Page {
            events,
            next,
            is_last,
            is_truncated: false,
        }
    }
}

/// Why a cursor read fails.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ScanError {
    /// The cursor lies above everything that this log has ever given out: it belongs to another log, or to a newer copy.
    #[error("the cursor lies above the end of the log")]
    UnknownCursor,
    /// The store cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// How far the log is stable: below its last stable position nothing is inserted any more.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Stability {
    /// The last place that a cursor read may show: the end of the newest stable batch. It stays good over crashes, because no
    /// later batch gets a lower number.
    pub last_stable: Cursor,
    /// Every batch that was committed at the time of the query has a lower number.
    pub committed_below: i64,
    /// The age in seconds of the oldest committed batch that is not yet stable; 0 when there is none.
    pub visibility_lag_seconds: f64,
}

/// Exact counters of the store, or of one topic.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Events received.
    pub received: i64,
    /// Of these, stored.
    pub unique_processed: i64,
    /// Of these, dropped as duplicates: `received - unique_processed`.
    pub duplicate_dropped: i64,
    /// Of the duplicates, those with another payload.
    pub conflicts: i64,
    /// Of the stored, those that have expired or were pruned.
    pub pruned: i64,
}

/// The counters, the topics and the outbox, from one snapshot.
#[derive(Debug, Clone, PartialEq)]
pub struct StoreStats {
    /// The counters of all topics together.
    pub counts: Counts,
    /// The number of topics.
    pub topic_count: i64,
    /// Unique events of the largest topics, at most [`TOPICS_MAX`], the largest first.
    pub topics: Vec<(String, i64)>,
    /// What is not published yet.
    pub backlog: Backlog,
    /// Events that should have expired and are kept, because they are not published.
    pub held_back: i64,
    /// How far the log is stable.
    pub stability: Stability,
}

/// The counters of some topics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicSums {
    /// Their sums.
    pub counts: Counts,
    /// The number of topics.
    pub topic_count: i64,
    /// Unique events of the largest, at most [`TOPICS_MAX`], the largest first.
    pub topics: Vec<(String, i64)>,
}

/// An identity that was stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The place of the first copy, and when it was received.
    pub first: LogPosition,
    /// The event; `None`: it has expired.
    pub event: Option<StoredEvent>,
}

/// A request for topics by name.
#[derive(Debug, Clone, Default)]
pub struct TopicList {
    /// Only names that begin with this.
    pub prefix: String,
    /// Only names behind this one.
    pub after: String,
    /// Only names that one of these matches.
    pub globs: TopicGlobs,
    /// How many at most.
    pub limit: u32,
}

impl TopicList {
    /// The ranges of names to read, in order.
    pub(super) fn ranges(&self) -> Vec<NameRange> {
        let of_prefix = NameRange {
            low: self.prefix.clone(),
            below: above_prefix(&self.prefix),
        };
        let both = |range: NameRange| NameRange {
            low: range.low.max(of_prefix.low.clone()),
            below: match (range.below, of_prefix.below.clone()) {
                (Some(one), Some(other)) => Some(one.min(other)),
                (one, other) => one.or(other),
            },
        };
        let ranges = self.globs.ranges().into_iter().map(both);
        let has_names = |range: &NameRange| range.below.as_ref().is_none_or(|below| range.low < *below);
        ranges.filter(has_names).collect()
    }
}

/// A topic with its counters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicSummary {
    /// The name.
    pub topic: Topic,
    /// Its counters.
    pub counts: Counts,
    /// When its first event was stored, if it has any.
    pub first_received_at: Option<Timestamp>,
    /// When its newest event was stored.
    pub last_received_at: Option<Timestamp>,
}

/// A request for a page of conflicts.
#[derive(Debug, Clone)]
pub struct ConflictList {
    /// Only of this topic.
    pub topic: Option<Topic>,
    /// Only of these topics, where no single one is given.
    pub globs: TopicGlobs,
    /// Only conflicts behind this place.
    pub after: Cursor,
    /// How many at most.
    pub limit: u32,
}

/// An event that was sent under an identity that has another value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    /// The place that it would have had.
    pub cursor: Cursor,
    /// The topic of both.
    pub topic: Topic,
    /// The id of both.
    pub event_id: EventId,
    /// The place of the event that was stored.
    pub first: Cursor,
    /// The timestamp of the one that was not stored.
    pub occurred_at: Timestamp,
    /// When that was received.
    pub received_at: Timestamp,
    /// Its source.
    pub source: Source,
    /// Its payload; `None`: it is too large to be kept.
    pub payload: Option<Payload>,
}

/// The largest payload that is kept of a conflict, in bytes.
pub const CONFLICT_PAYLOAD_BYTES_MAX: usize = 16 * 1024;
/// The most conflicts that are kept in a minute.
pub const CONFLICTS_PER_MINUTE: i64 = 1000;

/// Some conflicts, and where to continue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConflictPage {
    /// In the order of the log.
    pub conflicts: Vec<Conflict>,
    /// The place to continue from.
    pub next: Cursor,
}

impl ConflictList {
    /// The page of these conflicts, of a log with this last stable position.
    pub(super) fn page(&self, conflicts: Vec<Conflict>, last_stable: Cursor) -> ConflictPage {
        let next = match conflicts.last() {
            Some(last) if conflicts.len() == self.limit as usize => last.cursor,
            _ => last_stable.max(self.after),
        };
        ConflictPage { conflicts, next }
    }
}

/// The most topics in [`StoreStats::topics`]. Where there are more, which are the largest is known as of some minutes ago; their
/// counters are those of the snapshot.
pub const TOPICS_MAX: i64 = 1000;

/// The part of a store that reads the log.
#[async_trait]
pub trait EventReader: Named {
    /// Lists what is committed. A list that exceeds the query time limit fails as
    /// [`Contention`](super::ErrorClass::Contention).
    async fn list(&self, list: &List) -> Result<Page, StoreError>;

    /// Reads on from a cursor, up to the last stable position. A page may be short, even empty, before the end when a filter
    /// matches rarely.
    ///
    /// # Errors
    /// [`ScanError::UnknownCursor`] when the log has not given out a cursor as high as that.
    async fn scan(&self, scan: &Scan) -> Result<Page, ScanError>;

    /// Looks for an identity. `None`: it was never stored, or is forgotten.
    async fn find(&self, topic: &Topic, event_id: &EventId) -> Result<Option<Found>, StoreError>;

    /// Lists topics by name, compared byte by byte.
    async fn topics(&self, list: &TopicList) -> Result<Vec<TopicSummary>, StoreError>;

    /// Lists conflicts, up to the last stable position.
    async fn conflicts(&self, list: &ConflictList) -> Result<ConflictPage, StoreError>;

    /// The counters and more, in one snapshot.
    async fn stats(&self) -> Result<StoreStats, StoreError>;

    /// The counters of some topics together, in one snapshot. Its cost grows with their number.
    async fn sums(&self, globs: &TopicGlobs) -> Result<TopicSums, StoreError>;

    /// The counters of one topic; zeros for an unknown topic.
    async fn topic_counts(&self, topic: &Topic) -> Result<Counts, StoreError>;

    /// Those of some topics of which nothing was ever received, or nothing is left. Within a second, for a request waits for it.
    async fn unknown_topics(&self, topics: &[&str]) -> Result<Vec<String>, StoreError>;

    /// How far the log is stable.
    async fn stability(&self) -> Result<Stability, StoreError>;

    /// The store's clock, which sets `received_at`.
    async fn clock(&self) -> Result<Timestamp, StoreError>;
}
