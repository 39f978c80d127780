//! The recount: rows against counters and outbox, in one snapshot, while the service runs or not.

use rusqlite::Connection;

use super::error::failed_to;
use super::read::counts;
use crate::store::{StoreError, Verification};

const TOTALS: &str = include_str!("sql/verify_totals.sql");

/// Each statement returns one sentence for each inconsistency of its kind that it finds.
const CHECKS: [&str; 7] = [
    include_str!("sql/verify_rows_of_topics.sql"),
    include_str!("sql/verify_counters.sql"),
    include_str!("sql/verify_places.sql"),
    include_str!("sql/verify_ledger.sql"),
    include_str!("sql/verify_outbox.sql"),
    include_str!("sql/verify_last_batch.sql"),
    include_str!("sql/verify_dead_letters.sql"),
];

/// Recounts the store, in the snapshot of the connection's transaction.
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
            for drift in statement.query_map([], |row| row.get(0))? {
                verification.drifts.push(drift?);
            }
        }
        Ok(verification)
    };
    read().map_err(failed_to("recount the store"))
}
