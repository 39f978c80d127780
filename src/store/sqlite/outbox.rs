//! The outbox: each call that writes is one short transaction on a connection that is kept for it; what reads is a reader.

use std::time::Duration;

use async_trait::async_trait;
use rusqlite::{Connection, Row, TransactionBehavior, named_params, params};
use uuid::Uuid;

use super::append::{in_micros, now, timestamp};
use super::connect::{Link, Role, blocking, closed};
use super::error::{committing, during};
use super::read::{LIST_TIMEOUT, Taken, backlog, columns, stored_event};
use super::{Sqlite, schema};
use crate::event::Cursor;
use crate::store::{
    Backlog, CommitLedgerPruned, DeadLetter, ErrorClass, EventsPage, Lease, NewDeadLetter, Outbox, StoreError,
};

/// Nobody else writes meanwhile, so two that claim at once take turns of some microseconds each.
const CLAIM: &str = "
    update batches set owner = ?1, lease_until = ?2
    where batch in (
        select batch from batches indexed by batches_unpublished_idx
        where published_at is null and (lease_until is null or lease_until <= ?3)
        order by batch limit ?4
    )
    returning batch";

const EVENTS_OF: &str = concat!(
    "select ",
    columns!(),
    " from events indexed by events_log_idx
    where batch = :batch and (batch, position) > (:after_batch, :after_position)
    order by batch, position"
);

const MARK: &str = "update batches set published_at = ?3 where batch = ?1 and owner = ?2 and published_at is null";

const RELEASE: &str = "
    update batches set owner = null, lease_until = null where batch = ?1 and owner = ?2 and published_at is null";

/// A lease that has ended needs no giving back: of a long outage there may be very many.
const RELEASE_ALL: &str = "
    update batches set owner = null, lease_until = null
    where owner = ?1 and published_at is null and lease_until > ?2";

const PARK: &str = "
    insert into parked (batch, position, topic, event_id, parked_at, reason)
    select batch, position, topic, event_id, ?3, ?4
    from events indexed by events_log_idx where batch = ?1 and position = ?2
    on conflict (batch, position) do update set reason = excluded.reason";

/// Each event is looked up by its key.
const PARKED: &str = "
    select e.topic, e.event_id, e.occurred_at, e.source, e.payload, e.received_at, e.batch, e.position, p.parked_at, p.reason
    from parked p cross join events e indexed by sqlite_autoindex_events_1
        on e.topic = p.topic and e.event_id = p.event_id and e.batch = p.batch and e.position = p.position
    where (p.batch, p.position) > (?1, ?2)
    order by p.batch, p.position limit ?3";

const UNPARK: &str = "delete from parked where batch = ?1 and position = ?2";

const LEDGER: &str = "
    select batch, received_at > ?2, coalesce(published_at <= ?2, false) from batches where batch > ?1 order by batch limit ?3";

const FORGET: &str = "delete from batches where batch = ?1";

/// How long a call may take, the wait for another's lock included.
const TIMEOUT: Duration = Duration::from_secs(5);

/// How many events a portion has at most, however small they are.
const PORTION_EVENTS_MAX: usize = 1000;

/// Whether a commit waits for the disk.
#[derive(Debug, Clone, Copy)]
enum Commit {
    /// It does not. A claim or a mark that is lost in a crash of the machine only means that a batch is published again;
    /// everything that was committed before the next flush is on disk with it.
    Soon,
    /// It does: what follows it in time (the mark, the answer to a command) relies on it.
    Durable,
}

impl Sqlite {
    /// Runs something in one transaction on the relay's connection, on a thread where it may block. If the caller goes away
    /// it goes on, and the next call waits for it.
    async fn relay<T: Send + 'static>(
        &self,
        what: &'static str,
        commit: Commit,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let mut slot = self.relay.clone().lock_owned().await;
        if self.readers.is_closed() {
            return Err(closed());
        }
        let file = self.file.clone();
        blocking(move || {
            let mut link = match slot.take() {
                Some(link) => link,
                None => open(&file)?,
            };
            let done = transact(&mut link, what, commit, work);
            if !matches!(&done, Err(error) if error.class.breaks_connection()) {
                *slot = Some(link);
            }
            done
        })
        .await
    }
}

