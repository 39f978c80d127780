//! The figures: counters, what is not published, and how far the log is settled.

use sqlx::Row;
use sqlx::postgres::{PgConnection, PgRow};

use super::error::{decoding, during};
use crate::event::{Cursor, Topic};
use crate::store::{Backlog, Counts, Stability, StoreError, StoreStats, TOPICS_MAX};

/// The settled edge (the first batch that is *not* settled) and the horizon (above every committed batch), in the snapshot
/// of the statement they stand in.
macro_rules! settled {
    () => {
        "(select l.xid_offset + pg_snapshot_xmin(pg_current_snapshot())::text::bigint as edge,
                 l.xid_offset + pg_snapshot_xmax(pg_current_snapshot())::text::bigint as horizon from log l)"
    };
}
pub(super) use settled;

/// The age of the oldest committed batch at or above `$edge`.
macro_rules! unsettled_seconds {
    ($edge:literal) => {
        concat!(
            "coalesce((select greatest(extract(epoch from clock_timestamp() - b.received_at), 0)::float8
              from batches b where b.batch >= ",
            $edge,
            " order by b.batch limit 1), 0)"
        )
    };
}
pub(super) use unsettled_seconds;

/// What is not published. Each row of it is in a small index of its own.
macro_rules! unpublished {
    () => {
        "select count(*) as outbox_batches,
               coalesce(greatest(extract(epoch from clock_timestamp() - min(received_at)), 0), 0)::float8 as outbox_age
        from batches where published_at is null"
    };
}

const OWED: &str = concat!(
    "select o.*, (select count(*) from parked) as parked from (",
    unpublished!(),
    ") o"
);

/// One snapshot: the totals with the log's and the outbox's state in the first row, then the largest topics.
const STATS: &str = concat!(
    "with t as materialized (
        select topic, sum(received)::bigint as received, sum(unique_processed)::bigint as unique_processed,
               sum(duplicate_dropped)::bigint as duplicate_dropped, sum(conflicts)::bigint as conflicts,
               sum(pruned)::bigint as pruned
        from topic_counts group by topic
    ), s as ",
    settled!(),
    ", o as (",
    unpublished!(),
    ")
    (select null::text as topic, coalesce(sum(t.received), 0)::bigint as received,
           coalesce(sum(t.unique_processed), 0)::bigint as unique_processed,
           coalesce(sum(t.duplicate_dropped), 0)::bigint as duplicate_dropped,
           coalesce(sum(t.conflicts), 0)::bigint as conflicts, coalesce(sum(t.pruned), 0)::bigint as pruned,
           count(t.topic) as topics, (select outbox_batches from o) as outbox_batches, (select outbox_age from o) as outbox_age,
           (select count(*) from parked) as parked,
           (select edge from s) as edge, (select horizon from s) as horizon,
           ",
    unsettled_seconds!("(select edge from s)"),
    " as unsettled_seconds
    from t)
    union all
    (select topic, received, unique_processed, duplicate_dropped, conflicts, pruned, null, null, null, null, null, null, null
    from t order by unique_processed desc, topic limit $1)"
);

const SETTLED: &str = concat!(
    "select s.edge, s.horizon, ",
    unsettled_seconds!("s.edge"),
    " as unsettled_seconds from ",
    settled!(),
    " s"
);

const TOPIC_COUNTS: &str = "
    select coalesce(sum(received), 0)::bigint as received, coalesce(sum(unique_processed), 0)::bigint as unique_processed,
           coalesce(sum(duplicate_dropped), 0)::bigint as duplicate_dropped,
           coalesce(sum(conflicts), 0)::bigint as conflicts, coalesce(sum(pruned), 0)::bigint as pruned
    from topic_counts where topic = $1";

/// The counters and more, in one snapshot.
pub(super) async fn stats(pg: &mut PgConnection) -> Result<StoreStats, StoreError> {
    let rows = sqlx::query(STATS)
        .bind(TOPICS_MAX)
        .fetch_all(pg)
        .await
        .map_err(during("reading counters"))?;
    let read = || {
        let (totals, topics) = rows.split_first().ok_or(sqlx::Error::RowNotFound)?;
        let topic = |row: &PgRow| Ok((row.try_get("topic")?, row.try_get("unique_processed")?));
        Ok(StoreStats {
            counts: counts(totals)?,
            topic_count: totals.try_get("topics")?,
            topics: topics.iter().map(topic).collect::<Result<_, sqlx::Error>>()?,
            backlog: owed_of(totals)?,
            stability: settled_of(totals)?,
        })
    };
    read().map_err(decoding)
}

/// What is not published.
pub(super) async fn backlog(pg: &mut PgConnection) -> Result<Backlog, StoreError> {
    let row = sqlx::query(OWED).fetch_one(pg).await;
    owed_of(&row.map_err(during("counting what is not published"))?).map_err(decoding)
}

fn owed_of(row: &PgRow) -> sqlx::Result<Backlog> {
    Ok(Backlog {
        batches: row.try_get("outbox_batches")?,
        oldest_seconds: row.try_get("outbox_age")?,
        dead_letters: row.try_get("parked")?,
    })
}

/// The counters of one topic.
pub(super) async fn topic_counts(pg: &mut PgConnection, topic: &Topic) -> Result<Counts, StoreError> {
    let row = sqlx::query(TOPIC_COUNTS).bind(topic.as_str()).fetch_one(pg).await;
    counts(&row.map_err(during("reading a topic's counters"))?).map_err(decoding)
}

/// How far the log is settled.
pub(super) async fn settled_now(pg: &mut PgConnection) -> Result<Stability, StoreError> {
    let row = sqlx::query(SETTLED)
        .fetch_one(pg)
        .await
        .map_err(during("reading the settled edge"))?;
    settled_from(&row)
}

/// How far the log is settled, from a row with `edge`, `horizon` and `unsettled_seconds`.
pub(super) fn settled_from(row: &PgRow) -> Result<Stability, StoreError> {
    settled_of(row).map_err(decoding)
}

fn settled_of(row: &PgRow) -> Result<Stability, sqlx::Error> {
    Ok(Stability {
        last_stable: edge_cursor(row.try_get("edge")?),
        committed_below: row.try_get("horizon")?,
        visibility_lag_seconds: row.try_get("unsettled_seconds")?,
    })
}

fn counts(row: &PgRow) -> Result<Counts, sqlx::Error> {
    Ok(Counts {
        received: row.try_get("received")?,
        unique_processed: row.try_get("unique_processed")?,
        duplicate_dropped: row.try_get("duplicate_dropped")?,
        conflicts: row.try_get("conflicts")?,
        pruned: row.try_get("pruned")?,
    })
}

/// The last place below the first batch that is not settled.
pub(super) fn edge_cursor(first_unsettled: i64) -> Cursor {
    Cursor::new(first_unsettled - 1, i32::MAX)
}
