//! Removing events by hand: the same way as what expires.

use std::time::Duration;

use tokio::time::Instant;

use super::archive::{Archive, ArchiveError};
use super::lease::under_lease;
use crate::event::{Timestamp, TopicGlob};
use crate::store::backoff::Backoff;
use crate::store::{Expired, Expiry, Partition, Store, StoreError};

/// How long to wait for a service that is removing something, and for transactions that are writing to a partition.
const PATIENCE: Duration = Duration::from_secs(600);

/// What to remove.
#[derive(Debug, Clone)]
pub struct Prune {
    /// Events that were received before this time, by the store's clock.
    pub before: Timestamp,
    /// Only events of topics that match.
    pub topics: Option<TopicGlob>,
    /// Only count.
    pub dry_run: bool,
}

/// What was removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Events removed, or with [`Prune::dry_run`] those that would be.
    pub removed: u64,
    /// Events that are old enough but were kept because they are not published yet.
    pub held_back: u64,
}

/// Why nothing more was removed.
#[derive(Debug, thiserror::Error)]
pub enum PruneError {
    /// The store failed.
    #[error("{}", .0.line())]
    Store(#[from] StoreError),
    /// The archive failed; what is not archived stays.
    #[error("cannot archive what would be removed: {0}")]
    Archive(#[from] ArchiveError),
    /// A service is removing what has expired.
    #[error("a service is removing what has expired, and has not finished within {PATIENCE:?}: try again later")]
    Busy,
    /// Transactions are still writing.
    #[error(
        "a transaction on the server has been open for more than {PATIENCE:?}, and may still write to what would be removed: try again later"
    )]
    Open,
}

/// Removes old events, after they were written to `archive`. `progress` is called with what has been done so far.
pub async fn prune(
    store: &dyn Store,
    archive: Option<&Archive>,
    prune: &Prune,
    mut progress: impl FnMut(Pruned),
) -> Result<Pruned, PruneError> {
    if prune.dry_run {
        return of_partitions(store, None, prune, &mut progress).await;
    }
    let (begun, mut backoff) = (Instant::now(), Backoff::default());
    loop {
        let work = async {
            end_partition(store, prune).await?;
            of_partitions(store, archive, prune, &mut progress).await
        };
        match under_lease(store, work).await? {
            Some(pruned) => return pruned,
            None if begun.elapsed() < PATIENCE => tokio::time::sleep(backoff.next_wait()).await,
            None => return Err(PruneError::Busy),
        }
    }
}

/// Ends the current partition if it has events to remove: only partitions that have ended lose any.
async fn end_partition(store: &dyn Store, prune: &Prune) -> Result<(), PruneError> {
    let partitions = store.partitions().await?;
    let Some(current) = partitions.last() else {
        return Ok(());
    };
    if store.expire(&count(prune, current)).await?.removed == 0 {
        return Ok(());
    }
    let (first, begun, mut backoff) = (current.first_batch, Instant::now(), Backoff::default());
    while !store.begin_partition(Duration::ZERO).await? {
        let partitions = store.partitions().await?;
        // Another process may have ended it.
        if partitions
            .iter()
            .any(|one| one.first_batch == first && one.ended_at.is_some())
        {
            break;
        }
        if begun.elapsed() > PATIENCE {
            return Err(PruneError::Open);
        }
        tokio::time::sleep(backoff.next_wait()).await;
    }
    Ok(())
}

/// The removal of a partition's events, only counted.
fn count(prune: &Prune, partition: &Partition) -> Expiry {
    Expiry {
        topics: prune.topics.iter().map(|glob| (glob.clone(), true)).collect(),
        others: prune.topics.is_none(),
        before: Some(prune.before),
        dry_run: true,
        ..Expiry::of_all(partition.first_batch)
    }
}

async fn of_partitions(
    store: &dyn Store,
    archive: Option<&Archive>,
    prune: &Prune,
    progress: &mut impl FnMut(Pruned),
) -> Result<Pruned, PruneError> {
    let mut pruned = Pruned::default();
    for partition in store.partitions().await? {
        if partition.ended_at.is_none() && !prune.dry_run {
            continue;
        }
        let expired = of_partition(store, archive, prune, &partition).await?;
        pruned.removed += expired.removed;
        pruned.held_back += expired.held_back;
        progress(pruned);
    }
    Ok(pruned)
}

async fn of_partition(
    store: &dyn Store,
    archive: Option<&Archive>,
    prune: &Prune,
    partition: &Partition,
) -> Result<Expired, PruneError> {
    let count = count(prune, partition);
    let counted = store.expire(&count).await?;
    if prune.dry_run || counted.removed == 0 {
        return Ok(Expired {
            removed: counted.removed,
            ..counted
        });
    }
    let (begun, mut backoff) = (Instant::now(), Backoff::default());
    while is_open(store, partition).await? {
        if begun.elapsed() > PATIENCE {
            return Err(PruneError::Open);
        }
        tokio::time::sleep(backoff.next_wait()).await;
    }
    if let Some(archive) = archive {
        // As it is now, not as it was while something was being written to it.
        let partitions = store.partitions().await?;
        if let Some(partition) = partitions.iter().find(|one| one.first_batch == partition.first_batch) {
            archive.keep(store, partition).await?;
        }
    }
    let expiry = Expiry {
        dry_run: false,
        ..count
    };
    Ok(store.expire(&expiry).await?)
}

/// Whether a transaction may still be writing to a partition that has ended.
async fn is_open(store: &dyn Store, partition: &Partition) -> Result<bool, StoreError> {
    let partitions = store.partitions().await?;
    let found = partitions.iter().find(|one| one.first_batch == partition.first_batch);
    Ok(found.is_some_and(|one| one.is_open))
}
