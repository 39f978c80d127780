//! The recount: rows against counters and outbox, in one snapshot, while the service runs or not.

use sqlx::postgres::PgConnection;
use sqlx::{Executor, Row};

use super::error::{decoding, during};
use crate::store::{Counts, StoreError, Verification};

const TOTALS: &str = "
    select (select count(*) from events) as rows, coalesce(sum(received), 0)::bigint as received,
           coalesce(sum(unique_processed), 0)::bigint as unique_processed,
           coalesce(sum(duplicate_dropped), 0)::bigint as duplicate_dropped,
           coalesce(sum(conflicts), 0)::bigint as conflicts, coalesce(sum(pruned), 0)::bigint as pruned,
           (select count(*) from batches where published_at is null) as outbox_batches
    from topic_counts";

/// Each statement finds at most this many faults of its kind, one sentence a row.
const CHECKS: [&str; 6] = [
    "select format('topic %s: %s rows, but its counters say %s', coalesce(r.topic, c.topic), coalesce(r.rows, 0), coalesce(c.kept, 0))
     from (select topic, count(*) as rows from events group by topic) r
     full join (select topic, sum(unique_processed - pruned)::bigint as kept from topic_counts group by topic) c using (topic)
     where coalesce(r.rows, 0) <> coalesce(c.kept, 0) order by 1 limit 20",
    "select format('topic %s: its counters contradict each other: received %s, unique %s, duplicates %s, conflicts %s, pruned %s',
                   topic, received, unique_processed, duplicate_dropped, conflicts, pruned)
     from (select topic, sum(received) as received, sum(unique_processed) as unique_processed,
                  sum(duplicate_dropped) as duplicate_dropped, sum(conflicts) as conflicts, sum(pruned) as pruned
           from topic_counts group by topic) c
     where received <> unique_processed + duplicate_dropped or conflicts > duplicate_dropped or pruned > unique_processed
     order by topic limit 20",
    "select format('batch %s holds two events at position %s', batch, position)
     from events group by batch, position having count(*) > 1 order by batch, position limit 20",
    // A published ledger row is kept for an hour at least; one that is younger must be there.
    "select format('batch %s stored events but is not in the ledger', e.batch)
     from (select distinct batch from events where received_at > now() - interval '30 minutes') e
     left join batches b using (batch) where b.batch is null order by e.batch limit 20",
    "select format('batch %s is owed to the fan-out but has no events', b.batch)
     from batches b where b.published_at is null and not exists (select from events e where e.batch = b.batch)
     order by b.batch limit 20",
    "select format('event %s of topic %s is parked but is not in the log', p.event_id, p.topic)
     from parked p left join events e on (e.topic, e.event_id, e.batch, e.position) = (p.topic, p.event_id, p.batch, p.position)
     where e.batch is null order by p.batch, p.position limit 20",
];

/// Recounts. All queries see the snapshot of the first.
pub(super) async fn verify(pg: &mut PgConnection) -> Result<Verification, StoreError> {
    let failed = during("recounting");
    pg.execute("begin isolation level repeatable read read only")
        .await
        .map_err(&failed)?;
    let totals = sqlx::query(TOTALS).fetch_one(&mut *pg).await.map_err(&failed)?;
    let number = |name| totals.try_get::<i64, _>(name).map_err(decoding);
    let mut verification = Verification {
        rows: number("rows")?,
        counts: Counts {
            received: number("received")?,
            unique_processed: number("unique_processed")?,
            duplicate_dropped: number("duplicate_dropped")?,
            conflicts: number("conflicts")?,
            pruned: number("pruned")?,
        },
        outbox_batches: number("outbox_batches")?,
        drifts: Vec::new(),
    };
    for check in CHECKS {
        let faults: Vec<String> = sqlx::query_scalar(check).fetch_all(&mut *pg).await.map_err(&failed)?;
        verification.drifts.extend(faults);
    }
    pg.execute("rollback").await.map_err(&failed)?;
    Ok(verification)
}
