//! A store in memory that fails on command.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use uuid::Uuid;

use super::*;
use crate::event::{Cursor, Timestamp};
use crate::store::{Appended, Appender, GroupCommit, LogPosition, Named, Outcome, StoreError};

/// What the next attempt does.
#[derive(Debug, Clone, Copy)]
pub(super) enum Behave {
    Fail(ErrorClass),
    /// Commits, and then fails as this.
    CommitAndFail(ErrorClass),
    /// Never answers within its time limit.
    Hang,
    /// Takes its time limit to fail as this.
    FailLate(ErrorClass),
}

/// A store in memory that keeps a ledger, fails on command, and rejects every event whose id begins with "poison".
#[derive(Default)]
pub(super) struct Fake {
    pub(super) script: Mutex<VecDeque<Behave>>,
    /// Fails every attempt like this as long as it is set.
    pub(super) outage: Mutex<Option<ErrorClass>>,
    /// How often all connections were cut.
    pub(super) cuts: Mutex<usize>,
    pub(super) rows: Mutex<HashMap<(String, String), LogPosition>>,
    pub(super) ledger: Mutex<HashMap<Uuid, Appended>>,
    pub(super) received: Mutex<usize>,
    pub(super) group_commits: Mutex<Vec<usize>>,
}

/// A connection, and the number of cuts before it was opened: a later cut has killed it.
pub(super) struct FakeAppender(Arc<Fake>, usize);

#[async_trait]
impl Appender for FakeAppender {
    async fn append(&mut self, commit: &GroupCommit<'_>, timeout: Duration) -> Result<Appended, StoreError> {
        tokio::task::yield_now().await;
        if self.1 < *self.0.cuts.lock().unwrap() {
            return Err(StoreError::new(ErrorClass::Ambiguous, "the connection is dead"));
        }
        if let Some(class) = *self.0.outage.lock().unwrap() {
            return Err(StoreError::new(class, "outage"));
        }
        let behave = self.0.script.lock().unwrap().pop_front();
        match behave {
            None => self.0.commit(commit),
            Some(Behave::Fail(class)) => Err(StoreError::new(class, "on command")),
            Some(Behave::CommitAndFail(class)) => {
                self.0.commit(commit)?;
                Err(StoreError::new(class, "on command"))
            }
            Some(Behave::FailLate(class)) => {
                tokio::time::sleep(timeout).await;
                Err(StoreError::new(class, "late, on command"))
            }
            Some(Behave::Hang) => {
                tokio::time::sleep(timeout).await;
                Err(StoreError::new(ErrorClass::Ambiguous, "no answer"))
            }
        }
    }

    async fn ping(&mut self, _: Duration) -> Result<(), StoreError> {
        let outage = *self.0.outage.lock().unwrap();
        if outage.is_some() || self.1 < *self.0.cuts.lock().unwrap() {
            return Err(StoreError::new(ErrorClass::Ambiguous, "dead"));
        }
        Ok(())
    }

    async fn dry_run(&mut self, commit: &GroupCommit<'_>, _: Duration) -> Result<(), StoreError> {
        Fake::check(commit)
    }
}

impl Fake {
    fn check(commit: &GroupCommit<'_>) -> Result<(), StoreError> {
        let is_poison = |row: &crate::store::Row| commit.batch.event(*row).event_id.as_str().starts_with("poison");
        if commit.batch.rows().iter().any(is_poison) {
            return Err(StoreError::new(ErrorClass::Data, "poison"));
        }
        Ok(())
    }

    fn commit(&self, commit: &GroupCommit<'_>) -> Result<Appended, StoreError> {
        Self::check(commit)?;
        let mut ledger = self.ledger.lock().unwrap();
        if let Some(appended) = ledger.get(&commit.id) {
            return Ok(appended.clone());
        }
        let batch = i64::try_from(ledger.len()).unwrap() + 1;
        let received_at = Timestamp::from_micros(batch).unwrap();
        let mut rows = self.rows.lock().unwrap();
        let mut outcome = |row: &crate::store::Row| {
            let event = commit.batch.event(*row);
            let position = LogPosition {
                cursor: Cursor::new(batch, i32::try_from(row.position).unwrap()),
                received_at,
            };
            let mut is_new = false;
            let first = *rows
                .entry((event.topic.to_string(), event.event_id.to_string()))
                .or_insert_with(|| {
                    is_new = true;
                    position
                });
            if is_new {
                Outcome::Stored(first)
            } else {
                Outcome::Duplicate(first)
            }
        };
        let outcomes = commit.batch.rows().iter().map(&mut outcome).collect();
        *self.received.lock().unwrap() += commit.batch.len();
        self.group_commits.lock().unwrap().push(commit.batch.len());
        let appended = Appended {
            batch,
            received_at,
            outcomes,
        };
        ledger.insert(commit.id, appended.clone());
        Ok(appended)
    }
}

/// The fake as a store that opens appenders.
pub(super) struct FakeStore(pub(super) Arc<Fake>);

impl Named for FakeStore {
    fn name(&self) -> &'static str {
        "fake"
    }
}

#[async_trait]
impl EventWriter for FakeStore {
    fn writers_max(&self) -> u32 {
        u32::MAX
    }
    fn batch_events(&self) -> usize {
        50
    }
    async fn appender(&self, _: u32) -> Result<Box<dyn Appender>, StoreError> {
        if *self.0.outage.lock().unwrap() == Some(ErrorClass::NotSent) {
            return Err(StoreError::new(ErrorClass::NotSent, "no connection"));
        }
        let cuts = *self.0.cuts.lock().unwrap();
        Ok(Box::new(FakeAppender(self.0.clone(), cuts)))
    }
}
