//! Publishing events, and reading them back: outcomes, lists, cursor reads.

use std::collections::HashSet;
use std::ops::Range;
use std::time::Duration;

use serde_json::{Value, json};

use crate::api::Api;
use crate::eventually::eventually;
use crate::http::{Answer, ask, encoded};

/// A valid event.
pub fn event(topic: &str, event_id: &str) -> Value {
    json!({
        "topic": topic,
        "event_id": event_id,
        "timestamp": "2025-10-24T10:30:00Z",
        "source": "integration-tests",
        "payload": {"message": "hello", "of": event_id},
    })
}

/// The events `evt-FROM` to `evt-TO` of a topic.
pub fn events(topic: &str, numbers: Range<usize>) -> Vec<Value> {
    numbers.map(|number| event(topic, &format!("evt-{number}"))).collect()
}

/// An event with this text as its payload, byte for byte.
pub fn event_with_payload(topic: &str, event_id: &str, payload: &str) -> String {
    format!(
        r#"{{"topic":{},"event_id":{},"timestamp":"2025-10-24T10:30:00Z","source":"integration-tests","payload":{payload}}}"#,
        json!(topic),
        json!(event_id)
    )
}

/// The order 0..count, shuffled: the same for the same seed.
pub fn shuffled(count: usize, seed: u64) -> Vec<usize> {
    let mut order: Vec<usize> = (0..count).collect();
    // The finaliser of splitmix64: consecutive numbers get unrelated keys.
    order.sort_by_cached_key(|number| {
        let number = u64::try_from(*number).expect("a usize is no wider than 64 bits");
        let mut key = (number ^ seed.rotate_left(32)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        key = (key ^ (key >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        key = (key ^ (key >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        key ^ (key >> 31)
    });
    order
}

/// One element of `results` in an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// The event's id.
    pub event_id: String,
    /// `stored`, `duplicate` or `conflict`.
    pub status: String,
    /// The cursor of the first copy.
    pub cursor: String,
    /// When the first copy was received.
    pub received_at: String,
}

/// The outcomes of an answer, in its order.
pub fn outcomes(answer: &Answer) -> Vec<Outcome> {
    let body = answer.json();
    let results = body["results"]
        .as_array()
        .unwrap_or_else(|| panic!("no results: {body}"));
    results
        .iter()
        .enumerate()
        .map(|(index, result)| {
            assert_eq!(result["index"], index, "results are in the order of the request");
            Outcome {
                event_id: text(result, "event_id"),
                status: text(result, "status"),
                cursor: text(result, "cursor"),
                received_at: text(result, "received_at"),
            }
        })
        .collect()
}

/// The `status` of each outcome of an answer, in its order.
pub fn statuses(answer: &Answer) -> Vec<String> {
    outcomes(answer).into_iter().map(|outcome| outcome.status).collect()
}

/// A text member of a JSON object that must have it.
#[track_caller]
pub fn text(object: &Value, member: &str) -> String {
    object[member]
        .as_str()
        .unwrap_or_else(|| panic!("no text {member} in {object}"))
        .to_owned()
}

/// Publishing as an ordinary client does.
pub trait Publish {
    /// Publishes a JSON body.
    fn publish(&self, body: &Value) -> impl Future<Output = Answer>;
    /// Publishes a JSON body with a `Prefer` header.
    fn publish_preferring(&self, prefer: &str, body: &Value) -> impl Future<Output = Answer>;
    /// Publishes a body of this media type, byte for byte.
    fn publish_bytes(&self, media_type: &str, body: impl Into<Vec<u8>>) -> impl Future<Output = Answer>;
}

impl Publish for Api {
    async fn publish(&self, body: &Value) -> Answer {
        ask(self.post("/publish").json(body)).await
    }

    async fn publish_preferring(&self, prefer: &str, body: &Value) -> Answer {
        ask(self.post("/publish").header("prefer", prefer).json(body)).await
    }

    async fn publish_bytes(&self, media_type: &str, body: impl Into<Vec<u8>>) -> Answer {
        ask(self
            .post("/publish")
            .header("content-type", media_type)
            .body(body.into()))
        .await
    }
}

/// Publishes a batch of new events, and returns their cursors.
pub async fn publish_batch(service: &Api, batch: Vec<Value>) -> Vec<String> {
    let answer = service
        .publish_preferring("return=representation", &Value::from(batch))
        .await;
    assert_eq!(answer.status, 201, "{}", answer.text());
    outcomes(&answer).into_iter().map(|outcome| outcome.cursor).collect()
}

/// One page of a cursor read or a list.
#[derive(Debug)]
pub struct Page {
    /// The events.
    pub events: Vec<Value>,
    /// The cursor to continue from.
    pub next: String,
}

/// Asks `/events` with this query.
pub async fn page(service: &Api, query: &str) -> Page {
    let body = service.json(&format!("/events?{query}")).await;
    let events = body["events"].as_array().expect("a list of events").clone();
    assert_eq!(body["status"], "success");
    assert_eq!(body["count"], events.len());
    Page {
        events,
        next: text(&body, "next"),
    }
}

/// A cursor read: pages of `/events?after=`. It fails when an event comes twice or out of order.
#[derive(Debug, Default)]
pub struct Scan {
    next: String,
    seen: HashSet<(String, String)>,
    /// The events seen so far, in order.
    pub events: Vec<Value>,
}

impl Scan {
    /// Reads one page, and returns the number of its events.
    pub async fn step(&mut self, service: &Api, filter: &str) -> usize {
        let page = page(service, &format!("after={}&limit=1000{filter}", encoded(&self.next))).await;
        for event in &page.events {
            let identity = (text(event, "topic"), text(event, "event_id"));
            assert!(self.seen.insert(identity), "a cursor read returned this twice: {event}");
            if let Some(last) = self.events.last().filter(|last| last["topic"] == event["topic"]) {
                assert!(
                    text(last, "cursor") < text(event, "cursor"),
                    "a cursor read returned {event} after {last}"
                );
            }
            self.events.push(event.clone());
        }
        self.next = page.next;
        page.events.len()
    }

    /// Reads pages until `count` events were seen in all. Transactions of other tests may hold back the last stable position for
    /// a moment.
    pub async fn until(&mut self, service: &Api, filter: &str, count: usize, deadline: Duration) {
        eventually(deadline, async || {
            self.step(service, filter).await;
            anyhow::ensure!(self.events.len() >= count, "{} events of {count}", self.events.len());
            Ok(())
        })
        .await;
        assert_eq!(
            self.events.len(),
            count,
            "a cursor read returned more events than there are"
        );
    }

    /// The ids of the events seen.
    pub fn event_ids(&self) -> Vec<String> {
        self.events.iter().map(|event| text(event, "event_id")).collect()
    }
}
