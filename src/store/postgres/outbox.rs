//! The outbox: each call is one statement on the connection of the relay, so no transaction is open between two calls.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use sqlx::Row;
use sqlx::postgres::{PgArguments, PgRow};
use sqlx::query::Query;
use uuid::Uuid;

use super::Postgres;
use super::append::{interval, timestamp};
use super::connect::{Role, Session, bounded, connect};
use super::error::{decoding, failed_to};
use super::read::{LIST_TIMEOUT, stored_event, stored_events};
use super::statistics::backlog;
use crate::config::OUTBOX_LEASE_CREDIBLE;
use crate::event::Cursor;
use crate::store::{Backlog, CommitLedgerPruned, DeadLetter, EventsPage, Lease, NewDeadLetter, Outbox, StoreError};

const CLAIM: &str = include_str!("sql/claim.sql");
const EVENTS_OF: &str = include_str!("sql/events_of.sql");
const MARK_PUBLISHED: &str = include_str!("sql/mark_published.sql");
const RELEASE: &str = include_str!("sql/release.sql");
const RELEASE_ALL: &str = include_str!("sql/release_all.sql");
const DEAD_LETTER: &str = include_str!("sql/dead_letter.sql");
const DEAD_LETTERS: &str = include_str!("sql/dead_letters.sql");
const REMOVE_DEAD_LETTERS: &str = include_str!("sql/remove_dead_letters.sql");
const PRUNE_COMMIT_LEDGER: &str = include_str!("sql/prune_commit_ledger.sql");

/// How long a call may take.
const TIMEOUT: Duration = Duration::from_secs(5);

/// How many events a page has at most, however small they are.
const PAGE_EVENTS_MAX: i64 = 1000;

impl Postgres {
    /// Runs one statement on the connection of the relay.
    pub(super) async fn relay(
        &self,
        action: &'static str,
        query: Query<'_, sqlx::Postgres, PgArguments>,
    ) -> Result<Vec<PgRow>, StoreError> {
        let mut slot = self.relay.lock().await;
        let mut pg = match slot.take() {
            Some(pg) => pg,
            None => connect(self.address()?, Role::Relay).await?,
        };
        let rows = bounded(TIMEOUT, action, pg.fetch_all(query)).await;
        if !matches!(&rows, Err(error) if error.class.breaks_connection()) {
            *slot = Some(pg);
        }
        rows
    }
}

#[async_trait]
impl Outbox for Postgres {
    async fn claim_unpublished(&self, lease: Lease, limit: u32) -> Result<Vec<i64>, StoreError> {
        let query = self
            .query(CLAIM)
            .bind(lease.owner)
            .bind(interval(lease.length))
            .bind(i64::from(limit))
            .bind(interval(OUTBOX_LEASE_CREDIBLE));
        let rows = self.relay("claim batches", query).await?;
        rows.iter().map(|row| row.try_get("batch").map_err(decoding)).collect()
    }

    async fn events_of(
        &self,
        batches: &[i64],
        after: Option<Cursor>,
        bytes_max: usize,
    ) -> Result<EventsPage, StoreError> {
        let (after_batch, after_position) = after.map_or((-1, 0), |after| (after.batch(), after.position()));
        let query = self
            .query(EVENTS_OF)
            .bind(batches)
            .bind(after_batch)
            .bind(after_position)
            .bind(PAGE_EVENTS_MAX)
            .bind(i64::try_from(bytes_max).unwrap_or(i64::MAX))
            .bind(batches.iter().min().copied().unwrap_or(0))
            .bind(batches.iter().max().copied().unwrap_or(0));
        let rows = self.relay("read the events of batches", query).await?;
        let is_last = match rows.first() {
            Some(row) => {
                let scanned: i64 = row.try_get("scanned").map_err(decoding)?;
                let is_cut: bool = row.try_get("is_cut").map_err(decoding)?;
                scanned <= PAGE_EVENTS_MAX && !is_cut
            }
            None => true,
        };
        let events = stored_events(&rows)?;
        Ok(EventsPage { events, is_last })
    }

