//! Removing old events, one small step at a time.

use std::time::Duration;

use chrono::{DateTime, Utc};
use sqlx::Row;
use sqlx::postgres::PgConnection;

use super::connect::bounded;
use super::error::decoding;
use crate::event::Cursor;
use crate::store::{Prune, Pruned, StoreError};

const STEP: &str = include_str!("sql/prune.sql");

/// How long a step may take: longer than the session's `statement_timeout`.
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
    let row = bounded(STEP_TIMEOUT, "prune events", row).await?;
    let read = || {
        let number = |name| {
            row.try_get::<i64, _>(name)
                .map(|count| u64::try_from(count).unwrap_or(0))
        };
        let last: Option<i64> = row.try_get("batch")?;
        let position: Option<i32> = row.try_get("position")?;
        let has_more = number("old")? + number("future")? > 0 && number("examined")? == u64::from(step.limit);
        Ok(Pruned {
            removed: number("removed")?,
            unpublished: number("unpublished")?,
            next: last
                .zip(position)
                .filter(|_| has_more)
                .map(|(batch, position)| Cursor::new(batch, position)),
        })
    };
    read().map_err(decoding)
}
