//! Removing old events, a small step at a time.

use std::collections::BTreeMap;

use rusqlite::{Connection, params};

use super::error::during;
use crate::event::Cursor;
use crate::store::{Prune, Pruned, StoreError};

/// What is parked is not published, though its batch is.
const PAGE: &str = "
    select e.rowid, e.topic, e.batch, e.position, e.received_at < ?3,
           exists (select 1 from batches b where b.batch = e.batch and b.published_at is null)
               or exists (select 1 from parked p where p.batch = e.batch and p.position = e.position)
    from events e indexed by events_log_idx
    where (e.batch, e.position) > (?1, ?2)
    order by e.batch, e.position limit ?4";

const REMOVE: &str = "delete from events where rowid = ?1";

const COUNT: &str = "update topic_counts set pruned = pruned + ?2 where topic = ?1";

/// Takes the step, in the transaction of the connection.
pub(super) fn prune(connection: &Connection, step: &Prune) -> Result<Pruned, StoreError> {
    let prune = || {
        let page = Page::read(connection, step)?;
        page.remove(connection)?;
        Ok(page.pruned(step))
    };
    prune().map_err(during("pruning"))
}

/// What the step would do.
pub(super) fn look(connection: &Connection, step: &Prune) -> Result<Pruned, StoreError> {
    let page = Page::read(connection, step).map_err(during("looking at what is old"))?;
    Ok(page.pruned(step))
}

/// The events that a step looks at.
#[derive(Default)]
struct Page {
    examined: u32,
    old: u64,
    /// The rows that go, and how many of each topic.
    doomed: Vec<i64>,
    by_topic: BTreeMap<String, i64>,
    last: Option<Cursor>,
}

impl Page {
    fn read(connection: &Connection, step: &Prune) -> rusqlite::Result<Self> {
        let mut statement = connection.prepare_cached(PAGE)?;
        let after = step.after;
        let mut rows = statement.query(params![
            after.batch(),
            after.position(),
            step.before.micros(),
            step.limit
        ])?;
        let mut page = Self::default();
        while let Some(row) = rows.next()? {
            page.examined += 1;
            page.last = Some(Cursor::new(row.get(2)?, row.get(3)?));
            let (is_old, is_unpublished): (bool, bool) = (row.get(4)?, row.get(5)?);
            page.old += u64::from(is_old);
            if is_old && !is_unpublished {
                page.doomed.push(row.get(0)?);
                *page.by_topic.entry(row.get(1)?).or_default() += 1;
            }
        }
        Ok(page)
    }

    fn remove(&self, connection: &Connection) -> rusqlite::Result<()> {
        let mut remove = connection.prepare_cached(REMOVE)?;
        for rowid in &self.doomed {
            remove.execute([rowid])?;
        }
        let mut count = connection.prepare_cached(COUNT)?;
        for (topic, events) in &self.by_topic {
            count.execute(params![topic, events])?;
        }
        Ok(())
    }

    fn pruned(&self, step: &Prune) -> Pruned {
        let removed = self.doomed.len() as u64;
        Pruned {
            removed,
            unpublished: self.old - removed,
            next: self.last.filter(|_| self.old > 0 && self.examined == step.limit),
        }
    }
}
