//! The outbox: each call is one statement on a connection of the relay's own, so no transaction is open between two calls.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use sqlx::Row;
use sqlx::postgres::{PgArguments, PgRow};
use sqlx::query::Query;
use uuid::Uuid;

use super::Postgres;
use super::append::{interval, timestamp};
use super::connect::{Role, bounded, connect};
use super::error::{decoding, during};
use super::read::{LIST_TIMEOUT, before_cut, columns, cut, is_cut, stored_event, stored_events};
use super::statistics::backlog;
use crate::event::Cursor;
use crate::store::{Backlog, CommitLedgerPruned, DeadLetter, EventsPage, Lease, NewDeadLetter, Outbox, StoreError};

/// $1 owner, $2 length of the lease, $3 how many. Who claims at the same time passes over what is locked here, and the lock
/// ends with the statement. Rows are found again by their ctid: no plan can make a scan of it.
const CLAIM: &str = "
    with free as materialized (
        select ctid as row from batches
        where published_at is null and (lease_until is null or lease_until <= now())
        order by batch limit $3 for update skip locked
    ), claimed as (
        update batches set owner = $1, lease_until = now() + $2
        where ctid = any (array(select row from free))
        returning batch
    )
    select batch from claimed order by batch";

/// $1 the batches, $2, $3 the place behind which it begins, $4 how many events at most, $5 how many bytes. Batch by batch, so
/// that what lies between them in the log costs nothing, and it can stop at the limit.
const EVENTS_OF: &str = concat!(
    "with examined as materialized (
        select e.* from (
            select b.batch from unnest($1::bigint[]) as b(batch) where b.batch >= $2::bigint order by b.batch
        ) b cross join lateral (
            select e.* from events e
            where e.batch = b.batch and (e.batch, e.position) > ($2::bigint, $3::int)
            order by e.batch, e.position limit $4::bigint + 1
        ) e
        order by b.batch, e.position limit $4::bigint + 1
    ), ",
    cut!(
        "select e.* from examined e order by e.batch, e.position limit $4::bigint",
        "$5"
    ),
    " select x.scanned, ",
    is_cut!(),
    ", p.* from x left join (
        select ",
    columns!(),
    " from examined e where ",
    before_cut!(),
    " order by e.batch, e.position limit $4::bigint
    ) p on true
    order by p.batch, p.position"
);

const MARK: &str = "
    with marked as (
        update batches set published_at = now()
        where batch = any ($2) and owner = $1 and published_at is null
        returning batch
    )
    select count(*) from marked";

const RELEASE: &str = "
    with released as (
        update batches set owner = null, lease_until = null
        where batch = any ($2) and owner = $1 and published_at is null
        returning batch
    )
    select count(*) from released";

/// A lease that has ended needs no giving back: of a long outage there may be very many.
const RELEASE_ALL: &str = "
    with released as (
        update batches set owner = null, lease_until = null
        where owner = $1 and published_at is null and lease_until > now()
        returning batch
    )
    select count(*) from released";

/// Lets the commit of the statement that this stands in wait for the disk, whatever the session's setting is: what follows
/// it in time (the mark, the answer to a command) relies on it. A stronger setting of the server's is kept. The setting is
/// looked at when the transaction commits, and ends with it. A `with` that only reads is run if the statement uses it.
macro_rules! durable {
    () => {
        "durable as materialized (
            select set_config('synchronous_commit', case reset_val when 'off' then 'on' else reset_val end, true)
            from pg_settings where name = 'synchronous_commit'
        )"
    };
}

/// $1 batches, $2 positions, $3 reasons. An event that is being pruned is waited for, and then is not there; one that is
/// parked now is not pruned before this has ended.
const PARK: &str = concat!(
    "with ",
    durable!(),
    " insert into parked (batch, position, topic, event_id, parked_at, reason)
    select e.batch, e.position, e.topic, e.event_id, now(), r.reason
    from durable, unnest($1::bigint[], $2::int[], $3::text[]) as r(batch, position, reason)
        cross join lateral (
            select e.batch, e.position, e.topic, e.event_id from events e
            where e.batch = r.batch and e.position = r.position
            offset 0 for key share
        ) e
    on conflict (batch, position) do update set reason = excluded.reason"
);

