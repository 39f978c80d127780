//! A publisher during a fault, and the check after it: every event once in the log and in the stream, and exact counters.

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

/// How long the outbox may take to become empty: a batch whose replica was killed waits for its lease of 30 seconds first.
const DRAINED: Duration = Duration::from_secs(90);

/// The events a second of a publisher: enough that each fault affects many requests, and few enough that a run lasts.
const RATE: u64 = 1500;

/// A running publisher, in a container of its own.
#[derive(Debug)]
pub struct Publisher<'a> {
    stack: &'a Stack,
    container: String,
    before: Baseline,
    events: u64,
    /// The number of new events that the test itself has published meanwhile.
    beside: Cell<u64>,
}

/// The state before.
#[derive(Debug)]
struct Baseline {
    counters: Counters,
    next: String,
    last_entry: String,
}

#[derive(Debug, Clone, Copy)]
struct Counters {
    rows: u64,
    received: u64,
    unique: u64,
    duplicates: u64,
}

impl<'a> Publisher<'a> {
    /// Starts one that publishes for about this long without faults, and waits until its first events are stored.
    pub async fn start(stack: &'a Stack, lasting: Duration) -> Self {
        let events = RATE * lasting.as_secs();
        let container = format!("{}-under-test", stack.project());
        // A failed test may have left its container.
        attempt(&["rm", "-f", &container]).await;
        let before = Baseline::of(stack).await;
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

    /// Waits until another two thousand events are received.
    pub async fn goes_on(&self) {
        let begin = self.stack.json("/stats").await["received"].as_u64().expect("a number");
        eventually(DRAINED, async || {
            let received = self.stack.stat("received").await?;
            ensure!(received >= begin + 2000, "{received} events received, {begin} at first");
            Ok(())
        })
        .await;
    }

    /// Records that the test itself has published a new event.
    pub fn note_one_beside(&self) {
        self.beside.set(self.beside.get() + 1);
    }

    /// Asserts that it still runs: a fault after its end would prove nothing.
    pub async fn still_publishes(&self) {
        let finished = attempt(&["inspect", "-f", "{{.State.Running}}", &self.container]).await;
        assert_eq!(finished.stdout.trim(), "true", "the publisher ended before the fault");
    }

    /// Waits until it has ended, and checks that nothing was lost, stored twice or counted wrong. Returns its output.
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
        for (words, value) in [
            ("sent", self.events),
            ("unique", unique),
            ("duplicates", self.events - unique),
        ] {
            assert_eq!(finished.count(words), signed(value), "{words}");
        }
        let counters = Counters::of(self.stack).await;
        let before = self.before.counters;
        assert_eq!(
            counters.rows - before.rows,
            unique + beside,
            "rows = distinct events sent"
        );
        assert_eq!(
            counters.unique - before.unique,
            unique + beside,
            "unique = distinct events sent"
        );
        assert_eq!(counters.received, counters.unique + counters.duplicates);
        // Each event that was sent again may have been received once more.
        let again = signed(counters.received - before.received - self.events - beside);
        let resent = finished.count("resent");
        println!("{again} events were received once more, {resent} were resent");
        assert!(
            (0..=resent).contains(&again),
            "{again} events were received once more, {resent} were resent"
        );
        self.check_published().await;
        self.stack.exec("aggregator", &["eventsieve", "verify"]).await;
        finished
    }

    /// Checks that the Redis stream contains exactly the events of the log since then.
    async fn check_published(&self) {
        outbox_is_empty(self.stack).await;
        let scan = eventually(DRAINED, async || {
            let scan = self.scan().await?;
            let count = u64::try_from(scan.len()).expect("a usize is no wider than 64 bits");
            ensure!(
                count == self.events * 7 / 10 + self.beside.get(),
                "{count} events are stable"
            );
            Ok(scan)
        })
        .await;
        let entries = self
            .stack
            .redis(&["XRANGE", STREAM, &format!("({}", self.before.last_entry), "+"])
            .await;
        let lines: Vec<&str> = entries.lines().collect();
        // An id, and four fields with their values.
        let streamed: BTreeSet<String> = lines.chunks(9).map(|entry| entry[8].to_owned()).collect();
        let stored: BTreeSet<String> = scan.into_values().collect();
        let missing = stored.difference(&streamed).count();
        let unknown = streamed.difference(&stored).count();
        assert_eq!(
            (missing, unknown),
            (0, 0),
            "events missing in the stream, and events only in the stream"
        );
    }

    /// The events of the log since then, by cursor.
    async fn scan(&self) -> anyhow::Result<BTreeMap<String, String>> {
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
                    "a cursor read returned an event twice"
                );
            }
        }
    }
}

impl Baseline {
    async fn of(stack: &Stack) -> Self {
        outbox_is_empty(stack).await;
        let next = text(&stack.json("/events?limit=1&order=desc").await, "next");
        let last = stack.redis(&["XREVRANGE", STREAM, "+", "-", "COUNT", "1"]).await;
        Baseline {
            counters: Counters::of(stack).await,
            next,
            last_entry: last.lines().next().unwrap_or("0-0").to_owned(),
        }
    }
}

impl Counters {
    async fn of(stack: &Stack) -> Self {
        let stats = stack.json("/stats").await;
        let value = |member: &str| stats[member].as_u64().unwrap_or_else(|| panic!("no {member}: {stats}"));
        Counters {
            rows: value("database_total_rows"),
            received: value("received"),
            unique: value("unique_processed"),
            duplicates: value("duplicate_dropped"),
        }
    }
}

/// Waits until the outbox is empty.
async fn outbox_is_empty(stack: &Stack) {
    eventually(DRAINED, async || {
        let stats = stack.try_json("/stats").await?;
        ensure!(stats["outbox"]["batches"] == 0, "outbox {}", stats["outbox"]);
        ensure!(stats["outbox"]["parked"] == 0, "outbox {}", stats["outbox"]);
        Ok(())
    })
    .await;
}

fn signed(value: u64) -> i64 {
    i64::try_from(value).expect("a count of events in a test")
}
