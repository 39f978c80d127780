//! A store and a sink in memory, which fail on command.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Mutex;

use async_trait::async_trait;
use uuid::Uuid;

use super::*;
use crate::event::StoredEvent;
use crate::sink::{SinkError, Undeliverable};
use crate::store::{Backlog, CommitLedgerPruned, DeadLetter, ErrorClass, EventsPage, Lease, NewDeadLetter, StoreError};

/// The outbox of a store in memory. A portion has at most [`PORTION`] events.
#[derive(Default)]
pub(super) struct FakeStore {
    pub(super) batches: Mutex<BTreeMap<i64, Row>>,
    pub(super) dead_letters: Mutex<Vec<Cursor>>,
    /// Happens right after the next claim.
    pub(super) after_claim: Mutex<Option<Box<dyn FnOnce() + Send>>>,
    pub(super) is_down: Mutex<bool>,
}

#[derive(Clone)]
pub(super) struct Row {
    pub(super) events: Vec<StoredEvent>,
    pub(super) lease: Option<(Uuid, Instant)>,
    pub(super) is_published: bool,
}

const PORTION: usize = 3;

impl FakeStore {
    pub(super) fn check(&self) -> Result<(), StoreError> {
        match *self.is_down.lock().unwrap() {
            true => Err(StoreError::new(ErrorClass::NotSent, "down")),
            false => Ok(()),
        }
    }

    pub(super) fn unpublished(&self) -> Vec<i64> {
        let batches = self.batches.lock().unwrap();
        let unpublished = batches.iter().filter(|(_, row)| !row.is_published);
        unpublished.map(|(number, _)| *number).collect()
    }
}

#[async_trait]
impl Outbox for FakeStore {
    async fn claim_unpublished(&self, lease: Lease, limit: u32) -> Result<Vec<i64>, StoreError> {
        self.check()?;
        let now = Instant::now();
        let mut batches = self.batches.lock().unwrap();
        let free = batches
            .iter_mut()
            .filter(|(_, row)| !row.is_published && row.lease.is_none_or(|(_, until)| until <= now))
            .take(limit as usize);
        let claimed = free.map(|(number, row)| {
            row.lease = Some((lease.owner, now + lease.length));
            *number
        });
        let claimed = claimed.collect();
        drop(batches);
        if let Some(happens) = self.after_claim.lock().unwrap().take() {
            happens();
        }
        Ok(claimed)
    }

    async fn events_of(&self, batches: &[i64], after: Option<Cursor>, _: usize) -> Result<EventsPage, StoreError> {
        self.check()?;
        let rows = self.batches.lock().unwrap();
        let events = batches
            .iter()
            .filter_map(|number| rows.get(number))
            .flat_map(|row| row.events.clone());
        let mut events: Vec<_> = events
            .filter(|event| after.is_none_or(|after| event.cursor > after))
            .collect();
        let is_last = events.len() <= PORTION;
        events.truncate(PORTION);
        Ok(EventsPage { events, is_last })
    }

    async fn mark_published(&self, owner: Uuid, batches: &[i64]) -> Result<u64, StoreError> {
        self.check()?;
        let mut rows = self.batches.lock().unwrap();
        for number in batches {
            let row = rows.get_mut(number).unwrap();
            row.is_published |= row.lease.is_some_and(|(of, _)| of == owner);
        }
        Ok(0)
    }

    async fn release(&self, owner: Uuid, batches: Option<&[i64]>) -> Result<u64, StoreError> {
        self.check()?;
        for (number, row) in self.batches.lock().unwrap().iter_mut() {
            let is_meant = batches.is_none_or(|batches| batches.contains(number));
            if is_meant && row.lease.is_some_and(|(of, _)| of == owner) {
                row.lease = None;
            }
        }
        Ok(0)
    }

    async fn dead_letter(&self, letters: &[NewDeadLetter]) -> Result<(), StoreError> {
        self.check()?;
        self.dead_letters
            .lock()
            .unwrap()
            .extend(letters.iter().map(|letter| letter.cursor));
        Ok(())
    }

    async fn dead_letters(&self, _: Cursor, _: u32) -> Result<Vec<DeadLetter>, StoreError> {
        unreachable!("the relay only adds dead letters")
    }

    async fn remove_dead_letters(&self, _: &[Cursor]) -> Result<u64, StoreError> {
        unreachable!("the relay only adds dead letters")
    }

    async fn backlog(&self) -> Result<Backlog, StoreError> {
        self.check()?;
        Ok(Backlog {
            batches: i64::try_from(self.unpublished().len()).unwrap(),
            oldest_seconds: 0.0,
            dead_letters: 0,
        })
    }

    async fn prune_commit_ledger(&self, _: i64, _: Duration, _: u32) -> Result<CommitLedgerPruned, StoreError> {
        unreachable!("another task prunes the ledger")
    }
}

/// Remembers the published events, and fails on command. An event of the topic "unexpected" makes a pipeline fail with an
/// unexpected error, one of the topic "rejected" is rejected, and one of the topic "cuts" ends the connection.
#[derive(Default)]
pub(super) struct FakeSink {
    pub(super) published: Mutex<Vec<Cursor>>,
    /// The next calls fail like this.
    pub(super) script: Mutex<VecDeque<Option<SinkErrorKind>>>,
    pub(super) outage: Mutex<Option<SinkErrorKind>>,
    /// More events than this at a time end the connection.
    pub(super) events_max: Option<usize>,
    /// How long a call takes.
    pub(super) pace: Duration,
    pub(super) calls: Mutex<usize>,
}

impl FakeSink {
    pub(super) fn check(&self) -> Result<(), SinkError> {
        let outage = *self.outage.lock().unwrap();
        outage.map_or(Ok(()), |kind| Err(SinkError::new(kind, "outage")))
    }

    pub(super) fn published(&self) -> Vec<(i64, i32)> {
        let published = self.published.lock().unwrap();
        published
            .iter()
            .map(|cursor| (cursor.batch(), cursor.position()))
            .collect()
    }
}

#[async_trait]
impl Sink for FakeSink {
    async fn connect(&self) -> Result<(), SinkError> {
        *self.calls.lock().unwrap() += 1;
        self.check()
    }

    async fn publish(&self, events: &[StoredEvent]) -> Result<Vec<Undeliverable>, SinkError> {
        tokio::task::yield_now().await;
        tokio::time::sleep(self.pace).await;
        *self.calls.lock().unwrap() += 1;
        self.check()?;
        if let Some(Some(kind)) = self.script.lock().unwrap().pop_front() {
            return Err(SinkError::new(kind, "on command"));
        }
        let is = |event: &StoredEvent, topic: &str| event.event.topic.as_str() == topic;
        let is_much = self.events_max.is_some_and(|max| events.len() > max);
        if is_much || events.iter().any(|event| is(event, "cuts")) {
            return Err(SinkError::new(SinkErrorKind::Unreachable, "cut").cut());
        }
        if events.iter().any(|event| is(event, "unexpected")) {
            return Err(SinkError::new(SinkErrorKind::Unexpected, "unexpected"));
        }
        let taken = events.iter().filter(|event| !is(event, "rejected"));
        self.published.lock().unwrap().extend(taken.map(|event| event.cursor));
        let rejected = events.iter().enumerate().filter(|(_, event)| is(event, "rejected"));
        let undeliverable = |(index, _)| Undeliverable {
            index,
            reason: "rejected".to_owned(),
        };
        Ok(rejected.map(undeliverable).collect())
    }
}