    async fn mark_published(&self, owner: Uuid, batches: &[i64]) -> Result<u64, StoreError> {
        let query = self.query(MARK_PUBLISHED).bind(owner).bind(batches);
        count(&self.relay("mark batches as published", query).await?)
    }

    async fn release(&self, owner: Uuid, batches: Option<&[i64]>) -> Result<u64, StoreError> {
        let query = match batches {
            Some(batches) => self.query(RELEASE).bind(owner).bind(batches),
            None => self.query(RELEASE_ALL).bind(owner),
        };
        count(&self.relay("release batches", query).await?)
    }

    async fn dead_letter(&self, events: &[NewDeadLetter]) -> Result<(), StoreError> {
        // Of two reasons for one place the last counts. Sorted, concurrent calls never deadlock.
        let reasons: BTreeMap<_, _> = events
            .iter()
            .map(|event| (event.cursor, event.reason.as_str()))
            .collect();
        let (batches, positions) = places(reasons.keys());
        // PostgreSQL's text cannot hold NUL, and an error of the sink may contain it.
        let reasons: Vec<_> = reasons
            .values()
            .map(|reason| reason.replace('\0', "\u{fffd}"))
            .collect();
        let query = self.query(DEAD_LETTER).bind(batches).bind(positions).bind(reasons);
        self.relay("dead-letter events", query).await.map(drop)
    }

    async fn dead_letters(&self, after: Cursor, limit: u32) -> Result<Vec<DeadLetter>, StoreError> {
        self.readers.run_with(LIST_TIMEOUT, (after, limit), dead_letters).await
    }

    async fn remove_dead_letters(&self, events: &[Cursor]) -> Result<u64, StoreError> {
        let (batches, positions) = places(events);
        let query = self.query(REMOVE_DEAD_LETTERS).bind(batches).bind(positions);
        count(&self.relay("remove dead letters", query).await?)
    }

    async fn backlog(&self) -> Result<Backlog, StoreError> {
        self.readers.run(TIMEOUT, backlog).await
    }

    async fn prune_commit_ledger(
        &self,
        after: i64,
        age: Duration,
        limit: u32,
    ) -> Result<CommitLedgerPruned, StoreError> {
        let query = self
            .query(PRUNE_COMMIT_LEDGER)
            .bind(after)
            .bind(interval(age))
            .bind(i64::from(limit));
        let rows = self.relay("prune the commit ledger", query).await?;
        let removed = count(&rows)?;
        let read = || {
            let row = rows.first().ok_or(sqlx::Error::RowNotFound)?;
            let last: Option<i64> = row.try_get("last")?;
            let has_met_young: bool = row.try_get("has_met_young")?;
            let is_full = row.try_get::<i64, _>("examined")? == i64::from(limit);
            Ok(last.filter(|_| is_full && !has_met_young))
        };
        let next = read().map_err(decoding)?;
        Ok(CommitLedgerPruned { removed, next })
    }
}

async fn dead_letters(pg: &mut Session, (after, limit): (Cursor, u32)) -> Result<Vec<DeadLetter>, StoreError> {
    let dead_letter = |row: &PgRow| {
        Ok(DeadLetter {
            event: stored_event(row)?,
            dead_lettered_at: timestamp(row.try_get("parked_at")?),
            reason: row.try_get("reason")?,
        })
    };
    let query = pg
        .query(DEAD_LETTERS)
        .bind(after.batch())
        .bind(after.position())
        .bind(i64::from(limit));
    let rows = pg.fetch_all(query).await.map_err(failed_to("list dead letters"))?;
    rows.iter().map(dead_letter).collect::<Result<_, _>>().map_err(decoding)
}

/// Places as two arrays.
fn places<'a>(cursors: impl IntoIterator<Item = &'a Cursor>) -> (Vec<i64>, Vec<i32>) {
    cursors
        .into_iter()
        .map(|cursor| (cursor.batch(), cursor.position()))
        .unzip()
}

/// The column `count` of the only row.
fn count(rows: &[PgRow]) -> Result<u64, StoreError> {
    let row = rows.first().ok_or_else(|| decoding(sqlx::Error::RowNotFound))?;
    let count: i64 = row.try_get("count").map_err(decoding)?;
    Ok(u64::try_from(count).unwrap_or(0))
}
