//! Random programs of group commits: the store does what a small model does.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestRunner};
use tokio::runtime::Handle;
use uuid::Uuid;

use super::{ATTEMPT, TestDatabase, event, listed, migrated, scanned_all, topic, until_stable};
use crate::event::{Cursor, Event};
use crate::store::{Appended, Appender, Batch, Counts, GroupCommit, LogPosition, Outcome, Store};

const TOPICS: [&str; 3] = ["t", "T", "u"];
const IDS: [&str; 3] = ["a", "b", "a "];
/// Payloads, each with the number of its value: the first three are one value in other bytes.
const PAYLOADS: [(&str, u8); 5] = [
    (r#"{"v":1}"#, 1),
    (r#"{"v":1.0}"#, 1),
    (r#"{ "v":0,"v":1}"#, 1),
    (r#"{"v":2}"#, 2),
    (r#"{"v":"1"}"#, 3),
];

/// An event, by its places in the three tables above.
type Letter = (usize, usize, usize);

#[derive(Debug, Clone)]
enum Step {
    /// A new group commit.
    New(Vec<Letter>),
    /// The commit of the step at this index, once more; a new empty commit if there was none yet.
    Again(prop::sample::Index),
}

/// Steps, each by one of two writers.
fn programs() -> impl Strategy<Value = Vec<(Step, usize)>> {
    let letter = (0..TOPICS.len(), 0..IDS.len(), 0..PAYLOADS.len());
    let new = prop::collection::vec(letter, 0..12).prop_map(Step::New);
    let step = prop_oneof![3 => new, 1 => any::<prop::sample::Index>().prop_map(Step::Again)];
    prop::collection::vec((step, 0..2usize), 1..=12)
}

pub(super) async fn random_programs_match_the_model(db: &dyn TestDatabase) {
    let stores = [migrated(db).await, db.store()];
    let config = Config {
        cases: 32,
        failure_persistence: None,
        ..Config::default()
    };
    tokio::task::block_in_place(|| {
        let run = |program| Handle::current().block_on(check(db, &stores, program));
        TestRunner::new(config)
            .run(&programs(), run)
            .unwrap_or_else(|failure| panic!("{failure}"));
    });
}

/// The outcome of one event: the commit, counted from 0, and the position of the first copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum EventOutcome {
    Stored(usize, u32),
    Duplicate(usize, u32),
    Conflict(usize, u32),
}

/// A store in a few lines.
#[derive(Default)]
struct Model {
    first_copies: BTreeMap<(usize, usize), (usize, u32, u8)>,
    log: Vec<(usize, u32, Letter)>,
    counts: BTreeMap<usize, Counts>,
}

impl Model {
    fn commit(&mut self, number: usize, letters: &[Letter]) -> Vec<EventOutcome> {
        let mut outcomes = Vec::new();
        for (position, letter) in (0..).zip(letters) {
            let (topic, id, payload) = *letter;
            let value = PAYLOADS[payload].1;
            let counts = self.counts.entry(topic).or_default();
            counts.received += 1;
            outcomes.push(match self.first_copies.get(&(topic, id)) {
                None => {
                    self.first_copies.insert((topic, id), (number, position, value));
                    self.log.push((number, position, *letter));
                    counts.unique_processed += 1;
                    EventOutcome::Stored(number, position)
                }
                Some((commit, first, known)) => {
                    counts.duplicate_dropped += 1;
                    if *known == value {
                        EventOutcome::Duplicate(*commit, *first)
                    } else {
                        counts.conflicts += 1;
                        EventOutcome::Conflict(*commit, *first)
                    }
                }
            });
        }
        outcomes
    }

    fn total(&self) -> Counts {
        self.counts.values().fold(Counts::default(), |sum, counts| Counts {
            received: sum.received + counts.received,
            unique_processed: sum.unique_processed + counts.unique_processed,
            duplicate_dropped: sum.duplicate_dropped + counts.duplicate_dropped,
            conflicts: sum.conflicts + counts.conflicts,
            pruned: 0,
        })
    }
}

fn spell((topic, id, payload): Letter) -> Event {
    event(TOPICS[topic], IDS[id], PAYLOADS[payload].0)
}

/// A commit of the program, with its answer.
struct Done {
    id: Uuid,
    letters: Vec<Letter>,
    appended: Appended,
}

async fn check(
    db: &dyn TestDatabase,
    stores: &[Arc<dyn Store>; 2],
    program: Vec<(Step, usize)>,
) -> Result<(), TestCaseError> {
    db.execute(
        "delete from events; delete from identities; delete from conflicts; delete from batches; delete from topic_counts;
         update totals set received = 0, unique_processed = 0, duplicate_dropped = 0, conflicts = 0, topics = 0",
    )
    .await;
    if db.name() == "postgres" {
        db.execute("delete from topics").await;
    }
    let mut writers = [
        stores[0].appender(0).await.unwrap(),
        stores[1].appender(1).await.unwrap(),
    ];
    let mut model = Model::default();
    let mut done: Vec<Done> = Vec::new();
    for (step, writer) in program {
        let writer = &mut writers[writer];
        match step {
            Step::Again(index) if !done.is_empty() => {
                let again = index.get(&done);
                let answer = send(writer, again.id, &again.letters).await;
                prop_assert_eq!(&answer, &again.appended, "a retry is answered as before");
            }
            Step::New(_) | Step::Again(_) => {
                let letters = if let Step::New(letters) = step {
                    letters
                } else {
                    Vec::new()
                };
                let id = Uuid::new_v4();
                let appended = send(writer, id, &letters).await;
                prop_assert!(done.last().is_none_or(|last| last.appended.batch < appended.batch));
                let outcomes = model.commit(done.len(), &letters);
                done.push(Done { id, letters, appended });
                same_outcomes(&done, &outcomes)?;
            }
        }
    }
    same_log(&stores[0], &model, &done).await
}

async fn send(writer: &mut Box<dyn Appender>, id: Uuid, letters: &[Letter]) -> Appended {
    let (batch, _) = Batch::new(letters.iter().copied().map(spell).collect());
    writer
        .append(
            &GroupCommit {
                id,
                batch: &batch,
                lease: None,
                lock_limit: std::time::Duration::MAX,
            },
            ATTEMPT,
        )
        .await
        .unwrap()
}

/// Each row of the newest commit has the outcome that the model has for the first event of the row.
fn same_outcomes(done: &[Done], outcomes: &[EventOutcome]) -> Result<(), TestCaseError> {
    let newest = &done[done.len() - 1];
    let (batch, _) = Batch::new(newest.letters.iter().copied().map(spell).collect());
    let place = |commit: usize, position: u32| {
        let first: &Appended = &done[commit].appended;
        let cursor = Cursor::new(first.batch, i32::try_from(position).unwrap());
        LogPosition {
            cursor,
            received_at: first.received_at,
        }
    };
    let outcome = |position: u32| match outcomes[position as usize] {
        EventOutcome::Stored(commit, position) => Outcome::Stored(place(commit, position)),
        EventOutcome::Duplicate(commit, position) => Outcome::Duplicate(place(commit, position)),
        EventOutcome::Conflict(commit, position) => Outcome::Conflict(place(commit, position)),
    };
    let expected: Vec<Outcome> = batch.rows().iter().map(|row| outcome(row.position)).collect();
    prop_assert_eq!(&newest.appended.outcomes, &expected);
    Ok(())
}

/// Rows, their order and the counters are the model's.
async fn same_log(store: &Arc<dyn Store>, model: &Model, done: &[Done]) -> Result<(), TestCaseError> {
    let rows = listed(store).await;
    let expected: Vec<(Cursor, Event)> = model
        .log
        .iter()
        .map(|(commit, position, letter)| {
            (
                Cursor::new(done[*commit].appended.batch, i32::try_from(*position).unwrap()),
                spell(*letter),
            )
        })
        .collect();
    let stored: Vec<(Cursor, Event)> = rows.iter().map(|row| (row.cursor, row.event.clone())).collect();
    prop_assert_eq!(stored, expected);
    until_stable(store).await;
    prop_assert_eq!(scanned_all(store, Cursor::BEGINNING, 5).await.0, rows);
    for (number, name) in TOPICS.iter().enumerate() {
        let expected = model.counts.get(&number).copied().unwrap_or_default();
        prop_assert_eq!(store.topic_counts(&topic(name)).await.unwrap(), expected);
    }
    prop_assert_eq!(store.stats().await.unwrap().counts, model.total());
    prop_assert_eq!(store.verify().await.unwrap().drifts, [""; 0]);
    Ok(())
}
