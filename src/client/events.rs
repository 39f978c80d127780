//! Events as a client reads them: pages of `GET /events`, and the stream of `GET /events/stream`.

use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{BoxStream, StreamExt, TryStreamExt, try_unfold};
use reqwest::{Response, header::CONTENT_TYPE};
use serde_json::value::RawValue;
use sse_stream::{Error, SseByteStream};
use tokio::time::timeout;
use tokio_util::codec::{FramedRead, LinesCodec, LinesCodecError};
use tokio_util::io::StreamReader;

use super::error::{ClientError, Effect};
use crate::api::events::{self, StoredEvent, StreamNotice};

/// How long a stream may be silent: the service sends something every 15 s, and two of three may be missed.
pub const SILENCE_MAX: Duration = Duration::from_secs(45);

/// What a stream brings. Frames of unknown types may be added later; this client skips them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// An event.
    Event(EventText),
    /// Events after the position of the stream are gone.
    Truncated,
}

/// An event as the service wrote it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventText {
    /// Its position in the log. Cursors compare as texts.
    pub cursor: String,
    /// Its topic.
    pub topic: String,
    /// The whole event as JSON, in one line.
    pub line: String,
}

impl EventText {
    /// Reads an event; `None` if `json` is not a stored event.
    pub fn read(json: &str) -> Option<Self> {
        let event: StoredEvent<'_> = serde_json::from_str(json).ok()?;
        let (cursor, topic) = (event.cursor.to_string(), event.topic.into_owned());
        // JSON has line breaks only between its tokens: within a string they are escaped.
        let line = json.trim().replace(['\n', '\r'], " ");
        Some(Self { cursor, topic, line })
    }
}

/// A page of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// Its events, in the order of the query.
    pub events: Vec<EventText>,
    /// The cursor with which to read on.
    pub next: String,
    /// Whether events after the cursor of the query are gone.
    pub truncated: bool,
}

impl Page {
    /// Reads the answer of `GET /events`; `None` if `json` is not a page.
    pub(super) fn read(json: &[u8]) -> Option<Self> {
        let page: events::Page<'_, &RawValue> = serde_json::from_slice(json).ok()?;
        let events = page.events.iter().map(|event| EventText::read(event.get()));
        Some(Self {
            events: events.collect::<Option<_>>()?,
            next: page.next.to_string(),
            truncated: page.truncated,
        })
    }
}

/// How far the log reaches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogEnd {
    /// The last stable position: a cursor read returns everything up to here, and one that starts here returns what comes next.
    pub last_stable: String,
    /// The newest committed event, or the last stable position if it is later. A cursor read may not return all of it yet.
    pub newest: String,
}

impl LogEnd {
    /// The end of the log, by a page with its newest event.
    pub(super) fn of(newest: Page) -> Self {
        let Page { mut events, next, .. } = newest;
        let newest = events.pop().map(|event| event.cursor);
        Self {
            newest: newest.unwrap_or_default().max(next.clone()),
            last_stable: next,
        }
    }
}

/// The longest line of a list: an event whose texts all have escapes.
const LINE_BYTES_MAX: usize = 2 << 20;

