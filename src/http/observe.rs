//! The outermost layer: one log line, one trace span and the metrics of each request.

use std::sync::Arc;

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::middleware::Next;
use axum::response::Response;
use tokio::time::Instant;

use super::client_address::ClientAddress;
use super::error::ApiError;
use super::measure::Measured;
use super::request_id::{RequestId, X_REQUEST_ID};
use crate::metrics::Metrics;
use crate::telemetry::{RequestSpan, Sample};

/// The most characters of an unknown path or of a method in the log: a client may send as many as fit into a head.
const CHARACTERS_MAX: usize = 100;

/// The log lines of requests that failed: in an overload there are thousands a second, which would wash the log away. The metrics count
/// all of them.
static FAILED: Sample = Sample::new(20);

/// The size of a request and the outcome of its events: an extension of its answer.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Tally {
    /// Bytes of the body, counted after decompression.
    pub(super) bytes: usize,
    /// Events, valid or not.
    pub(super) events: usize,
    /// Events that were new.
    pub(super) stored: usize,
    /// Events whose identity was already stored.
    pub(super) duplicates: usize,
    /// Invalid events, and events that the store did not accept.
    pub(super) rejected: usize,
}

/// Gives the request its id and its trace, writes the answer of an [`ApiError`], and logs the request once: at warn if the status
/// is 5xx and few such are logged in this second, else at debug.
pub(super) async fn observe(State(metrics): State<Arc<Metrics>>, mut request: Request, next: Next) -> Response {
    let measured = Measured::begin(&metrics, &request);
    let mut log = RequestLog::of(&request);
    if let Some(trace) = log.span.as_ref().and_then(RequestSpan::trace) {
        request.extensions_mut().insert(trace);
    }
    request.extensions_mut().insert(log.id.clone());
    let mut response = next.run(request).await;
    if let Some(error) = response.extensions_mut().remove::<ApiError>() {
        response = error.response(response, &log.id);
    }
    response.headers_mut().insert(X_REQUEST_ID, log.id.header());
    log.tally = response.extensions_mut().remove();
    log.status = Some(response.status());
    measured.end(&response);
    response
}

/// A request. Dropping it logs the request, also if the client disconnected before the answer.
struct RequestLog {
    id: RequestId,
    method: Method,
    route: Option<MatchedPath>,
    /// Only of a request without a route.
    path: Option<String>,
    client: Option<ClientAddress>,
    begun: Instant,
    span: Option<RequestSpan>,
    tally: Option<Tally>,
    status: Option<StatusCode>,
}

impl RequestLog {
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
            client: request.extensions().get::<ClientAddress>().copied(),
            begun: Instant::now(),
            span: RequestSpan::begin(name, |header| header_of(request.headers(), header)),
            tally: None,
            status: None,
            route,
        }
    }
}

/// A header that is given once. With two, there is no telling which one is meant.
fn header_of<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?.to_str().ok()?;
    values.next().is_none().then_some(value)
}

/// The milliseconds since then, to the microsecond.
pub(super) fn milliseconds(begun: Instant) -> f64 {
    (begun.elapsed().as_secs_f64() * 1e6).round() / 1e3
}

fn cut(text: &str) -> String {
    text.chars().take(CHARACTERS_MAX).collect()
}

/// The log line. It leaves out unknown fields.
macro_rules! log_request {
    ($level:ident, $log:expr, $message:literal $(, $name:ident = $value:expr)?) => {
        tracing::$level!(
            $($name = $value,)?
            request.id = $log.id.as_str(),
            request.method = cut($log.method.as_str()),
            request.route = $log.route.as_ref().map(MatchedPath::as_str),
            request.path = $log.path,
            status = $log.status.map(|status| status.as_u16()),
            milliseconds = milliseconds($log.begun),
            request.bytes = $log.tally.map(|tally| tally.bytes),
            events.sent = $log.tally.map(|tally| tally.events),
            events.stored = $log.tally.map(|tally| tally.stored),
            events.duplicates = $log.tally.map(|tally| tally.duplicates),
            events.rejected = $log.tally.map(|tally| tally.rejected),
            client = $log.client.map(tracing::field::display),
            trace.id = $log.span.as_ref().map(RequestSpan::trace_id),
            $message
        )
    };
}

impl Drop for RequestLog {
    fn drop(&mut self) {
        let is_server_error = self.status.is_some_and(|status| status.is_server_error());
        match self.status {
            Some(_) if is_server_error => match FAILED.admit() {
                Some(0) => log_request!(warn, self, "request failed"),
                Some(left_out) => log_request!(warn, self, "request failed", left_out = left_out),
                None => log_request!(debug, self, "request failed"),
            },
            Some(_) => log_request!(debug, self, "request"),
            None => log_request!(debug, self, "client disconnected before the answer"),
        }
        let Some(span) = &mut self.span else { return };
        span.set("http.request.method", cut(self.method.as_str()));
        if let Some(route) = &self.route {
            span.set("http.route", route.as_str().to_owned());
        }
        if let Some(status) = self.status {
            span.set("http.response.status_code", i64::from(status.as_u16()));
        }
        if is_server_error {
            span.fail();
        }
    }
}
