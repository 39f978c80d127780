//! One step of expiry: which of the next events go, and their removal.

use std::collections::BTreeMap;

use rusqlite::{Connection, params};

use super::clock::timestamp;
use crate::event::{Cursor, Timestamp, Topic};
use crate::store::{Expiry, Partition};

const PAGE: &str = include_str!("sql/expiry_page.sql");
const REMOVE: &str = "delete from events where batch = ?1 and position = ?2";
const COUNT_PRUNED: &str = include_str!("sql/count_pruned.sql");
const ADD_PRUNED: &str = "update totals set pruned = pruned + ?1";
const PRUNED_TO: &str = "
    update log set pruned_to_batch = ?1, pruned_to_position = ?2 where (pruned_to_batch, pruned_to_position) < (?1, ?2)";
const SUBTRACT_BYTES: &str = "update partitions set bytes = max(bytes - ?2, 0) where first_batch = ?1";

/// How many events a step examines: few enough that it hardly delays a group commit.
const STEP_EVENTS: u32 = 500;

/// The events that a step examines.
#[derive(Default)]
pub(super) struct Page {
    /// The places of those that go, in log order.
    pub(super) to_remove: Vec<Cursor>,
    /// How many of each topic go, and the newest of them.
    by_topic: BTreeMap<String, (i64, Cursor)>,
    bytes: i64,
    pub(super) held_back: u64,
    /// Where the next step begins; `None` at the end.
    pub(super) next: Option<Cursor>,
}

impl Page {
    pub(super) fn read(
        connection: &Connection,
        expiry: &Expiry,
        partition: &Partition,
        after: Cursor,
    ) -> rusqlite::Result<Self> {
        let mut statement = connection.prepare_cached(PAGE)?;
        let mut rows = statement.query(params![
            after.batch(),
            after.position(),
            partition.before_batch,
            STEP_EVENTS
        ])?;
        let (mut page, mut examined) = (Self::default(), 0);
        while let Some(row) = rows.next()? {
            examined += 1;
            let place = Cursor::new(row.get(0)?, row.get(1)?);
            page.next = Some(place);
            let (topic, received_at) = (row.get::<_, String>(2)?, timestamp(row.get(3)?)?);
            if !is_old(expiry, &topic, received_at) {
                continue;
            }
            if row.get(5)? {
                page.held_back += 1;
                continue;
            }
            page.to_remove.push(place);
            page.bytes += row.get::<_, i64>(4)?;
            let counted = page.by_topic.entry(topic).or_insert((0, place));
            *counted = (counted.0 + 1, place);
        }
        page.next = page.next.filter(|_| examined == STEP_EVENTS);
        Ok(page)
    }

    pub(super) fn remove(&self, connection: &Connection, partition: i64) -> rusqlite::Result<()> {
        let mut remove = connection.prepare_cached(REMOVE)?;
        for place in &self.to_remove {
            remove.execute(params![place.batch(), place.position()])?;
        }
        let mut count = connection.prepare_cached(COUNT_PRUNED)?;
        for (topic, (events, newest)) in &self.by_topic {
            count.execute(params![topic, events, newest.batch(), newest.position()])?;
        }
        if let Some(newest) = self.to_remove.last() {
            let removed = i64::try_from(self.to_remove.len()).unwrap_or(i64::MAX);
            connection.execute(ADD_PRUNED, [removed])?;
            connection.execute(PRUNED_TO, params![newest.batch(), newest.position()])?;
            connection.execute(SUBTRACT_BYTES, [partition, self.bytes])?;
        }
        Ok(())
    }
}

fn is_old(expiry: &Expiry, topic: &str, received_at: Timestamp) -> bool {
    let topic = Topic::from_stored(topic.to_owned());
    let rule = expiry.topics.iter().find(|(glob, _)| glob.matches(&topic));
    rule.map_or(expiry.others, |(_, is_expired)| *is_expired) && expiry.before.is_none_or(|before| received_at < before)
}