fn open(file: &std::sync::Arc<super::connect::StoreFile>) -> Result<Link, StoreError> {
    let link = Link::open(file, Role::Relay)?;
    link.check_writable()?;
    schema::check(&link.connection)?;
    schema::check_durable(&link)?;
    Ok(link)
}

fn transact<T>(
    link: &mut Link,
    what: &'static str,
    commit: Commit,
    work: impl FnOnce(&Connection) -> rusqlite::Result<T>,
) -> Result<T, StoreError> {
    link.file.check()?;
    link.limit(TIMEOUT)?;
    let synchronous = match commit {
        Commit::Soon => "normal",
        Commit::Durable => "full",
    };
    let transaction = link
        .connection
        .pragma_update(None, "synchronous", synchronous)
        .and_then(|()| {
            link.connection
                .transaction_with_behavior(TransactionBehavior::Immediate)
        })
        .map_err(during(what))?;
    let done = work(&transaction).map_err(during(what))?;
    transaction.commit().map_err(committing)?;
    // The file may have lost its name while the lock was waited for.
    link.file
        .check()
        .map_err(|error| error.as_class(ErrorClass::Ambiguous))?;
    Ok(done)
}

#[async_trait]
impl Outbox for Sqlite {
    async fn claim_unpublished(&self, lease: Lease, limit: u32) -> Result<Vec<i64>, StoreError> {
        self.relay("claiming batches", Commit::Soon, move |connection| {
            let now = now().micros();
            let until = now.saturating_add(in_micros(lease.length));
            let mut batches: Vec<i64> = connection
                .prepare_cached(CLAIM)?
                .query_map(params![lease.owner.as_bytes(), until, now, limit], |row| row.get(0))?
                .collect::<Result<_, _>>()?;
            batches.sort_unstable();
            Ok(batches)
        })
        .await
    }

    async fn events_of(
        &self,
        batches: &[i64],
        after: Option<Cursor>,
        bytes_max: usize,
    ) -> Result<EventsPage, StoreError> {
        let (after_batch, after_position) = after.map_or((-1, 0), |after| (after.batch(), after.position()));
        let mut batches: Vec<i64> = batches.iter().copied().filter(|batch| *batch >= after_batch).collect();
        batches.sort_unstable();
        self.readers
            .run(LIST_TIMEOUT, move |connection| {
                let read = || {
                    let mut statement = connection.prepare_cached(EVENTS_OF)?;
                    let (mut taken, mut is_last) = (Taken::new(bytes_max), true);
                    for batch in &batches {
                        let mut rows = statement.query(named_params! {
                            ":batch": batch, ":after_batch": after_batch, ":after_position": after_position
                        })?;
                        while is_last && let Some(row) = rows.next()? {
                            is_last = taken.events.len() < PORTION_EVENTS_MAX && taken.take(row)?;
                        }
                        if !is_last {
                            break;
                        }
                    }
                    let events = taken.events;
                    Ok(EventsPage { events, is_last })
                };
                read().map_err(during("reading batches"))
            })
            .await
    }

    async fn mark_published(&self, owner: Uuid, batches: &[i64]) -> Result<u64, StoreError> {
        let batches = batches.to_vec();
        self.relay("marking batches", Commit::Soon, move |connection| {
            let (now, mut statement) = (now().micros(), connection.prepare_cached(MARK)?);
            sum(&batches, |batch| {
                statement.execute(params![batch, owner.as_bytes(), now])
            })
        })
        .await
    }

