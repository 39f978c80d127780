//! The outbox: each call that writes is one short transaction on the connection of the relay; calls that only read use a reader.

use std::time::Duration;

use async_trait::async_trait;
use rusqlite::{Connection, Row, TransactionBehavior, named_params, params};
use uuid::Uuid;

use super::clock::{FUTURE_MICROS, in_micros, now, timestamp};
use super::connect::{Link, Role, blocking, closed};
use super::error::{committing, failed_to};
use super::read::{LIST_TIMEOUT, Taken, stored_event};
use super::statistics::backlog;
use super::{Sqlite, schema};
use crate::config::OUTBOX_LEASE_CREDIBLE;
use crate::event::Cursor;
use crate::store::{
    Backlog, CommitLedgerPruned, DeadLetter, ErrorClass, EventsPage, Lease, NewDeadLetter, Outbox, StoreError,
};

const CLAIM: &str = include_str!("sql/claim.sql");
const EVENTS_OF: &str = include_str!("sql/events_of.sql");
const DEAD_LETTER: &str = include_str!("sql/dead_letter.sql");
const DEAD_LETTERS: &str = include_str!("sql/dead_letters.sql");
const LEDGER_PAGE: &str = include_str!("sql/ledger_page.sql");

const MARK_PUBLISHED: &str =
    "update batches set published_at = ?3 where batch = ?1 and owner = ?2 and published_at is null";

const RELEASE: &str = "
    update batches set owner = null, lease_until = null where batch = ?1 and owner = ?2 and published_at is null";

/// An expired lease is left alone: after a long outage there may be very many.
const RELEASE_ALL: &str = "
    update batches set owner = null, lease_until = null
    where owner = ?1 and published_at is null and lease_until > ?2";

const REMOVE_DEAD_LETTER: &str = "delete from parked where batch = ?1 and position = ?2";

const REMOVE_LEDGER_ROW: &str = "delete from batches where batch = ?1";

/// How long a call may take, the wait for the lock included.
const TIMEOUT: Duration = Duration::from_secs(5);

/// How many events a page has at most, however small they are.
const PAGE_EVENTS_MAX: usize = 1000;

/// Whether a commit waits for the disk.
#[derive(Debug, Clone, Copy)]
enum Commit {
    /// The commit does not wait. A claim or a mark that is lost in a crash of the machine only causes a batch to be published
    /// again; the next group commit writes everything that was committed before it to disk.
    Lazy,
    /// The commit waits, because the caller relies on it: the mark that follows, the answer to a command.
    Durable,
}

impl Sqlite {
    /// Runs `work` in one transaction on the connection of the relay, on a thread for blocking work. If the caller is cancelled
    /// the transaction continues, and the next call waits for it.
    async fn relay<T: Send + 'static>(
        &self,
        action: &'static str,
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
            let done = transact(&mut link, action, commit, work);
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
    action: &'static str,
    commit: Commit,
    work: impl FnOnce(&Connection) -> rusqlite::Result<T>,
) -> Result<T, StoreError> {
    link.file.check()?;
    link.limit(TIMEOUT)?;
    let synchronous = match commit {
        Commit::Lazy => "normal",
        Commit::Durable => "full",
    };
    let transaction = link
        .connection
        .pragma_update(None, "synchronous", synchronous)
        .and_then(|()| {
            link.connection
                .transaction_with_behavior(TransactionBehavior::Immediate)
        })
        .map_err(failed_to(action))?;
    let done = work(&transaction).map_err(failed_to(action))?;
    transaction.commit().map_err(committing)?;
    // The file may have been removed or replaced while this waited for the lock.
    link.file
        .check()
        .map_err(|error| error.as_class(ErrorClass::Ambiguous))?;
    Ok(done)
}

