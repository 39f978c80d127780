//! `GET /events/stream`: the log as Server-Sent Events (WHATWG HTML, section 9.2).

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Extension, RawQuery, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt;
use futures_util::stream::{iter, unfold};
use tokio::time::Instant;

use super::docs::answers::events::StreamAnswers;
use super::docs::parameters::StreamParameters;
use super::error::ApiError;
use super::guard::{self, May, visible};
use super::listener::Peer;
use super::observe::milliseconds;
use super::query::Query;
use super::request_id::RequestId;
use super::state::AppState;
use crate::event::{Cursor, Loc};
use crate::principals::{Principal, Principals};
use crate::subscribers::Subscriber;

/// How often a comment is sent while no event comes, so that a client can tell a quiet log from a dead connection.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// The first line: how long a browser waits before it reconnects. It also shows every proxy that the answer has begun. No empty line
/// follows: some clients take every block that ends with one for an event.
const OPENING: Bytes = Bytes::from_static(b"retry: 1000\n");
/// A comment; it, too, is no block of its own.
const COMMENT: Bytes = Bytes::from_static(b":\n");

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// Asks nginx and similar proxies not to buffer the answer.
const UNBUFFERED: (HeaderName, HeaderValue) = (
    HeaderName::from_static("x-accel-buffering"),
    HeaderValue::from_static("no"),
);

/// Stream events as they are stored
///
/// Begins with the next event, or with the events behind `Last-Event-ID` or `after`.
#[utoipa::path(
    get,
    path = "/events/stream",
    operation_id = "streamEvents",
    tag = "read",
    params(StreamParameters),
    responses(StreamAnswers)
)]
pub(super) async fn stream(
    May { who, .. }: May<guard::Read>,
    State(state): State<AppState>,
    (Extension(client), Extension(id)): (Extension<Peer>, Extension<RequestId>),
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    state.check_started()?;
    let mut query = Query::read(query.as_deref());
    let (topic, globs) = visible(query.topic(), &who);
    let after = query.after();
    query.finish().map_err(ApiError::Invalid)?;
    let after = last_event_id(&headers)?.or(after);
    let permit = state.subscribers.permit().map_err(|_| ApiError::TOO_MANY_SUBSCRIBERS)?;
    let subscriber = permit.subscribe(after, topic, globs).await?;
    let log = StreamLog::of(id);
    let access = Access {
        principals: state.principals.clone(),
        who,
    };
    let frames = unfold((subscriber, client, access, log), next);
    let body = iter([OPENING]).chain(frames).map(Ok::<_, std::convert::Infallible>);
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream")),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        UNBUFFERED,
    ];
    Ok((headers, Body::from_stream(body)).into_response())
}

/// A subscriber, its client, and the log line of the stream.
type Subscription = (Subscriber, Peer, Access, StreamLog);

/// Who reads, and until when.
struct Access {
    principals: Principals,
    who: Principal,
}

/// The next frames, or a comment if none came for a while. The stream ends when the service stops, the client
/// disconnects, or the principal is no longer what it was.
async fn next((mut subscriber, client, access, mut log): Subscription) -> Option<(Bytes, Subscription)> {
    let frames = tokio::select! {
        frames = tokio::time::timeout(HEARTBEAT, subscriber.next()) => frames,
        () = client.disconnected() => return None,
        () = access.principals.ended(&access.who) => return None,
    };
    let frames = match frames {
        Ok(frames) => frames?,
        Err(_) => COMMENT,
    };
    log.count(&frames);
    Some((frames, (subscriber, client, access, log)))
}

/// Logs a stream when it ends.
struct StreamLog {
    id: RequestId,
    begun: Instant,
    frames: usize,
    bytes: usize,
}

impl StreamLog {
    fn of(id: RequestId) -> Self {
        Self {
            id,
            begun: Instant::now(),
            frames: 0,
            bytes: 0,
        }
    }

    /// Counts the frames in a chunk of the stream. Each frame, and nothing else in it, ends with an empty line.
    fn count(&mut self, chunk: &Bytes) {
        self.bytes += chunk.len();
        if *chunk != COMMENT && tracing::enabled!(tracing::Level::DEBUG) {
            self.frames += chunk.windows(2).filter(|two| two == b"\n\n").count();
        }
    }
}

impl Drop for StreamLog {
    fn drop(&mut self) {
        tracing::debug!(
            request.id = self.id.as_str(),
            frames = self.frames,
            bytes = self.bytes,
            milliseconds = milliseconds(self.begun),
            "event stream ended"
        );
    }
}

/// The last event that the client has seen. Browsers send an empty header if they have seen none.
fn last_event_id(headers: &HeaderMap) -> Result<Option<Cursor>, ApiError> {
    let Some(id) = headers.get(LAST_EVENT_ID).filter(|id| !id.is_empty()) else {
        return Ok(None);
    };
    let loc = vec![Loc::name("header"), Loc::name("last-event-id")];
    match Cursor::parse(&String::from_utf8_lossy(id.as_bytes())) {
        Ok(cursor) => Ok(Some(cursor)),
        Err(error) => Err(ApiError::Invalid(vec![error.at(loc)])),
    }
}