    async fn release(&self, owner: Uuid, batches: Option<&[i64]>) -> Result<u64, StoreError> {
        let batches = batches.map(<[i64]>::to_vec);
        self.relay("releasing batches", Commit::Soon, move |connection| match batches {
            Some(batches) => {
                let mut statement = connection.prepare_cached(RELEASE)?;
                sum(&batches, |batch| statement.execute(params![batch, owner.as_bytes()]))
            }
            None => {
                let mut statement = connection.prepare_cached(RELEASE_ALL)?;
                Ok(statement.execute(params![owner.as_bytes(), now().micros()])? as u64)
            }
        })
        .await
    }

    async fn dead_letter(&self, refused: &[NewDeadLetter]) -> Result<(), StoreError> {
        let refused = refused.to_vec();
        self.relay("parking events", Commit::Durable, move |connection| {
            let (now, mut statement) = (now().micros(), connection.prepare_cached(PARK)?);
            for NewDeadLetter { cursor, reason } in &refused {
                statement.execute(params![cursor.batch(), cursor.position(), now, reason])?;
            }
            Ok(())
        })
        .await
    }

    async fn dead_letters(&self, after: Cursor, limit: u32) -> Result<Vec<DeadLetter>, StoreError> {
        let parked = |row: &Row<'_>| {
            Ok(DeadLetter {
                event: stored_event(row)?,
                dead_lettered_at: timestamp(row.get("parked_at")?)?,
                reason: row.get("reason")?,
            })
        };
        self.readers
            .run(LIST_TIMEOUT, move |connection| {
                let read = || {
                    connection
                        .prepare_cached(PARKED)?
                        .query_map(params![after.batch(), after.position(), limit], parked)?
                        .collect::<Result<_, _>>()
                };
                read().map_err(during("listing parked events"))
            })
            .await
    }

    async fn remove_dead_letters(&self, events: &[Cursor]) -> Result<u64, StoreError> {
        let events = events.to_vec();
        self.relay("unparking events", Commit::Durable, move |connection| {
            let mut statement = connection.prepare_cached(UNPARK)?;
            sum(&events, |cursor| {
                statement.execute(params![cursor.batch(), cursor.position()])
            })
        })
        .await
    }

    async fn backlog(&self) -> Result<Backlog, StoreError> {
        self.readers
            .run(LIST_TIMEOUT, |connection| {
                backlog(connection).map_err(during("counting what is not published"))
            })
            .await
    }

    /// The log remembers the number of its last batch itself, so no number comes again.
    async fn prune_commit_ledger(
        &self,
        after: i64,
        age: Duration,
        limit: u32,
    ) -> Result<CommitLedgerPruned, StoreError> {
        self.relay("pruning the ledger", Commit::Soon, move |connection| {
            let before = now().micros().saturating_sub(in_micros(age));
            let page: Vec<(i64, bool, bool)> = connection
                .prepare_cached(LEDGER)?
                .query_map(params![after, before, limit], |row| {
                    Ok((row.get(0)?, row.get(1)?, row.get(2)?))
                })?
                .collect::<Result<_, _>>()?;
            let old: Vec<_> = page.iter().take_while(|(_, is_young, _)| !is_young).collect();
            let mut forget = connection.prepare_cached(FORGET)?;
            let removed = sum(
                &old,
                |(batch, _, is_done)| {
                    if *is_done { forget.execute([batch]) } else { Ok(0) }
                },
            )?;
            // A page of nothing but old rows is followed by another one, unless it is the end.
            let last = old.last().filter(|_| old.len() == limit as usize);
            let next = last.map(|(batch, ..)| *batch);
            Ok(CommitLedgerPruned { removed, next })
        })
        .await
    }
}

/// Does something for each, and adds up how many rows it changed.
fn sum<T>(all: &[T], mut each: impl FnMut(&T) -> rusqlite::Result<usize>) -> rusqlite::Result<u64> {
    all.iter().try_fold(0, |sum, one| Ok(sum + each(one)? as u64))
}
