//! Opening, checking and tidying up a store: what the service does at its start and end, and what the commands do.

use async_trait::async_trait;

use super::error::StoreError;
use super::name::Named;
use super::read::{Counts, Stability};

/// The result of a recount of the store.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verification {
    /// Events in the store.
    pub rows: i64,
    /// Identities in the store.
    pub identities: i64,
    /// Identities that have expired.
    pub identities_forgotten: i64,
    /// Partitions that have not been dropped.
    pub partitions: i64,
    /// The sum of the counters.
    pub counts: Counts,
    /// Batches that are not published yet.
    pub outbox_batches: i64,
    /// One sentence for each inconsistency; empty when there is none.
    pub drifts: Vec<String>,
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

    /// Grants a role of the database what it needs to serve, verify and prune without owning the tables. Fails as
    /// [`Configuration`](super::ErrorClass::Configuration) where there is no such role, or where a store has none.
    async fn grant(&self, role: &str) -> Result<(), StoreError>;

    /// Fails as [`Configuration`](super::ErrorClass::Configuration) when the schema is older than this program's.
    async fn check_schema(&self) -> Result<(), StoreError>;

    /// Checks that the store can be reached *and written to*, on a connection of its own, and returns how far the log is
    /// stable. Fails as [`ReadOnly`](super::ErrorClass::ReadOnly) when the store takes no writes.
    async fn probe(&self) -> Result<Stability, StoreError>;

    /// Recounts events, identities and partitions against counters and outbox in one snapshot. An inconsistency is not an error but part of the result.
    async fn verify(&self) -> Result<Verification, StoreError>;

    /// Finds out which topics are the largest, for [`StoreStats::topics`](super::StoreStats::topics), if there are so many that the store
    /// cannot tell at once, and if this was last done long enough ago: it reads the counters of all.
    async fn find_largest_topics(&self) -> Result<(), StoreError>;

    /// The version of the server, or of the library where there is no server.
    async fn version(&self) -> Result<String, StoreError>;

    /// Warnings about settings of the server that endanger the promises of the store, one sentence each.
    async fn warnings(&self) -> Result<Vec<String>, StoreError>;

    /// Closes the idle connections; later calls fail.
    async fn close(&self);
}
