//! The recount: events, identities and partitions against counters and outbox, in one snapshot, while the service runs or not.

use rusqlite::{Connection, OptionalExtension, params};

use super::error::failed_to;
use super::statistics::counts;
use crate::event::{EventId, IdentityKey, Payload, Topic};
use crate::store::{StoreError, Verification};

const TOTALS: &str = include_str!("sql/verify_totals.sql");

/// Each statement returns one sentence for each inconsistency of its kind that it finds.
const CHECKS: [&str; 9] = [
    include_str!("sql/verify_rows_of_topics.sql"),
    include_str!("sql/verify_counters.sql"),
    include_str!("sql/verify_sums.sql"),
    include_str!("sql/verify_identity_count.sql"),
    include_str!("sql/verify_partitions.sql"),
    include_str!("sql/verify_ledger.sql"),
    include_str!("sql/verify_outbox.sql"),
    include_str!("sql/verify_last_batch.sql"),
    include_str!("sql/verify_dead_letters.sql"),
];

const EVENTS: &str = "select batch, position, topic, event_id, payload from events order by batch, position";

const DIGEST: &str = "select digest from identities where key = ?1 and batch = ?2 and position = ?3";

/// The most sentences of one kind.
const DRIFTS_MAX: usize = 20;

/// Recounts the store, in the snapshot of the connection's transaction.
pub(super) fn verify(connection: &Connection) -> Result<Verification, StoreError> {
    let read = || {
        let mut verification = connection.query_row(TOTALS, [], |row| {
            Ok(Verification {
                rows: row.get(5)?,
                counts: counts(row)?,
                outbox_batches: row.get(6)?,
                identities: row.get(7)?,
                identities_forgotten: row.get(8)?,
                partitions: row.get(9)?,
                drifts: Vec::new(),
            })
        })?;
        for check in CHECKS {
            let mut statement = connection.prepare(check)?;
            for drift in statement.query_map([], |row| row.get(0))? {
                verification.drifts.push(drift?);
            }
        }
        verification.drifts.extend(identities(connection)?);
        Ok(verification)
    };
    read().map_err(failed_to("recount the store"))
}

/// Events whose identity is missing, names another place, or has another digest.
fn identities(connection: &Connection) -> rusqlite::Result<Vec<String>> {
    let (mut events, mut digest) = (connection.prepare(EVENTS)?, connection.prepare(DIGEST)?);
    let mut rows = events.query([])?;
    let mut drifts = Vec::new();
    while let Some(row) = rows.next()?
        && drifts.len() < DRIFTS_MAX
    {
        let (topic, event_id) = (
            Topic::from_stored(row.get::<_, String>(2)?),
            EventId::from_stored(row.get::<_, String>(3)?),
        );
        let key = IdentityKey::of(&topic, &event_id).0;
        let found: Option<i64> = digest
            .query_row(params![key, row.get::<_, i64>(0)?, row.get::<_, i32>(1)?], |row| {
                row.get(0)
            })
            .optional()?;
        let what = match found {
            None => "is in the log, but its identity is not",
            Some(found) if found != Payload::from_stored(row.get::<_, String>(4)?).digest() => {
                "has another payload than its identity says"
            }
            Some(_) => continue,
        };
        drifts.push(format!("event {event_id} of topic {topic} {what}"));
    }
    Ok(drifts)
}
