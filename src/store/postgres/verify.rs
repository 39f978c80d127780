//! The recount: rows against counters and outbox, in one snapshot, while the service runs or not.

use sqlx::postgres::PgConnection;
use sqlx::{Executor, Row};

use super::error::{decoding, failed_to};
use crate::store::{Counts, StoreError, Verification};

const TOTALS: &str = include_str!("sql/verify_totals.sql");

/// Each statement returns one sentence for each inconsistency of its kind that it finds.
const CHECKS: [&str; 6] = [
    include_str!("sql/verify_rows_of_topics.sql"),
    include_str!("sql/verify_counters.sql"),
    include_str!("sql/verify_places.sql"),
    include_str!("sql/verify_ledger.sql"),
    include_str!("sql/verify_outbox.sql"),
    include_str!("sql/verify_dead_letters.sql"),
];

/// Recounts the store. All queries see the snapshot of the first.
pub(super) async fn verify(pg: &mut PgConnection) -> Result<Verification, StoreError> {
    let failed = failed_to("recount the store");
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
        let drifts: Vec<String> = sqlx::query_scalar(check).fetch_all(&mut *pg).await.map_err(&failed)?;
        verification.drifts.extend(drifts);
    }
    pg.execute("rollback").await.map_err(&failed)?;
    Ok(verification)
}
