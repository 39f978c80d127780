//! The outermost layer: what is told of each request, in one line of the log, in the span of its trace and in the metrics.

use std::sync::Arc;

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::middleware::Next;
use axum::response::Response;
use tokio::time::Instant;

use super::error::ApiError;
use super::listener::Client;
use super::measure::Measured;
use super::request_id::{RequestId, X_REQUEST_ID};
use crate::metrics::Metrics;
use crate::telemetry::RequestSpan;

/// How much is told of a path that nobody knows, or of a method: what a client sends may be as long as a head.
const CHARACTERS_MAX: usize = 100;

/// What a request has brought, and what became of it: an extension of its answer.
#[derive(Debug, Clone, Copy, Default)]
pub struct Tally {
    /// Bytes of the body, counted after decompression.
    pub bytes: usize,
    /// Events, valid or not.
    pub events: usize,
    /// Events that were new.
    pub stored: usize,
    /// Events that were there.
    pub duplicates: usize,
    /// Events that break a rule, or that the store would not take.
    pub rejected: usize,
}

/// Gives the request its id and its trace, writes its answer out if that is a failure, and tells of it once: at warn if it ends
/// with 5xx, else at debug.
pub async fn observe(State(metrics): State<Arc<Metrics>>, mut request: Request, next: Next) -> Response {
    let measured = Measured::begin(&metrics, &request);
    let mut seen = Seen::of(&request);
    if let Some(trace) = seen.span.as_ref().and_then(RequestSpan::trace) {
        request.extensions_mut().insert(trace);
    }
    request.extensions_mut().insert(seen.id.clone());
    let mut response = next.run(request).await;
    if let Some(failure) = response.extensions_mut().remove::<ApiError>() {
        response = failure.response(response, &seen.id);
    }
    response.headers_mut().insert(X_REQUEST_ID, seen.id.header());
    seen.tally = response.extensions_mut().remove();
    seen.status = Some(response.status());
    measured.end(&response);
    response
}

/// A request. It is told of when this is dropped, also if the client has gone before it could be answered.
struct Seen {
    id: RequestId,
    method: Method,
    route: Option<MatchedPath>,
    /// Of a request without a route.
    path: Option<String>,
    client: Option<Client>,
    begun: Instant,
    span: Option<RequestSpan>,
    tally: Option<Tally>,
    status: Option<StatusCode>,
}

impl Seen {
    fn of(request: &Request) -> Self {
        let route = request.extensions().get::<MatchedPath>().cloned();
        let name = || match &route {
            Some(route) => format!("{} {}", cut(request.method().as_str()), route.as_str()),
            None => cut(request.method().as_str()),
        };
        Self {
            id: RequestId::of(request.headers()),
            method: request.method().clone(),
            path: route.is_none().then(|| cut(request.uri().path())),
            client: request.extensions().get::<Client>().cloned(),
            begun: Instant::now(),
            span: RequestSpan::begin(name, |header| header_of(request.headers(), header)),
            tally: None,
            status: None,
            route,
        }
    }
}

/// A header that is there once: of two nobody knows which one is meant.
fn header_of<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?.to_str().ok()?;
    values.next().is_none().then_some(value)
}

/// How long ago that was, to the microsecond.
pub(super) fn milliseconds(begun: Instant) -> f64 {
    (begun.elapsed().as_secs_f64() * 1e6).round() / 1e3
}

fn cut(text: &str) -> String {
    text.chars().take(CHARACTERS_MAX).collect()
}

/// The one line. A field that is not known is not in it.
macro_rules! tell {
    ($level:ident, $seen:expr, $words:literal) => {
        tracing::$level!(
            request.id = $seen.id.as_str(),
            request.method = cut($seen.method.as_str()),
            request.route = $seen.route.as_ref().map(MatchedPath::as_str),
            request.path = $seen.path,
            status = $seen.status.map(|status| status.as_u16()),
            milliseconds = milliseconds($seen.begun),
            request.bytes = $seen.tally.map(|tally| tally.bytes),
            events.sent = $seen.tally.map(|tally| tally.events),
            events.stored = $seen.tally.map(|tally| tally.stored),
            events.duplicates = $seen.tally.map(|tally| tally.duplicates),
            events.rejected = $seen.tally.map(|tally| tally.rejected),
            client = $seen.client.as_ref().and_then(Client::address),
            trace.id = $seen.span.as_ref().map(RequestSpan::trace_id),
            $words
        )
    };
}

impl Drop for Seen {
    fn drop(&mut self) {
        let has_failed = self.status.is_some_and(|status| status.is_server_error());
        match self.status {
            Some(_) if has_failed => tell!(warn, self, "request failed"),
            Some(_) => tell!(debug, self, "request"),
            None => tell!(debug, self, "a request was given up by its client"),
        }
        let Some(span) = &mut self.span else { return };
        span.set("http.request.method", cut(self.method.as_str()));
        if let Some(route) = &self.route {
            span.set("http.route", route.as_str().to_owned());
        }
        if let Some(status) = self.status {
            span.set("http.response.status_code", i64::from(status.as_u16()));
        }
        if has_failed {
            span.fail();
        }
    }
}