/// A list that arrives line by line.
pub struct EventLines(FramedRead<StreamReader<BoxStream<'static, std::io::Result<Bytes>>, Bytes>, LinesCodec>);

impl EventLines {
    /// Reads the lines of a response with success.
    pub(super) fn of(response: Response) -> Self {
        let chunks = response.bytes_stream().map_err(std::io::Error::other).boxed();
        let lines = LinesCodec::new_with_max_length(LINE_BYTES_MAX);
        Self(FramedRead::new(StreamReader::new(chunks), lines))
    }

    /// The next event; `None` at the end of the list. Fails as [`ClientError::Retryable`] when the list breaks off or nothing comes
    /// for a while, and as [`ClientError::Foreign`] when it is no list of events.
    pub async fn next(&mut self) -> Result<Option<EventText>, ClientError> {
        let line = timeout(SILENCE_MAX, self.0.next()).await;
        let line = line.map_err(|_| lost(format!("nothing received for {} s", SILENCE_MAX.as_secs())))?;
        match line.transpose() {
            Ok(line) => line.map(|line| EventText::read(&line).ok_or(FOREIGN)).transpose(),
            Err(LinesCodecError::MaxLineLengthExceeded) => Err(FOREIGN),
            Err(LinesCodecError::Io(_)) => Err(lost("the list broke off".to_owned())),
        }
    }
}

/// An open stream of events.
pub struct EventStream(SseByteStream<BoxStream<'static, Result<Bytes, ClientError>>>);

impl EventStream {
    /// Reads the stream of a response with success.
    pub(super) fn of(response: Response) -> Result<Self, ClientError> {
        let status = response.status().as_u16();
        let media_type = response.headers().get(CONTENT_TYPE).map(|value| value.as_bytes());
        if !media_type.is_some_and(|value| value.starts_with(b"text/event-stream")) {
            return Err(ClientError::Foreign { status });
        }
        // The timeout applies to chunks of bytes and not to events, because the decoder drops comments, which show that the
        // connection is alive.
        let chunks = try_unfold(response.bytes_stream().boxed(), async |mut chunks| {
            let chunk = timeout(SILENCE_MAX, chunks.next()).await.map_err(|_| {
                let seconds = SILENCE_MAX.as_secs();
                lost(format!("nothing received for {seconds} s"))
            })?;
            let chunk = chunk.transpose().map_err(ClientError::transport)?;
            Ok(chunk.map(|chunk| (chunk, chunks)))
        });
        Ok(Self(SseByteStream::new(chunks.boxed())))
    }

    /// Waits for the next frame. Nothing is lost when the future is dropped. Fails as [`ClientError::Retryable`] when the stream
    /// ends or breaks, as [`ClientError::Refused`] when the log has not given out the cursor, and as [`ClientError::Foreign`] when
    /// it does not come from this service.
    pub async fn next(&mut self) -> Result<Frame, ClientError> {
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
            match block.event.as_deref() {
                None if block.data.is_some() => {
                    let event = block.data.as_deref().and_then(EventText::read).ok_or(FOREIGN)?;
                    let cursor = block.id.ok_or(FOREIGN)?;
                    return Ok(Frame::Event(EventText { cursor, ..event }));
                }
                Some(StreamNotice::TRUNCATED) => return Ok(Frame::Truncated),
                Some(StreamNotice::CURSOR_UNKNOWN) => {
                    return Err(ClientError::Refused {
                        status: 410,
                        detail: StreamNotice::CURSOR_UNKNOWN_DETAIL.to_owned(),
                        errors: Vec::new(),
                    });
                }
                _ => {}
            }
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

    fn event(payload: &str, cursor: &str) -> String {
        format!(
            r#"{{"topic":"t","event_id":"e","timestamp":"2025-10-24T10:30:00Z","source":"s","payload":{payload},"received_at":"2025-10-24T10:30:00Z","cursor":{cursor}}}"#
        )
    }

    fn cursor(number: u32) -> String {
        format!("{number:024x}")
    }

    #[test]
    fn event_becomes_one_line_and_keeps_its_other_bytes() {
        let cursor = format!("\"{}\"", cursor(1));
        let json = event("{\r\n  \"a\": 1.0,\n\"b\":\"\\n\"}", &cursor) + "\n";
        let event_text = EventText::read(&json).unwrap();
        assert_eq!(event_text.line, event("{    \"a\": 1.0, \"b\":\"\\n\"}", &cursor));
        assert_eq!(
            (event_text.topic.as_str(), event_text.cursor),
            ("t", cursor.replace('"', ""))
        );
    }

    #[test]
    fn text_that_is_no_stored_event_is_not_read() {
        for text in [
            "",
            "hello",
            "{}",
            r#"{"topic":"t"}"#,
            &event("{}", "1"),
            &event("{}", "\"1\""),
        ] {
            assert_eq!(EventText::read(text), None, "{text}");
        }
    }

    #[test]
    fn log_end_is_not_before_the_newest_event() {
        let end = |last_stable: u32, newest: u32| LogEnd {
            last_stable: cursor(last_stable),
            newest: cursor(newest),
        };
        for (events, next, expected) in [(vec![], 0, end(0, 0)), (vec![5], 3, end(3, 5)), (vec![5], 6, end(6, 6))] {
            let count = events.len();
            let events: Vec<String> = events
                .into_iter()
                .map(|number| event("{}", &format!("\"{}\"", cursor(number))))
                .collect();
            let answer = format!(
                r#"{{"status":"success","topic":null,"count":{count},"events":[{}],"next":"{}"}}"#,
                events.join(","),
                cursor(next)
            );
            assert_eq!(LogEnd::of(Page::read(answer.as_bytes()).unwrap()), expected);
        }
    }
}
