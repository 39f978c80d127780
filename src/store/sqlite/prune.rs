//! Removing old events, a small step at a time.

use std::collections::BTreeMap;

use rusqlite::{Connection, params};

use super::error::during;
use crate::event::Cursor;
use crate::store::{Prune, Pruned, StoreError};

const PAGE: &str = "
    select e.rowid, e.topic, e.batch, e.position, e.received_at < ?3,
           exists (select 1 from batches b where b.batch = e.batch and b.published_at is null)
    from events e indexed by events_log_idx
    where (e.batch, e.position) > (?1, ?2)
    order by e.batch, e.position limit ?4";

const REMOVE: &str = "delete from events where rowid = ?1";

const COUNT: &str = "update topic_counts set pruned = pruned + ?2 where topic = ?1";

/// Takes the step, in the transaction of the connection.
pub(super) fn prune(connection: &Connection, step: &Prune) -> Result<Pruned, StoreError> {
    take(connection, step).map_err(during("pruning"))
}

fn take(connection: &Connection, step: &Prune) -> rusqlite::Result<Pruned> {
    let mut page = connection.prepare_cached(PAGE)?;
    let mut remove = connection.prepare_cached(REMOVE)?;
    let mut rows = page.query(params![
        step.after.batch(),
        step.after.position(),
        step.before.micros(),
        step.limit
    ])?;
    // The page is read to its end before the first row goes: a statement must not change what another one walks over.
    let (mut doomed, mut by_topic) = (Vec::<i64>::new(), BTreeMap::<String, i64>::new());
    let (mut examined, mut old, mut last) = (0u32, 0u64, step.after);
    while let Some(row) = rows.next()? {
        examined += 1;
        last = Cursor::new(row.get(2)?, row.get(3)?);
        let (is_old, is_unpublished): (bool, bool) = (row.get(4)?, row.get(5)?);
        old += u64::from(is_old);
        if is_old && !is_unpublished {
            doomed.push(row.get(0)?);
            *by_topic.entry(row.get(1)?).or_default() += 1;
        }
    }
    drop(rows);
    if !step.dry_run {
        for rowid in &doomed {
            remove.execute([rowid])?;
        }
        let mut count = connection.prepare_cached(COUNT)?;
        for (topic, events) in by_topic {
            count.execute(params![topic, events])?;
        }
    }
    let removed = doomed.len() as u64;
    Ok(Pruned {
        removed,
        unpublished: old - removed,
        next: (old > 0 && examined == step.limit).then_some(last),
    })
}
