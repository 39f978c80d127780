//! What a deployment owes to those who published to it: every event once in the log and in the stream, and exact counters.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::ensure;
use serde_json::Value;

use super::engine::attempt;
use super::stack::{STREAM, Stack};
use crate::eventually::eventually;
use crate::http::{Answer, encoded};
use crate::publish::text;
use crate::service::Finished;

/// How long the outbox may need to empty itself: a batch whose replica died waits for its lease of 30 seconds first.
const DRAINED: Duration = Duration::from_secs(90);

/// How many events a publisher sends in a second: so many that each fault meets many requests, and so few that a run lasts.
const RATE: u64 = 1500;

/// A publisher that is at work, in a container of its own.
#[derive(Debug)]
pub struct Publisher<'a> {
    stack: &'a Stack,
    container: String,
    before: Account,
    events: u64,
    /// New events that the test itself has published meanwhile.
    beside: Cell<u64>,
}

/// What was there before.
#[derive(Debug)]
struct Account {
    figures: Figures,
    next: String,
    last_entry: String,
}

#[derive(Debug, Clone, Copy)]
struct Figures {
    rows: u64,
    received: u64,
    unique: u64,
    duplicates: u64,
}

impl<'a> Publisher<'a> {
    /// Starts one that publishes for about so long when nothing disturbs it, and waits until its first events are stored.
    pub async fn start(stack: &'a Stack, lasting: Duration) -> Self {
        let events = RATE * lasting.as_secs();
        let container = format!("{}-under-test", stack.project());
        // A test that failed has left its own.
        attempt(&["rm", "-f", &container]).await;
        let before = Account::of(stack).await;
        stack
            .compose(&[
                "run",
                "-d",
                "--no-deps",
                "--name",
                &container,
                "-e",
                &format!("TOTAL_EVENTS={events}"),
                "-e",
                &format!("EVENTSIEVE_LOAD_RATE={RATE}"),
                "-e",
                "EVENTSIEVE_LOAD_WAIT=2m",
                "publisher",
            ])
            .await;
        let publisher = Publisher {
            stack,
            container,
            before,
            events,
            beside: Cell::new(0),
        };
        publisher.goes_on().await;
        publisher
    }

    /// Waits until another two thousand events are counted.
    pub async fn goes_on(&self) {
        let begin = self.stack.json("/stats").await["received"].as_u64().expect("a number");
        eventually(DRAINED, async || {
            let received = self.stack.stat("received").await?;
            ensure!(received >= begin + 2000, "{received} events received, {begin} at first");
            Ok(())
        })
        .await;
    }

    /// Notes that the test itself has published a new event.
    pub fn note_one_beside(&self) {
        self.beside.set(self.beside.get() + 1);
    }

    /// Whether it is still publishing: a fault that comes after its end shows nothing.
    pub async fn still_publishes(&self) {
        let finished = attempt(&["inspect", "-f", "{{.State.Running}}", &self.container]).await;
        assert_eq!(
            finished.stdout.trim(),
            "true",
            "the publisher ended before the fault did"
        );
    }

    /// Waits until it has ended, and checks that nothing was lost, stored twice or counted wrong. Gives back what it said.
    pub async fn settle(self) -> Finished {
        let finished = self.stack.finished(&self.container).await;
        finished.ended_with(0);
        let log = [&*finished.stdout, &*finished.stderr].concat();
        assert!(
            log.lines().any(|line| line.starts_with("published ")),
            "no progress in the log: {log}"
        );
        assert!(
            !log.contains(|c: char| c.is_control() && c != '\n'),
            "a log of lines: {log:?}"
        );
        let (unique, beside) = (self.events * 7 / 10, self.beside.get());
        for (words, figure) in [
            ("sent", self.events),
            ("unique", unique),
            ("duplicates", self.events - unique),
        ] {
            assert_eq!(finished.figure(words), signed(figure), "{words}");
        }
        let figures = Figures::of(self.stack).await;
        let before = self.before.figures;
        assert_eq!(
            figures.rows - before.rows,
            unique + beside,
            "rows = distinct events sent"
        );
        assert_eq!(
            figures.unique - before.unique,
            unique + beside,
            "unique = distinct events sent"
        );
        assert_eq!(figures.received, figures.unique + figures.duplicates);
        // What was sent again although the service had got it was received once more. Whether an attempt without an answer came
        // after all, the load generator cannot know.
        let again = signed(figures.received - before.received - self.events - beside);
        let (low, high) = (0, finished.figure("resent"));
        println!("{again} events were received once more, of {high} that were resent");
        assert!(
            (low..=high).contains(&again),
            "received = sent + resent: {again} more than sent, of {high} resent"
        );
        self.check_fan_out().await;
        self.stack.exec("aggregator", &["eventsieve", "verify"]).await;
        finished
    }

