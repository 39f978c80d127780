//! Counts requests and their time. No label is the client's: a path is told by the route that it met, and a method that is no
//! usual one is "other", so nobody can make the number of series grow.

use axum::extract::{MatchedPath, Request};
use axum::http::Method;
use axum::response::Response;
use tokio::time::Instant;

use crate::metrics::{GaugeGuard, Metrics};

/// What stands for a path without a route, and for an unusual method.
const OTHER: &str = "other";

/// A request that is under way. One whose client goes away before its answer begins is not counted.
pub struct Measured<'m> {
    metrics: &'m Metrics,
    route: Option<MatchedPath>,
    method: &'static str,
    begun: Instant,
    _under_way: GaugeGuard,
}

impl<'m> Measured<'m> {
    /// It has come.
    pub fn begin(metrics: &'m Metrics, request: &Request) -> Self {
        Self {
            metrics,
            route: request.extensions().get().cloned(),
            method: usual(request.method()),
            begun: Instant::now(),
            _under_way: GaugeGuard::new(&metrics.http_in_flight),
        }
    }

    /// It is answered.
    pub fn end(self, response: &Response) {
        let route = self.route.as_ref().map_or(OTHER, MatchedPath::as_str);
        let status = response.status();
        let requests = &self.metrics.http_requests;
        requests.with_label_values(&[route, self.method, status.as_str()]).inc();
        let duration = self.metrics.http_duration.with_label_values(&[route]);
        duration.observe(self.begun.elapsed().as_secs_f64());
    }
}

/// The method, if RFC 9110 or RFC 5789 names it.
fn usual(method: &Method) -> &'static str {
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
    fn a_method_that_a_client_has_made_up_is_another() {
        assert_eq!(usual(&Method::PATCH), "PATCH");
        for made_up in ["GETS", "get", "PROPFIND"] {
            assert_eq!(usual(&Method::from_bytes(made_up.as_bytes()).unwrap()), "other");
        }
    }
}