/// $1, $2: behind this place; $3: limit. Each event is looked up by its key.
const PARKED: &str = concat!(
    "select p.parked_at, p.reason, e.*
    from parked p cross join lateral (
        select ",
    columns!(),
    " from events e
        where e.topic = p.topic and e.event_id = p.event_id and e.batch = p.batch and e.position = p.position
        offset 0
    ) e
    where (p.batch, p.position) > ($1::bigint, $2::int)
    order by p.batch, p.position limit $3::bigint"
);

/// $1 batches, $2 positions.
const UNPARK: &str = concat!(
    "with ",
    durable!(),
    ", gone as (
        delete from parked p using durable, unnest($1::bigint[], $2::int[]) as r(batch, position)
        where p.batch = r.batch and p.position = r.position
        returning p.batch
    )
    select count(*) from gone"
);

/// $1 the batch behind which the step begins, $2 the age, $3 how many rows it looks at. `high_water` keeps the number of a
/// batch that is gone from coming again: of one that stored nothing, the row here is the only trace.
const PRUNE_LEDGER: &str = "
    with page as materialized (
        select ctid as row, batch, received_at > now() - $2 as is_young, published_at <= now() - $2 as is_done
        from batches where batch > $1 order by batch limit $3
    ), young as materialized (
        select min(batch) as batch from page where is_young
    ), gone as (
        delete from batches
        where ctid = any (array(
            select p.row from page p, young where p.is_done and (young.batch is null or p.batch < young.batch)
        ))
        returning batch
    ), marked as (
        update log set high_water = newest.batch
        from (select max(batch) as batch from gone) newest where newest.batch > high_water
    )
    select (select count(*) from gone) as count, (select count(*) from page) as examined,
           (select max(batch) from page) as last, young.batch is not null as has_met_young
    from young";

/// How long a call may take.
const TIMEOUT: Duration = Duration::from_secs(5);

/// How many events a portion has at most, however small they are.
const PORTION_EVENTS_MAX: i64 = 1000;

impl Postgres {
    /// Runs one statement on the relay's connection.
    async fn relay(
        &self,
        what: &'static str,
        query: Query<'_, sqlx::Postgres, PgArguments>,
    ) -> Result<Vec<PgRow>, StoreError> {
        let mut slot = self.relay.lock().await;
        let mut pg = match slot.take() {
            Some(pg) => pg,
            None => connect(self.options()?, Role::Relay).await?,
        };
        let rows = bounded(TIMEOUT, what, query.fetch_all(&mut pg)).await;
        if !matches!(&rows, Err(error) if error.class.breaks_connection()) {
            *slot = Some(pg);
        }
        rows
    }
}

#[async_trait]
impl Outbox for Postgres {
    async fn claim_unpublished(&self, lease: Lease, limit: u32) -> Result<Vec<i64>, StoreError> {
        let query = sqlx::query(CLAIM)
            .bind(lease.owner)
            .bind(interval(lease.length))
            .bind(i64::from(limit));
        let rows = self.relay("claiming batches", query).await?;
        rows.iter().map(|row| row.try_get("batch").map_err(decoding)).collect()
    }

    async fn events_of(
        &self,
        batches: &[i64],
        after: Option<Cursor>,
        bytes_max: usize,
    ) -> Result<EventsPage, StoreError> {
        let (after_batch, after_position) = after.map_or((-1, 0), |after| (after.batch(), after.position()));
        let query = sqlx::query(EVENTS_OF)
            .bind(batches)
            .bind(after_batch)
            .bind(after_position)
            .bind(PORTION_EVENTS_MAX)
            .bind(i64::try_from(bytes_max).unwrap_or(i64::MAX));
        let rows = self.relay("reading batches", query).await?;
        let is_last = match rows.first() {
            Some(row) => {
                let scanned: i64 = row.try_get("scanned").map_err(decoding)?;
                let is_cut: bool = row.try_get("is_cut").map_err(decoding)?;
                scanned <= PORTION_EVENTS_MAX && !is_cut
            }
            None => true,
        };
        let events = stored_events(&rows)?;
        Ok(EventsPage { events, is_last })
    }

