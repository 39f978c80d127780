//! `GET /events/stream`: the log as it grows, as Server-Sent Events (WHATWG HTML, section 9.2).

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Extension, RawQuery, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use futures_util::{StreamExt, stream};
use tokio::time::Instant;

use super::AppState;
use super::docs::answers::StreamAnswers;
use super::docs::parameters::StreamParameters;
use super::error::ApiError;
use super::events::parameters::Parameters;
use super::listener::Client;
use super::observe::milliseconds;
use super::request_id::RequestId;
use crate::event::{Cursor, Loc};
use crate::subscribers::Subscriber;

/// How often something is sent where there is nothing to say: a reader can tell a quiet log from a dead connection.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// What comes first: how long a browser waits before it connects again. Everything in between learns that the answer has begun.
const OPENING: Bytes = Bytes::from_static(b"retry: 1000\n\n");
/// A comment.
const NOTHING: Bytes = Bytes::from_static(b":\n\n");

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// Asks nginx and its like not to wait for more before they pass something on.
const UNBUFFERED: (HeaderName, HeaderValue) = (
    HeaderName::from_static("x-accel-buffering"),
    HeaderValue::from_static("no"),
);

/// Streams what comes next, or what lies behind `Last-Event-ID` or `after=`
#[utoipa::path(
    get,
    path = "/events/stream",
    tag = "read",
    params(StreamParameters),
    responses(StreamAnswers)
)]
pub async fn follow(
    State(state): State<AppState>,
    Extension(client): Extension<Client>,
    Extension(id): Extension<RequestId>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    state.check_started()?;
    let mut parameters = Parameters::read(query.as_deref());
    let topic = parameters.topic();
    let after = parameters.after();
    parameters.finish().map_err(ApiError::Invalid)?;
    let after = last_event_id(&headers)?.or(after);
    let permit = state.live.permit().map_err(|_| ApiError::TOO_MANY_SUBSCRIBERS)?;
    let subscriber = permit.subscribe(after, topic).await?;
    let ending = Ending::of(id);
    let frames = stream::unfold((subscriber, client, ending), next);
    let body = stream::iter([OPENING])
        .chain(frames)
        .map(Ok::<_, std::convert::Infallible>);
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream")),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        UNBUFFERED,
    ];
    Ok((headers, Body::from_stream(body)).into_response())
}

/// A follower, its client, and what will be told of the stream.
type Followed = (Subscriber, Client, Ending);

/// The next frames, or a comment when there were none for a while. The end comes with the service's, or the client's.
async fn next((mut subscriber, client, mut ending): Followed) -> Option<(Bytes, Followed)> {
    let frames = tokio::select! {
        frames = tokio::time::timeout(HEARTBEAT, subscriber.next()) => frames,
        () = client.gone() => return None,
    };
    let frames = match frames {
        Ok(frames) => frames?,
        Err(_) => NOTHING,
    };
    ending.count(&frames);
    Some((frames, (subscriber, client, ending)))
}

/// Tells of a stream when it has ended, in one line of the log.
struct Ending {
    id: RequestId,
    begun: Instant,
    frames: usize,
    bytes: usize,
}

impl Ending {
    fn of(id: RequestId) -> Self {
        Self {
            id,
            begun: Instant::now(),
            frames: 0,
            bytes: 0,
        }
    }

    /// Counts the frames in a piece of the stream: each, and nothing else in it, ends with an empty line.
    fn count(&mut self, piece: &Bytes) {
        self.bytes += piece.len();
        if *piece != NOTHING && tracing::enabled!(tracing::Level::DEBUG) {
            self.frames += piece.windows(2).filter(|two| two == b"\n\n").count();
        }
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        tracing::debug!(
            request.id = self.id.as_str(),
            frames = self.frames,
            bytes = self.bytes,
            milliseconds = milliseconds(self.begun),
            "a stream has ended"
        );
    }
}

/// The place that a client says it has come to. An empty header is none: so a browser says that it has seen nothing.
fn last_event_id(headers: &HeaderMap) -> Result<Option<Cursor>, ApiError> {
    let Some(id) = headers.get(LAST_EVENT_ID).filter(|id| !id.is_empty()) else {
        return Ok(None);
    };
    let loc = vec![Loc::Name("header"), Loc::Name("last-event-id")];
    match Cursor::parse(&String::from_utf8_lossy(id.as_bytes())) {
        Ok(cursor) => Ok(Some(cursor)),
        Err(breach) => Err(ApiError::Invalid(vec![breach.at(loc)])),
    }
}
