//! Events as a client reads them: the pages of `GET /events`, and the stream of `GET /events/stream`.

use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{BoxStream, StreamExt, try_unfold};
use reqwest::{Response, header::CONTENT_TYPE};
use serde::Deserialize;
use serde_json::value::RawValue;
use sse_stream::{Error, SseByteStream};
use tokio::time::timeout;

use super::{ClientError, Effect};

/// How long a stream may be silent: the service sends something each 15 s, and three such signs may be missed.
pub const SILENCE_MAX: Duration = Duration::from_secs(45);

/// The type of the stream's events; others may be added to it later, and are not for us.
const EVENT: &str = "event";

/// An event as the service wrote it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventText {
    /// Its place in the log. Cursors compare as texts.
    pub cursor: String,
    /// Its topic.
    pub topic: String,
    /// All of it as JSON, in one line.
    pub line: String,
}

#[derive(Deserialize)]
struct Head {
    cursor: String,
    topic: String,
}

impl EventText {
    /// Reads an event; `None` if `json` is none that was stored.
    #[must_use]
    pub fn read(json: &str) -> Option<Self> {
        let Head { cursor, topic } = serde_json::from_str(json).ok()?;
        // JSON has line breaks between its tokens only: within a text they are escaped.
        let line = json.trim().replace(['\n', '\r'], " ");
        Some(Self { cursor, topic, line })
    }
}

/// A page of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// Its events, in log order.
    pub events: Vec<EventText>,
    /// Where the walk goes on.
    pub next: String,
}

#[derive(Deserialize)]
pub(super) struct PageAnswer {
    events: Vec<Box<RawValue>>,
    next: String,
}

impl PageAnswer {
    pub(super) fn page(self) -> Option<Page> {
        let events = self.events.iter().map(|event| EventText::read(event.get()));
        Some(Page {
            events: events.collect::<Option<_>>()?,
            next: self.next,
        })
    }
}

/// How far the log reaches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edge {
    /// A walk shows everything up to here, and a walk that starts here shows what comes next.
    pub settled: String,
    /// What was committed when this was asked is not behind here; a walk may not have it all yet.
    pub committed: String,
}

impl Edge {
    /// What the newest page of a list tells of the log.
    pub(super) fn of(newest: Page) -> Self {
        let Page { mut events, next } = newest;
        let newest = events.pop().map(|event| event.cursor);
        Self {
            committed: newest.unwrap_or_default().max(next.clone()),
            settled: next,
        }
    }
}

/// An open stream of events.
pub struct EventStream(SseByteStream<BoxStream<'static, Result<Bytes, ClientError>>>);

impl EventStream {
    /// Reads the stream that a response with success begins.
    pub(super) fn of(response: Response) -> Result<Self, ClientError> {
        let status = response.status().as_u16();
        let media_type = response.headers().get(CONTENT_TYPE).map(|value| value.as_bytes());
        if !media_type.is_some_and(|value| value.starts_with(b"text/event-stream")) {
            return Err(ClientError::Foreign { status });
        }
        // The limit is on bytes and not on events: comments, which are signs of life, come no further than the decoder.
        let chunks = try_unfold(response.bytes_stream().boxed(), async |mut chunks| {
            let chunk = timeout(SILENCE_MAX, chunks.next()).await.map_err(|_| {
                let seconds = SILENCE_MAX.as_secs();
                lost(format!("no sign of life for {seconds} s"))
            })?;
            let chunk = chunk.transpose().map_err(ClientError::transport)?;
            Ok(chunk.map(|chunk| (chunk, chunks)))
        });
        Ok(Self(SseByteStream::new(chunks.boxed())))
    }

    /// Waits for the next event. Nothing is lost when this is dropped and called again.
    ///
    /// # Errors
    /// [`ClientError::Retryable`] when the stream has ended in whatever way, [`ClientError::Foreign`] when it is not this
    /// service's.
    pub async fn next(&mut self) -> Result<EventText, ClientError> {
        loop {
            let block = match self.0.next().await {
                None => return Err(lost("the stream has ended".to_owned())),
                Some(Err(Error::Body(error))) => {
                    return Err(match error.downcast() {
                        Ok(error) => *error,
                        Err(error) => lost(error.to_string()),
                    });
                }
                Some(Err(_)) => return Err(FOREIGN),
                Some(Ok(block)) => block,
            };
            if block.event.as_deref() != Some(EVENT) {
                continue;
            }
            let event = block.data.as_deref().and_then(EventText::read).ok_or(FOREIGN)?;
            let cursor = block.id.ok_or(FOREIGN)?;
            return Ok(EventText { cursor, ..event });
        }
    }
}

const FOREIGN: ClientError = ClientError::Foreign { status: 200 };

fn lost(reason: String) -> ClientError {
    ClientError::Retryable {
        reason,
        retry_after: None,
        effect: Effect::Nothing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_becomes_one_line_and_keeps_every_other_byte() {
        let json = "{\"topic\":\"t\",\"payload\":{\r\n  \"a\": 1.0,\n\"b\":\"\\n\"},\"cursor\":\"01\"}\n";
        let event = EventText::read(json).unwrap();
        assert_eq!(
            event.line,
            r#"{"topic":"t","payload":{    "a": 1.0, "b":"\n"},"cursor":"01"}"#
        );
        assert_eq!((event.topic.as_str(), event.cursor.as_str()), ("t", "01"));
    }

    #[test]
    fn what_has_no_cursor_or_is_no_json_is_no_stored_event() {
        for text in ["", "hello", "{}", r#"{"topic":"t"}"#, r#"{"topic":"t","cursor":1}"#] {
            assert_eq!(EventText::read(text), None, "{text}");
        }
    }

    #[test]
    fn the_edge_of_an_empty_log_is_its_beginning_and_else_not_before_the_newest_event() {
        let page = |json: &str| serde_json::from_str::<PageAnswer>(json).unwrap().page().unwrap();
        let edge = |settled: &str, committed: &str| Edge {
            settled: settled.to_owned(),
            committed: committed.to_owned(),
        };
        let event = r#"{"topic":"t","cursor":"05"}"#;
        for (answer, expected) in [
            (r#"{"events":[],"next":"00"}"#.to_owned(), edge("00", "00")),
            (format!(r#"{{"events":[{event}],"next":"03"}}"#), edge("03", "05")),
            (format!(r#"{{"events":[{event}],"next":"06"}}"#), edge("06", "06")),
        ] {
            assert_eq!(Edge::of(page(&answer)), expected);
        }
    }
}
