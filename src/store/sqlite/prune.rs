//! Removing old events, one small step at a time.

use std::collections::BTreeMap;

use rusqlite::{Connection, params};

use super::append::{FUTURE_MICROS, now};
use super::error::failed_to;
use crate::event::Cursor;
use crate::store::{Prune, Pruned, StoreError};

const PAGE: &str = include_str!("sql/prune_page.sql");

const REMOVE: &str = "delete from events where rowid = ?1";

const PRUNED_TO: &str = "
    update log set pruned_to_batch = ?1, pruned_to_position = ?2 where (pruned_to_batch, pruned_to_position) < (?1, ?2)";

const COUNT_PRUNED: &str = "update topic_counts set pruned = pruned + ?2 where topic = ?1";

/// Takes the step, in the transaction of the connection.
pub(super) fn prune(connection: &Connection, step: &Prune) -> Result<Pruned, StoreError> {
    let prune = || {
        let page = Page::read(connection, step)?;
        page.remove(connection)?;
        Ok(page.pruned(step))
    };
    prune().map_err(failed_to("prune events"))
}

/// What the step would do.
pub(super) fn dry_run(connection: &Connection, step: &Prune) -> Result<Pruned, StoreError> {
    let page = Page::read(connection, step).map_err(failed_to("count old events"))?;
    Ok(page.pruned(step))
}

/// The events that a step examines.
#[derive(Default)]
struct Page {
    examined: u32,
    old: u64,
    /// The rows to remove, and how many of them each topic has.
    to_remove: Vec<i64>,
    by_topic: BTreeMap<String, i64>,
    last: Option<Cursor>,
    /// The last event that is removed.
    removed_to: Option<Cursor>,
    /// Whether an event was received in the future. It says nothing about the age of those behind it.
    has_future: bool,
}

impl Page {
    fn read(connection: &Connection, step: &Prune) -> rusqlite::Result<Self> {
        let mut statement = connection.prepare_cached(PAGE)?;
        let after = step.after;
        let mut rows = statement.query(params![
            after.batch(),
            after.position(),
            step.before.micros(),
            step.limit,
            now().micros().saturating_add(FUTURE_MICROS)
        ])?;
        let mut page = Self::default();
        while let Some(row) = rows.next()? {
            page.examined += 1;
            page.last = Some(Cursor::new(row.get(2)?, row.get(3)?));
            let (is_old, is_future, is_unpublished): (bool, bool, bool) = (row.get(4)?, row.get(5)?, row.get(6)?);
            page.old += u64::from(is_old);
            page.has_future |= is_future;
            if is_old && !is_unpublished {
                page.to_remove.push(row.get(0)?);
                page.removed_to = page.last;
                *page.by_topic.entry(row.get(1)?).or_default() += 1;
            }
        }
        Ok(page)
    }

    fn remove(&self, connection: &Connection) -> rusqlite::Result<()> {
        let mut remove = connection.prepare_cached(REMOVE)?;
        for rowid in &self.to_remove {
            remove.execute([rowid])?;
        }
        let mut count = connection.prepare_cached(COUNT_PRUNED)?;
        for (topic, events) in &self.by_topic {
            count.execute(params![topic, events])?;
        }
        if let Some(last) = self.removed_to {
            connection.execute(PRUNED_TO, params![last.batch(), last.position()])?;
        }
        Ok(())
    }

    fn pruned(&self, step: &Prune) -> Pruned {
        let removed = self.to_remove.len() as u64;
        Pruned {
            removed,
            unpublished: self.old - removed,
            next: self
                .last
                .filter(|_| (self.old > 0 || self.has_future) && self.examined == step.limit),
        }
    }
}
