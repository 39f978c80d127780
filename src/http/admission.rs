//! What holds for every request, whatever its route: one `Host`, and a body that is either read to its end or announced as unread.
//!
//! A client that still writes its body when the connection is closed may never see the answer; one that sends its next request on a
//! connection that the service has closed sees it fail. So the rest of a body that no handler has read is discarded before the
//! answer, and where that is not possible the answer says `Connection: close`.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{Request, State};
use axum::http::{HeaderValue, Version, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use hyper::body::{Frame, SizeHint};

use super::error::ApiError;
use super::state::AppState;

/// How long the rest of a body is read and discarded.
const LINGER: Duration = Duration::from_secs(2);

/// Rejects a request of HTTP/1.1 without a `Host` or with two (RFC 9112, section 3.2), and sees to the rest of the body.
pub(super) async fn admit(State(state): State<AppState>, request: Request, next: Next) -> Response {
    let hosts = request.headers().get_all(header::HOST).iter().count();
    let is_addressed = hosts == 1 || (hosts == 0 && request.version() != Version::HTTP_11);
    if request.body().is_end_stream() {
        return if is_addressed {
            next.run(request).await
        } else {
            ApiError::HostMissing.into_response()
        };
    }
    let (parts, body) = request.into_parts();
    let expects = parts.headers.contains_key(header::EXPECT);
    let lent = Lent::of(body);
    let rest = lent.clone();
    let mut response = if is_addressed {
        next.run(Request::from_parts(parts, Body::new(lent))).await
    } else {
        ApiError::HostMissing.into_response()
    };
    if !rest.discard(expects, state.limits.body_bytes_max).await {
        let close = HeaderValue::from_static("close");
        response.headers_mut().insert(header::CONNECTION, close);
    }
    response
}

/// A body that a handler may read, and of which the rest is left when the handler has answered.
#[derive(Clone)]
struct Lent(Arc<Mutex<Left>>);

struct Left {
    body: Body,
    is_begun: bool,
    /// Whether the end was reached; `Some(false)`: the body broke off.
    end: Option<bool>,
}

impl Lent {
    fn of(body: Body) -> Self {
        Self(Arc::new(Mutex::new(Left {
            body,
            is_begun: false,
            end: None,
        })))
    }

    fn left(&self) -> MutexGuard<'_, Left> {
        self.0.lock().expect("nothing panics while it holds a body")
    }

    /// Discards the rest of the body, up to `max` bytes, and returns whether its end was reached. A client that waits for
    /// `100 Continue` has not begun, and is not asked to.
    async fn discard(self, expects: bool, max: usize) -> bool {
        {
            let left = self.left();
            if let Some(is_whole) = left.end {
                return is_whole;
            }
            if expects && !left.is_begun {
                return false;
            }
        }
        let mut read = 0;
        let reading = std::future::poll_fn(|context| {
            let mut left = self.left();
            loop {
                match left.poll(context) {
                    Poll::Ready(Some(Ok(frame))) => read += frame.data_ref().map_or(0, Bytes::len),
                    Poll::Ready(end) => return Poll::Ready(end.is_none()),
                    Poll::Pending => return Poll::Pending,
                }
                if read > max {
                    return Poll::Ready(false);
                }
            }
        });
        tokio::time::timeout(LINGER, reading).await.unwrap_or_else(|_| {
            tracing::debug!("the body of a request is still arriving after the answer, closing the connection");
            false
        })
    }
}

impl Left {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        self.is_begun = true;
        let polled = Pin::new(&mut self.body).poll_frame(context);
        match &polled {
            Poll::Ready(None) => self.end = Some(true),
            Poll::Ready(Some(Err(_))) => self.end = Some(false),
            Poll::Ready(Some(Ok(_))) if self.body.is_end_stream() => self.end = Some(true),
            _ => {}
        }
        polled
    }
}

impl HttpBody for Lent {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        self.left().poll(context)
    }

    fn is_end_stream(&self) -> bool {
        self.left().body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.left().body.size_hint()
    }
}
