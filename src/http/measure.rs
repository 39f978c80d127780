//! Counts requests and measures their duration. No label value comes from the client: a path is counted under its route and an
//! unusual method as "other", so the number of series is bounded.

use axum::extract::{MatchedPath, Request};
use axum::http::Method;
use axum::response::Response;
use tokio::time::Instant;

use crate::metrics::{GaugeGuard, Metrics};

/// The label value for a path without a route, and for an unusual method.
const OTHER: &str = "other";

/// A request in progress. It is not counted if the client disconnects before the answer begins.
pub(super) struct Measured<'m> {
    metrics: &'m Metrics,
    route: Option<MatchedPath>,
    method: &'static str,
    begun: Instant,
    _in_flight: GaugeGuard,
}

impl<'m> Measured<'m> {
    /// Starts the measurement.
    pub(super) fn begin(metrics: &'m Metrics, request: &Request) -> Self {
        Self {
            metrics,
            route: request.extensions().get().cloned(),
            method: method_label(request.method()),
            begun: Instant::now(),
            _in_flight: GaugeGuard::new(&metrics.http_in_flight),
        }
    }

    /// Records the answered request.
    pub(super) fn end(self, response: &Response) {
        let route = self.route.as_ref().map_or(OTHER, MatchedPath::as_str);
        let status = response.status();
        let requests = &self.metrics.http_requests;
        requests.with_label_values(&[route, self.method, status.as_str()]).inc();
        let duration = self.metrics.http_duration.with_label_values(&[route]);
        duration.observe(self.begun.elapsed().as_secs_f64());
    }
}

/// The method, if RFC 9110 or RFC 5789 defines it.
fn method_label(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::DELETE => "DELETE",
        Method::CONNECT => "CONNECT",
        Method::OPTIONS => "OPTIONS",
        Method::TRACE => "TRACE",
        Method::PATCH => "PATCH",
        _ => OTHER,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unusual_method_is_counted_as_other() {
        assert_eq!(method_label(&Method::PATCH), "PATCH");
        for unusual in ["GETS", "get", "PROPFIND"] {
            assert_eq!(method_label(&Method::from_bytes(unusual.as_bytes()).unwrap()), "other");
        }
    }
}
