//! Counts requests and their time, around all other layers. No label is the client's: a path is told by the route that it met, and
//! a method that is no usual one is "other", so nobody can make the number of series grow.

use std::sync::Arc;

use axum::extract::{MatchedPath, Request, State};
use axum::http::Method;
use axum::middleware::Next;
use axum::response::Response;
use tokio::time::Instant;

use crate::metrics::{Held, Metrics};

/// What stands for a path without a route, and for an unusual method.
const OTHER: &str = "other";

/// Passes a request on, and records it when its answer begins. One whose client goes away before that is not counted.
pub async fn measure(State(metrics): State<Arc<Metrics>>, request: Request, next: Next) -> Response {
    let path = request.extensions().get::<MatchedPath>().cloned();
    let route = path.as_ref().map_or(OTHER, MatchedPath::as_str);
    let method = usual(request.method());
    let under_way = Held::of(&metrics.http_in_flight);
    let begun = Instant::now();
    let response = next.run(request).await;
    drop(under_way);
    let status = response.status();
    let requests = metrics
        .http_requests
        .with_label_values(&[route, method, status.as_str()]);
    requests.inc();
    let duration = metrics.http_duration.with_label_values(&[route]);
    duration.observe(begun.elapsed().as_secs_f64());
    response
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
