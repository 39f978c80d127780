//! Subscribers of `/events/stream`: one that reads every frame, and one that does not read.

use std::fmt;
use std::pin::Pin;
use std::time::Duration;

use anyhow::{Context, ensure};
use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use serde_json::Value;
use sse_stream::SseByteStream;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{Instant, timeout_at};

use crate::api::Api;
use crate::eventually::SOON;
use crate::http::read_to_end;
use crate::publish::text;

/// Longer than any test, because a subscriber reads until it is dropped.
const FOREVER: Duration = Duration::from_secs(600);

/// The receive buffer of a reader that stops reading; Linux takes no smaller one.
const SMALL_BUFFER: u32 = 4096;

/// An event as a subscriber received it, or a notice of the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// `event:`, which says what a notice is; `message` for an event, as in a browser.
    pub kind: String,
    /// `id:`, the cursor; a notice has none.
    pub id: String,
    /// `data:`, the event, byte for byte.
    pub data: String,
}

impl Frame {
    /// The event.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.data).unwrap_or_else(|error| panic!("no JSON: {error}: {}", self.data))
    }

    /// The id of the event.
    pub fn event_id(&self) -> String {
        text(&self.json(), "event_id")
    }
}

type Frames = Pin<Box<dyn Stream<Item = anyhow::Result<Frame>> + Send>>;

/// A subscriber with a connection of its own, which is closed when this is dropped.
pub struct StreamSubscriber {
    frames: Frames,
    last: Option<String>,
}

impl fmt::Debug for StreamSubscriber {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("StreamSubscriber")
            .field("last", &self.last)
            .finish_non_exhaustive()
    }
}

impl StreamSubscriber {
    /// Subscribes with this query (such as `after=`), and resumes after `last_event_id` if there is one. Returns once the service has
    /// answered: events that are published from then on are received.
    pub async fn open(service: &Api, query: &str, last_event_id: Option<&str>) -> Self {
        Self::try_open(service, query, last_event_id)
            .await
            .expect("the service accepts a subscriber")
    }

    /// The same for a service that may reject it or be unreachable.
    ///
    /// # Errors
    /// No answer came, or another one than 200.
    pub async fn try_open(service: &Api, query: &str, last_event_id: Option<&str>) -> anyhow::Result<Self> {
        let mut request = service.get(&format!("/events/stream?{query}")).timeout(FOREVER);
        if let Some(id) = last_event_id {
            request = request.header("last-event-id", id);
        }
        let response = request.send().await.context("no answer")?;
        ensure!(response.status() == 200, "{}", response.status());
        let media_type = response
            .headers()
            .get("content-type")
            .map_or(&b""[..], |value| value.as_bytes());
        ensure!(media_type.starts_with(b"text/event-stream"), "not a stream of events");
        Ok(Self::of(response.bytes_stream().map(|bytes| Ok(bytes?))))
    }

    /// A subscriber that reads this body.
    pub fn of(body: impl Stream<Item = anyhow::Result<Bytes>> + Send + 'static) -> Self {
        // The decoder accepts I/O errors only.
        let body = body.map(|bytes| bytes.map_err(|error| std::io::Error::other(format!("{error:#}"))));
        let frames = SseByteStream::new(body).filter_map(async |sse| match sse {
            Ok(sse) if sse.data.is_none() => None,
            Ok(sse) => Some(frame(sse)),
            Err(error) => Some(Err(anyhow::anyhow!("the stream broke: {error}"))),
        });
        StreamSubscriber {
            frames: Box::pin(frames),
            last: None,
        }
    }

    /// The next event; `None` when the service has ended the stream.
    ///
    /// # Errors
    /// The connection broke, or the frame is invalid.
    pub async fn next(&mut self) -> anyhow::Result<Option<Frame>> {
        let frame = self.frames.next().await.transpose()?;
        if let Some(frame) = frame.as_ref().filter(|frame| !frame.id.is_empty()) {
            self.last = Some(frame.id.clone());
        }
        Ok(frame)
    }

    /// The next `count` events, which must all arrive within `deadline`.
    pub async fn collect(&mut self, count: usize, deadline: Duration) -> Vec<Frame> {
        let end = Instant::now() + deadline;
        let mut frames = Vec::with_capacity(count);
        while frames.len() < count {
            let next = timeout_at(end, self.next())
                .await
                .unwrap_or_else(|_| panic!("{} events of {count} within {deadline:?}", frames.len()));
            frames.push(
                next.expect("a stream that does not break")
                    .unwrap_or_else(|| panic!("the stream ended after {} events of {count}", frames.len())),
            );
        }
        frames
    }

    /// Waits until the service ends the stream, and returns the events before that.
    pub async fn rest(&mut self) -> Vec<Frame> {
        let end = Instant::now() + SOON;
        let mut frames = Vec::new();
        while let Some(frame) = timeout_at(end, self.next())
            .await
            .expect("the stream is still open")
            .expect("a stream that does not break")
        {
            frames.push(frame);
        }
        frames
    }

    /// The cursor of the last event, from which to resume.
    pub fn last(&self) -> Option<&str> {
        self.last.as_deref()
    }
}

fn frame(sse: sse_stream::Sse) -> anyhow::Result<Frame> {
    let kind = sse.event.unwrap_or_else(|| "message".to_owned());
    let id = match kind.as_str() {
        "message" => sse.id.context("an event without an id")?,
        "truncated" | "cursor_unknown" => String::new(),
        _ => anyhow::bail!("another kind of frame: {kind}"),
    };
    let frame = Frame {
        kind,
        id,
        data: sse.data.context("a frame without data")?,
    };
    ensure!(!frame.data.contains('\n'), "data on several lines: {}", frame.data);
    Ok(frame)
}

/// A subscriber that reads nothing, with the smallest receive buffer.
#[derive(Debug)]
pub struct StalledSubscriber {
    stream: TcpStream,
}

impl StalledSubscriber {
    /// Requests the stream with this query.
    pub async fn open(service: &Api, query: &str) -> Self {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket
            .set_recv_buffer_size(SMALL_BUFFER)
            .expect("a socket of our own takes options");
        let address = service.address().parse().expect("an address");
        let mut stream = socket.connect(address).await.expect("the service listens");
        let head = format!("GET /events/stream?{query} HTTP/1.1\r\nhost: localhost\r\n\r\n");
        stream.write_all(head.as_bytes()).await.expect("the service reads");
        StalledSubscriber { stream }
    }

    /// Reads the rest, and returns its length; the service must have ended the connection.
    ///
    /// # Errors
    /// The connection is still open.
    pub async fn read_rest(mut self) -> anyhow::Result<usize> {
        Ok(read_to_end(&mut self.stream, SOON).await?.len())
    }
}
