//! The side of a store that forgets: partitions of the log, what expires, and what is kept of it.
//!
//! Events lie in partitions, each of some hours or days. All but the last have ended: nothing is stored in them any more. Expiry
//! removes events of partitions that have ended; their identities stay, so that an event that comes again is still a duplicate.

use std::time::Duration;

use async_trait::async_trait;
use uuid::Uuid;

use super::error::StoreError;
use super::name::Named;
use crate::event::{Cursor, Timestamp, TopicGlob};

/// A part of the log: the batches from `first_batch` to below `before_batch`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partition {
    /// The lowest number that a batch of it can have; it identifies the partition.
    pub first_batch: i64,
    /// Every batch of it has a lower number.
    pub before_batch: i64,
    /// It has not ended, or a transaction may still be writing to it.
    pub is_open: bool,
    /// When it ended, by the store's clock; `None` for the one that takes what is stored now.
    pub ended_at: Option<Timestamp>,
    /// What its events take on disk, indexes included.
    pub bytes: u64,
    /// What was last decided about its events: a text of the caller's.
    pub decision: String,
    /// Events that should have expired and were kept, because they are not published.
    pub held_back: u64,
    /// The manifest under which it was archived.
    pub archived_as: Option<String>,
}

impl Partition {
    /// The place before its first event.
    pub fn begin(&self) -> Cursor {
        Cursor::new(self.first_batch - 1, i32::MAX)
    }
}

/// What to remove from a partition.
#[derive(Debug, Clone)]
pub struct Expiry {
    /// The first batch of the partition.
    pub partition: i64,
    /// Whether the events of a topic go: the first pattern that matches it decides.
    pub topics: Vec<(TopicGlob, bool)>,
    /// Whether those go whose topic matches none.
    pub others: bool,
    /// Only events that were received before this time; `None`: at any time.
    pub before: Option<Timestamp>,
    /// Is kept with the partition; `None` leaves that as it is.
    pub decision: Option<String>,
    /// Only count.
    pub dry_run: bool,
}

impl Expiry {
    /// Removes, or with `dry_run` counts, every event of a partition.
    pub fn of_all(partition: i64) -> Self {
        Self {
            partition,
            topics: Vec::new(),
            others: true,
            before: None,
            decision: None,
            dry_run: false,
        }
    }
}

/// What expiry did, or with [`Expiry::dry_run`] would have done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Expired {
    /// Events removed.
    pub removed: u64,
    /// Events that should go but were kept, because they are not published.
    pub held_back: u64,
    /// The partition has not ended, or a transaction may still be writing to it: nothing was removed.
    pub is_open: bool,
}

/// What was archived as one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Archived {
    /// The name of its manifest.
    pub manifest: String,
    /// How many events it has.
    pub events: u64,
}

/// The part of a store that removes what has expired. It works in small transactions, so that publishing never waits for long. One
/// process at a time calls it, which holds the lease.
#[async_trait]
pub trait Retention: Named {
    /// Takes or renews the lease `name` for `owner`. False when somebody else holds it. It ends by the store's clock.
    async fn lease(&self, name: &str, owner: Uuid, length: Duration) -> Result<bool, StoreError>;

    /// Ends the current partition, if it began longer ago than this and has events, and begins the next one. Returns whether it did:
    /// not while a transaction may still be writing to the one that ended before, nor within a moment after it began.
    async fn begin_partition(&self, older_than: Duration) -> Result<bool, StoreError>;

    /// The partitions, the oldest first.
    async fn partitions(&self) -> Result<Vec<Partition>, StoreError>;

    /// Removes events of a partition that has ended, and counts them as pruned; the partition goes with the last of them, and the
    /// space is given back. Events that are not published stay.
    ///
    /// Each event is either there and counted as such, or gone and counted as pruned, at every moment. After an error, calling it
    /// again completes it.
    async fn expire(&self, expiry: &Expiry) -> Result<Expired, StoreError>;

    /// Notes that a partition was archived, under the name of this manifest. False, and nothing noted, if the partition does not
    /// have this number of events.
    async fn mark_archived(&self, partition: i64, archived: &Archived) -> Result<bool, StoreError>;

    /// What was ever archived, the oldest first.
    async fn archived(&self) -> Result<Vec<Archived>, StoreError>;

    /// Forgets identities that were received before this time and whose events are gone, and returns their number: one pass over all
    /// identities, in small steps. An event with such an identity is stored again. So are topics of which nothing is left; their
    /// counters stay in the totals.
    async fn forget_identities(&self, before: Timestamp) -> Result<u64, StoreError>;

    /// Removes kept conflicts that were received before this time, the oldest first, at most `limit`, and returns their number.
    async fn prune_conflicts(&self, before: Timestamp, limit: u32) -> Result<u64, StoreError>;
}