    /// Every event of the log since then is in the stream, and nothing else is.
    async fn check_fan_out(&self) {
        owes_nothing(self.stack).await;
        let walk = eventually(DRAINED, async || {
            let walk = self.walk().await?;
            let count = u64::try_from(walk.len()).expect("a usize is no wider than 64 bits");
            ensure!(
                count == self.events * 7 / 10 + self.beside.get(),
                "{count} events are settled"
            );
            Ok(walk)
        })
        .await;
        let entries = self
            .stack
            .redis(&["XRANGE", STREAM, &format!("({}", self.before.last_entry), "+"])
            .await;
        let lines: Vec<&str> = entries.lines().collect();
        // An id, and four fields with their values.
        let streamed: BTreeSet<String> = lines.chunks(9).map(|entry| entry[8].to_owned()).collect();
        let stored: BTreeSet<String> = walk.into_values().collect();
        let missing = stored.difference(&streamed).count();
        let strange = streamed.difference(&stored).count();
        assert_eq!(
            (missing, strange),
            (0, 0),
            "events missing in the stream, and in it alone"
        );
    }

    /// The events of the log since then, by their cursors.
    async fn walk(&self) -> anyhow::Result<BTreeMap<String, String>> {
        let mut events = BTreeMap::new();
        let mut next = self.before.next.clone();
        loop {
            let path = format!("/events?limit=1000&format=array&after={}", encoded(&next));
            let answer: Answer = self.stack.try_get(&path).await?;
            ensure!(answer.status == 200, "{} {}", answer.status, answer.text());
            let page: Vec<Box<serde_json::value::RawValue>> = serde_json::from_slice(&answer.body)?;
            if page.is_empty() {
                return Ok(events);
            }
            for event in page {
                let cursor = text(&serde_json::from_str::<Value>(event.get())?, "cursor");
                next.clone_from(&cursor);
                ensure!(
                    events.insert(cursor, event.get().to_owned()).is_none(),
                    "a walk saw an event twice"
                );
            }
        }
    }
}

impl Account {
    async fn of(stack: &Stack) -> Self {
        owes_nothing(stack).await;
        let next = text(&stack.json("/events?limit=1&order=desc").await, "next");
        let last = stack.redis(&["XREVRANGE", STREAM, "+", "-", "COUNT", "1"]).await;
        Account {
            figures: Figures::of(stack).await,
            next,
            last_entry: last.lines().next().unwrap_or("0-0").to_owned(),
        }
    }
}

impl Figures {
    async fn of(stack: &Stack) -> Self {
        let stats = stack.json("/stats").await;
        let figure = |member: &str| stats[member].as_u64().unwrap_or_else(|| panic!("no {member}: {stats}"));
        Figures {
            rows: figure("database_total_rows"),
            received: figure("received"),
            unique: figure("unique_processed"),
            duplicates: figure("duplicate_dropped"),
        }
    }
}

/// Waits until the outbox is empty.
async fn owes_nothing(stack: &Stack) {
    eventually(DRAINED, async || {
        let stats = stack.try_json("/stats").await?;
        ensure!(stats["outbox"]["batches"] == 0, "outbox {}", stats["outbox"]);
        ensure!(stats["outbox"]["parked"] == 0, "outbox {}", stats["outbox"]);
        Ok(())
    })
    .await;
}

fn signed(figure: u64) -> i64 {
    i64::try_from(figure).expect("a count of events in a test")
}
