//! Removing old events, a small step at a time.

use std::time::Duration;

use chrono::{DateTime, Utc};
use sqlx::Row;
use sqlx::postgres::PgConnection;

use super::connect::bounded;
use super::error::decoding;
use crate::event::Cursor;
use crate::store::{Prune, Pruned, StoreError};

/// One step: $1, $2 the place behind which it begins, $3 the time before which events go, $4 how many it looks at, $5 whether
/// it only counts. What is parked is not published, though its batch is. Rows are found again by their ctid, which is good for the statement's own snapshot: no plan can make a
/// scan of it. Counters change in the order of topics, as a flush changes them; `high_water` keeps the number of a batch that
/// is gone from coming again.
const STEP: &str = "
    with page as materialized (
        select e.ctid as row, e.batch, e.position, e.received_at < $3 as is_old,
               exists (select from batches b where b.batch = e.batch and b.published_at is null)
                   or exists (select from parked p where p.batch = e.batch and p.position = e.position) as is_unpublished
        from events e where (e.batch, e.position) > ($1, $2)
        order by e.batch, e.position limit $4
    ), gone as (
        delete from events
        where ctid = any (array(select row from page where is_old and not is_unpublished and not $5))
        returning topic, batch
    ), counted as (
        insert into topic_counts as c (topic, shard, received, unique_processed, duplicate_dropped, conflicts, pruned)
        select topic, 0, 0, 0, 0, 0, count(*) from gone group by topic order by topic
        on conflict (topic, shard) do update set pruned = c.pruned + excluded.pruned
    ), marked as (
        update log set high_water = newest.batch
        from (select max(batch) as batch from gone) newest where newest.batch > high_water
    )
    select (select count(*) from page) as examined,
           (select count(*) from page where is_old) as old,
           case when $5 then (select count(*) from page where is_old and not is_unpublished)
                else (select count(*) from gone) end as removed,
           (select count(*) from page where is_old and is_unpublished) as unpublished,
           last.batch, last.position
    from (select) one left join (select batch, position from page order by batch desc, position desc limit 1) last on true";

/// How long a step may take: longer than the server lets it.
const STEP_TIMEOUT: Duration = Duration::from_secs(65);

/// Takes the step.
pub(super) async fn prune(pg: &mut PgConnection, step: &Prune) -> Result<Pruned, StoreError> {
    let row = sqlx::query(STEP)
        .bind(step.after.batch())
        .bind(step.after.position())
        .bind(DateTime::<Utc>::from(step.before))
        .bind(i64::from(step.limit))
        .bind(step.dry_run)
        .fetch_one(pg);
    let row = bounded(STEP_TIMEOUT, "pruning", row).await?;
    let read = || {
        let number = |name| {
            row.try_get::<i64, _>(name)
                .map(|count| u64::try_from(count).unwrap_or(0))
        };
        let last: Option<i64> = row.try_get("batch")?;
        let position: Option<i32> = row.try_get("position")?;
        let goes_on = number("old")? > 0 && number("examined")? == u64::from(step.limit);
        Ok(Pruned {
            removed: number("removed")?,
            unpublished: number("unpublished")?,
            next: last
                .zip(position)
                .filter(|_| goes_on)
                .map(|(batch, position)| Cursor::new(batch, position)),
        })
    };
    read().map_err(decoding)
}
