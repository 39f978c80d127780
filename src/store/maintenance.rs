//! Opening, checking and tidying up a store: what the service does at its start and end, and what the commands do.

use async_trait::async_trait;

use super::error::StoreError;
use super::name::Named;
use super::read::{Counts, Stability};
use crate::event::{Cursor, Timestamp};

/// The result of a recount of the store.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verification {
    /// Rows in the store.
    pub rows: i64,
    /// The sum of the counters.
    pub counts: Counts,
    /// Batches that are not published yet.
    pub outbox_batches: i64,
    /// One sentence for each inconsistency; empty when there is none.
    pub drifts: Vec<String>,
}

/// One step of removing old events.
#[derive(Debug, Clone)]
pub struct Prune {
    /// Events that were received before this time are removed.
    pub before: Timestamp,
    /// The step begins behind this place in the log.
    pub after: Cursor,
    /// How many events the step examines; at least 1.
    pub limit: u32,
    /// Only count.
    pub dry_run: bool,
}

/// What one step of pruning did, or with [`Prune::dry_run`] would have done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pruned {
    /// Events removed.
    pub removed: u64,
    /// Events that are old enough but were kept because they are not published yet.
    pub unpublished: u64,
    /// Where the next step begins; `None` when this step reached an event that is not old enough, or the end of the log.
    pub next: Option<Cursor>,
}

/// The part of a store that the start and the end of the service, its probe and the commands use.
#[async_trait]
pub trait Maintenance: Named {
    /// Claims the store for one service, until the store is closed or the process ends. A store that several services may
    /// share (PostgreSQL) has nothing to claim. Commands that run beside a service need no claim. Fails as
    /// [`Configuration`](super::ErrorClass::Configuration) when another process has claimed the store.
    async fn claim(&self) -> Result<(), StoreError>;

    /// Applies the missing migrations and returns the version that this program has; several replicas may do so at once. A
    /// schema that a newer program has made stays as it is, because migrations only add. Fails as
    /// [`Configuration`](super::ErrorClass::Configuration) when the database belongs to another program.
    async fn migrate(&self) -> Result<i64, StoreError>;

    /// Fails as [`Configuration`](super::ErrorClass::Configuration) when the schema is older than this program's.
    async fn check_schema(&self) -> Result<(), StoreError>;

    /// Checks that the store can be reached *and written to*, on a connection of its own, and returns how far the log is
    /// stable. Fails as [`ReadOnly`](super::ErrorClass::ReadOnly) when the store takes no writes.
    async fn probe(&self) -> Result<Stability, StoreError>;

    /// Takes one step of pruning, in one transaction: of the next events in log order, those that are old enough and
    /// published are removed and counted as pruned. Cursors stay valid, and batch numbers are never reused.
    ///
    /// The log is nearly in the order of `received_at`, so a step that meets no event that is old enough is the last.
    async fn prune(&self, step: &Prune) -> Result<Pruned, StoreError>;

    /// Recounts rows against counters and outbox in one snapshot. An inconsistency is not an error but part of the result.
    async fn verify(&self) -> Result<Verification, StoreError>;

    /// The version of the server, or of the library where there is no server.
    async fn version(&self) -> Result<String, StoreError>;

    /// Warnings about settings of the server that endanger the promises of the store, one sentence each.
    async fn warnings(&self) -> Result<Vec<String>, StoreError>;

    /// Closes the idle connections; later calls fail.
    async fn close(&self);
}
