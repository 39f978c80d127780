//! The recount: rows against counters and outbox, in one snapshot, while the service runs or not.

use rusqlite::Connection;

use super::error::during;
use super::read::counts;
use crate::store::{StoreError, Verification};

const TOTALS: &str = "
    select coalesce(sum(received), 0), coalesce(sum(unique_processed), 0), coalesce(sum(duplicate_dropped), 0),
           coalesce(sum(conflicts), 0), coalesce(sum(pruned), 0), (select count(*) from events),
           (select count(*) from batches where published_at is null)
    from topic_counts";

/// Each statement finds at most this many faults of its kind, one sentence a row.
const CHECKS: [&str; 7] = [
    "select format('topic %s: %d rows, but its counters say %d', coalesce(r.topic, c.topic), coalesce(r.rows, 0), coalesce(c.kept, 0))
     from (select topic, count(*) as rows from events group by topic) r
     full join (select topic, unique_processed - pruned as kept from topic_counts) c on c.topic = r.topic
     where coalesce(r.rows, 0) <> coalesce(c.kept, 0) order by 1 limit 20",
    "select format('topic %s: its counters contradict each other: received %d, unique %d, duplicates %d, conflicts %d, pruned %d',
                   topic, received, unique_processed, duplicate_dropped, conflicts, pruned)
     from topic_counts
     where received <> unique_processed + duplicate_dropped or conflicts > duplicate_dropped or pruned > unique_processed
     order by topic limit 20",
    "select format('batch %d holds two events at position %d', batch, position)
     from events group by batch, position having count(*) > 1 order by batch, position limit 20",
    // A published ledger row is kept for an hour at least; one that is younger must be there.
    "select format('batch %d stored events but is not in the ledger', e.batch)
     from (select distinct batch from events where received_at > (unixepoch() - 1800) * 1000000) e
     left join batches b on b.batch = e.batch where b.batch is null order by e.batch limit 20",
    "select format('batch %d is owed to the fan-out but has no events', b.batch)
     from batches b
     where b.published_at is null and not exists (select 1 from events e where e.batch = b.batch)
     order by b.batch limit 20",
    "select format('batch %d is in the log, which says that the last one is %d', max(e.batch), l.last_batch)
     from events e, log l where e.batch > l.last_batch having count(*) > 0",
    "select format('event %s of topic %s is parked but is not in the log', p.event_id, p.topic)
     from parked p left join events e
         on (e.topic, e.event_id, e.batch, e.position) = (p.topic, p.event_id, p.batch, p.position)
     where e.batch is null order by p.batch, p.position limit 20",
];

/// Recounts, in the snapshot of the connection's transaction.
pub(super) fn verify(connection: &Connection) -> Result<Verification, StoreError> {
    let read = || {
        let mut verification = connection.query_row(TOTALS, [], |row| {
            Ok(Verification {
                rows: row.get(5)?,
                counts: counts(row)?,
                outbox_batches: row.get(6)?,
                drifts: Vec::new(),
            })
        })?;
        for check in CHECKS {
            let mut statement = connection.prepare(check)?;
            for fault in statement.query_map([], |row| row.get(0))? {
                verification.drifts.push(fault?);
            }
        }
        Ok(verification)
    };
    read().map_err(during("recounting"))
}
