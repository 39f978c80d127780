//! The contract of a store: its promises, and the traits by which the rest of the program uses it.
//!
//! A store keeps each event once, counts every event that it receives, and reads events back in log order. It **promises**:
//!
//! - [`Appender::append`] stores the rows of a [`Batch`], writes its row in the commit ledger and changes the counters in one
//!   transaction: all of it or nothing, durable when it returns. It returns the [`Outcome`] of each row.
//! - A group commit that is sent again with the same [`GroupCommit::id`] gets the answer of the attempt that committed, and
//!   writes nothing.
//! - Of several rows with one identity, exactly one is stored, whichever writers send them; within a batch the first.
//! - [`EventReader::list`] shows all that is committed. [`EventReader::scan`] shows every event exactly once in log order, up to
//!   the last stable position.
//! - [`EventReader::stats`] is one snapshot and exact.
//! - [`Retention::expire`] changes no counter but that of pruned events, never removes an unpublished event, and leaves identities:
//!   an event that comes again is a duplicate, however old its first copy is.
//!
//! It does **not** retry, wait or know about requests: that is the job of `ingest`. It does not validate either; it only
//! rejects what it cannot store ([`ErrorClass::Data`]). Only `ingest` appends; `http` and the commands read.
//!
//! Every method that returns a [`StoreError`] says with [`StoreError::class`] what the caller may do next. The documentation of
//! a method names only the classes that have a meaning of their own there.

mod append;
pub(crate) mod backoff;
mod batch;
#[cfg(test)]
#[cfg(feature = "postgres")]
mod conformance;
mod error;
mod keys;
mod maintenance;
mod name;
mod outbox;
#[cfg(feature = "postgres")]
pub(crate) mod postgres;
mod read;
mod retention;
pub(crate) mod sqlite;

use std::sync::Arc;

pub use self::append::{Appended, Appender, EventWriter, GroupCommit, LogPosition, Outcome};
pub use self::batch::{Batch, Row};
pub use self::error::{ErrorClass, StoreError};
pub use self::keys::{KEYS_MAX, KeyChanges, KeySaved, KeyStore};
pub use self::maintenance::{Maintenance, Verification};
pub use self::name::Named;
pub use self::outbox::{Backlog, CommitLedgerPruned, DeadLetter, EventsPage, Lease, NewDeadLetter, Outbox};
pub use self::read::{
    CONFLICT_PAYLOAD_BYTES_MAX, CONFLICTS_PER_MINUTE, Conflict, ConflictList, ConflictPage, Counts, EventReader,
    Filter, Found, List, Order, Page, Scan, ScanError, Stability, StoreStats, TOPICS_MAX, TopicList, TopicSummary,
    TopicSums, Turn,
};
pub use self::retention::{Archived, Expired, Expiry, Partition, Retention};
use crate::config::Database;

/// A whole store. A caller that needs only a part of it takes the trait of that part.
pub trait Store: EventReader + EventWriter + Outbox + Retention + KeyStore + Maintenance {}

impl<T: EventReader + EventWriter + Outbox + Retention + KeyStore + Maintenance> Store for T {}

/// Opens the store in `database`. Nothing is connected yet: each call makes the connections that it needs.
pub fn open(database: &Database) -> Result<Arc<dyn Store>, StoreError> {
    Ok(match database.sqlite_path() {
        Some(path) => Arc::new(sqlite::Sqlite::open(path)?),
        #[cfg(feature = "postgres")]
        None => Arc::new(postgres::Postgres::open(database)?),
        #[cfg(not(feature = "postgres"))]
        None => {
            return Err(StoreError::new(
                ErrorClass::Configuration,
                "this eventsieve was built without PostgreSQL: build it with the feature `postgres`, or use sqlite://PATH",
            ));
        }
    })
}
