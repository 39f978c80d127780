//! The recount: events, identities and partitions against counters and outbox, in one snapshot, while the service runs or not.

use sqlx::Row;

use super::connect::Session;
use super::error::{decoding, failed_to};
use crate::store::{Counts, StoreError, Verification};

const TOTALS: &str = include_str!("sql/verify_totals.sql");

/// Each statement returns one sentence for each inconsistency of its kind that it finds.
const CHECKS: [&str; 9] = [
    include_str!("sql/verify_rows_of_topics.sql"),
    include_str!("sql/verify_counters.sql"),
    include_str!("sql/verify_sums.sql"),
    include_str!("sql/verify_identities.sql"),
    include_str!("sql/verify_identity_count.sql"),
    include_str!("sql/verify_partitions.sql"),
    include_str!("sql/verify_ledger.sql"),
    include_str!("sql/verify_outbox.sql"),
    include_str!("sql/verify_dead_letters.sql"),
];

/// Recounts the store. All queries see the snapshot of the first.
pub(super) async fn verify(pg: &mut Session) -> Result<Verification, StoreError> {
    let failed = failed_to("recount the store");
    pg.begin("isolation level repeatable read read only")
        .await
        .map_err(&failed)?;
    // Before the snapshot is taken: a partition that is dropped later would be missing in it.
    pg.fetch_all(pg.query("lock table eventsieve.events in access share mode"))
        .await
        .map_err(&failed)?;
    let totals = pg.fetch_one(pg.query(TOTALS)).await.map_err(&failed)?;
    let number = |name| totals.try_get::<i64, _>(name).map_err(decoding);
    let mut verification = Verification {
        rows: number("rows")?,
        identities: number("identities")?,
        identities_forgotten: number("identities_forgotten")?,
        partitions: number("partitions")?,
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
        let drifts: Vec<String> = pg.scalars(pg.query(check)).await.map_err(&failed)?;
        verification.drifts.extend(drifts);
    }
    pg.end("rollback").await.map_err(&failed)?;
    Ok(verification)
}