#[async_trait]
impl Outbox for Sqlite {
    async fn claim_unpublished(&self, lease: Lease, limit: u32) -> Result<Vec<i64>, StoreError> {
        self.relay("claim batches", Commit::Lazy, move |connection| {
            let now = now().micros();
            let until = now.saturating_add(in_micros(lease.length));
            let latest = now.saturating_add(in_micros(OUTBOX_LEASE_CREDIBLE));
            let mut batches: Vec<i64> = connection
                .prepare_cached(CLAIM)?
                .query_map(params![lease.owner.as_bytes(), until, now, limit, latest], |row| {
                    row.get(0)
                })?
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
                            is_last = taken.events.len() < PAGE_EVENTS_MAX && taken.take(row)?;
                        }
                        if !is_last {
                            break;
                        }
                    }
                    let events = taken.events;
                    Ok(EventsPage { events, is_last })
                };
                read().map_err(failed_to("read the events of batches"))
            })
            .await
    }

    async fn mark_published(&self, owner: Uuid, batches: &[i64]) -> Result<u64, StoreError> {
        let batches = batches.to_vec();
        self.relay("mark batches as published", Commit::Lazy, move |connection| {
            let (now, mut statement) = (now().micros(), connection.prepare_cached(MARK_PUBLISHED)?);
            sum(&batches, |batch| {
                statement.execute(params![batch, owner.as_bytes(), now])
            })
        })
        .await
    }

    async fn release(&self, owner: Uuid, batches: Option<&[i64]>) -> Result<u64, StoreError> {
        let batches = batches.map(<[i64]>::to_vec);
        self.relay("release batches", Commit::Lazy, move |connection| match batches {
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

    async fn dead_letter(&self, events: &[NewDeadLetter]) -> Result<(), StoreError> {
        let events = events.to_vec();
        self.relay("dead-letter events", Commit::Durable, move |connection| {
            let (now, mut statement) = (now().micros(), connection.prepare_cached(DEAD_LETTER)?);
            for NewDeadLetter { cursor, reason } in &events {
                statement.execute(params![cursor.batch(), cursor.position(), now, reason])?;
            }
            Ok(())
        })
        .await
    }

    async fn dead_letters(&self, after: Cursor, limit: u32) -> Result<Vec<DeadLetter>, StoreError> {
        let dead_letter = |row: &Row<'_>| {
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
                        .prepare_cached(DEAD_LETTERS)?
                        .query_map(params![after.batch(), after.position(), limit], dead_letter)?
                        .collect::<Result<_, _>>()
                };
                read().map_err(failed_to("list dead letters"))
            })
            .await
    }

    async fn remove_dead_letters(&self, events: &[Cursor]) -> Result<u64, StoreError> {
        let events = events.to_vec();
        self.relay("remove dead letters", Commit::Durable, move |connection| {
            let mut statement = connection.prepare_cached(REMOVE_DEAD_LETTER)?;
            sum(&events, |cursor| {
                statement.execute(params![cursor.batch(), cursor.position()])
            })
        })
        .await
    }

    async fn backlog(&self) -> Result<Backlog, StoreError> {
        self.readers
            .run(LIST_TIMEOUT, |connection| {
                backlog(connection).map_err(failed_to("count the backlog"))
            })
            .await
    }

    /// The log itself keeps the number of its last batch, so no number is reused.
    async fn prune_commit_ledger(
        &self,
        after: i64,
        age: Duration,
        limit: u32,
    ) -> Result<CommitLedgerPruned, StoreError> {
        self.relay("prune the commit ledger", Commit::Lazy, move |connection| {
            let now = now().micros();
            let before = now.saturating_sub(in_micros(age));
            let future = now.saturating_add(FUTURE_MICROS);
            let page: Vec<(i64, bool, bool)> = connection
                .prepare_cached(LEDGER_PAGE)?
                .query_map(params![after, before, limit, future], |row| {
                    Ok((row.get(0)?, row.get(1)?, row.get(2)?))
                })?
                .collect::<Result<_, _>>()?;
            let old: Vec<_> = page.iter().take_while(|(_, is_young, _)| !is_young).collect();
            let mut remove = connection.prepare_cached(REMOVE_LEDGER_ROW)?;
            let removed = sum(
                &old,
                |(batch, _, is_done)| {
                    if *is_done { remove.execute([batch]) } else { Ok(0) }
                },
            )?;
            // A full page of only old rows is followed by another one.
            let last = old.last().filter(|_| old.len() == limit as usize);
            let next = last.map(|(batch, ..)| *batch);
            Ok(CommitLedgerPruned { removed, next })
        })
        .await
    }
}

/// Calls `each` for every item, and adds up the numbers of changed rows.
fn sum<T>(all: &[T], mut each: impl FnMut(&T) -> rusqlite::Result<usize>) -> rusqlite::Result<u64> {
    all.iter().try_fold(0, |sum, one| Ok(sum + each(one)? as u64))
}