    async fn mark_published(&self, owner: Uuid, batches: &[i64]) -> Result<u64, StoreError> {
        let query = sqlx::query(MARK).bind(owner).bind(batches);
        count(&self.relay("marking batches", query).await?)
    }

    async fn release(&self, owner: Uuid, batches: Option<&[i64]>) -> Result<u64, StoreError> {
        let query = match batches {
            Some(batches) => sqlx::query(RELEASE).bind(owner).bind(batches),
            None => sqlx::query(RELEASE_ALL).bind(owner),
        };
        count(&self.relay("releasing batches", query).await?)
    }

    async fn dead_letter(&self, refused: &[NewDeadLetter]) -> Result<(), StoreError> {
        // Of two reasons for one place the last counts; and sorted, two calls at once never deadlock.
        let reasons: BTreeMap<_, _> = refused
            .iter()
            .map(|refused| (refused.cursor, refused.reason.as_str()))
            .collect();
        let (batches, positions) = places(reasons.keys());
        // PostgreSQL's text knows no NUL, and what somebody else's server said may have one.
        let reasons: Vec<_> = reasons
            .values()
            .map(|reason| reason.replace('\0', "\u{fffd}"))
            .collect();
        let query = sqlx::query(PARK).bind(batches).bind(positions).bind(reasons);
        self.relay("parking events", query).await.map(drop)
    }

    async fn dead_letters(&self, after: Cursor, limit: u32) -> Result<Vec<DeadLetter>, StoreError> {
        let parked = |row: &PgRow| {
            Ok(DeadLetter {
                event: stored_event(row)?,
                dead_lettered_at: timestamp(row.try_get("parked_at")?),
                reason: row.try_get("reason")?,
            })
        };
        let rows = self
            .readers
            .run(LIST_TIMEOUT, |mut pg| async move {
                let query = sqlx::query(PARKED)
                    .bind(after.batch())
                    .bind(after.position())
                    .bind(i64::from(limit));
                let rows = query.fetch_all(&mut pg).await;
                Ok((pg, rows.map_err(during("listing parked events"))?))
            })
            .await?;
        rows.iter().map(parked).collect::<Result<_, _>>().map_err(decoding)
    }

    async fn remove_dead_letters(&self, events: &[Cursor]) -> Result<u64, StoreError> {
        let (batches, positions) = places(events);
        let query = sqlx::query(UNPARK).bind(batches).bind(positions);
        count(&self.relay("unparking events", query).await?)
    }

    async fn backlog(&self) -> Result<Backlog, StoreError> {
        self.readers
            .run(TIMEOUT, |mut pg| async move {
                let backlog = backlog(&mut pg).await?;
                Ok((pg, backlog))
            })
            .await
    }

    async fn prune_commit_ledger(
        &self,
        after: i64,
        age: Duration,
        limit: u32,
    ) -> Result<CommitLedgerPruned, StoreError> {
        let query = sqlx::query(PRUNE_LEDGER)
            .bind(after)
            .bind(interval(age))
            .bind(i64::from(limit));
        let rows = self.relay("pruning the ledger", query).await?;
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

/// Places as the two arrays that statements take.
fn places<'a>(cursors: impl IntoIterator<Item = &'a Cursor>) -> (Vec<i64>, Vec<i32>) {
    cursors
        .into_iter()
        .map(|cursor| (cursor.batch(), cursor.position()))
        .unzip()
}

/// The one number of an answer.
fn count(rows: &[PgRow]) -> Result<u64, StoreError> {
    let row = rows.first().ok_or_else(|| decoding(sqlx::Error::RowNotFound))?;
    let count: i64 = row.try_get("count").map_err(decoding)?;
    Ok(u64::try_from(count).unwrap_or(0))
}
