//! Under which path clients reach the service.
//!
//! A proxy passes the paths of its clients on as they are, and the service answers under `EVENTSIEVE_BASE_PATH`; or it removes their
//! beginning, and says so in `X-Forwarded-Prefix`. What the service writes for clients to follow begins with both.

use std::convert::Infallible;

use axum::Router;
use axum::extract::{FromRequestParts, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, Uri};
use axum::response::{IntoResponse, Redirect, Response};
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;

use super::state::AppState;
use crate::config::PathPrefix;

const X_FORWARDED_PREFIX: HeaderName = HeaderName::from_static("x-forwarded-prefix");

/// What a trusted proxy has removed from the path of a request: an extension of the request.
#[derive(Debug, Clone)]
pub(super) struct Removed(PathPrefix);

impl Removed {
    /// What the headers of a trusted proxy say; nothing if that is no path, or is said twice.
    pub(super) fn of(headers: &HeaderMap) -> Option<Self> {
        let mut values = headers.get_all(X_FORWARDED_PREFIX).iter();
        let prefix = values.next()?.to_str().ok()?.parse().ok()?;
        values.next().is_none().then_some(Self(prefix))
    }
}

/// What the paths of the service begin with for the client of a request: empty, or a path without a slash at its end.
#[derive(Debug, Clone, Default)]
pub(super) struct Prefix(String);

impl Prefix {
    /// The text, to write a path behind it.
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromRequestParts<AppState> for Prefix {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, Infallible> {
        let removed = parts.extensions.get::<Removed>();
        let removed = removed.map_or("", |Removed(prefix)| prefix.as_str());
        Ok(Self(format!("{removed}{}", state.limits.proxy.base_path.as_str())))
    }
}

/// A router that answers with `inside` under a path, as if it were not there, and with `outside` everywhere else.
pub(super) fn mounted(base: PathPrefix, inside: Router, outside: Router) -> Router {
    let (inside, outside) = (TowerToHyperService::new(inside), TowerToHyperService::new(outside));
    Router::new().fallback(move |mut request: Request| {
        let router = match without(&base, request.uri()) {
            Some(uri) => {
                *request.uri_mut() = uri;
                inside.clone()
            }
            None => outside.clone(),
        };
        async move {
            let answered: Result<Response, Infallible> = router.call(request).await;
            answered.into_response()
        }
    })
}

/// The base path itself, which leads to the page: its links are relative, and need the slash at its end. So is this one, in case that a
/// proxy has removed what comes before.
pub(super) fn entrance(base: &PathPrefix) -> Redirect {
    let last = base.as_str().rsplit('/').next().unwrap_or_default();
    Redirect::permanent(&format!("{last}/"))
}

/// The URL without the path that it begins with; `None` if it begins with another one.
fn without(base: &PathPrefix, uri: &Uri) -> Option<Uri> {
    let rest = uri.path_and_query()?.as_str().strip_prefix(base.as_str())?;
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(rest.starts_with('/').then(|| rest.parse().ok())??);
    Uri::from_parts(parts).ok()
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn only_what_is_under_the_base_path_is_inside() {
        let base: PathPrefix = "/log/a".parse().unwrap();
        for (path, expected) in [
            ("/log/a/events?limit=1", Some("/events?limit=1")),
            ("/log/a/", Some("/")),
            ("/log/a/?x=/log/a/", Some("/?x=/log/a/")),
            ("/log/a//events", Some("//events")),
            ("http://host/log/a/stats", Some("http://host/stats")),
            ("/log/a", None),
            ("/log/a?x=1", None),
            ("/log/ab", None),
            ("/log", None),
            ("/events", None),
            ("/x/log/a/events", None),
            ("/?x=/log/a/", None),
            ("*", None),
        ] {
            let expected = expected.map(|path| path.parse().unwrap());
            assert_eq!(without(&base, &path.parse().unwrap()), expected, "{path}");
        }
    }

    #[test]
    fn prefix_of_a_proxy_is_a_path_said_once() {
        let removed = |values: &[&'static str]| {
            let headers = values
                .iter()
                .map(|value| (X_FORWARDED_PREFIX, HeaderValue::from_static(value)));
            Removed::of(&headers.collect()).map(|Removed(prefix)| prefix.as_str().to_owned())
        };
        assert_eq!(removed(&["/log/a/"]).as_deref(), Some("/log/a"));
        for values in [
            &[][..],
            &["/a", "/a"],
            &["//evil.example"],
            &["https://evil.example/"],
            &["/a>; rel=\"next\""],
            &["/a/../b"],
            &["log"],
        ] {
            assert_eq!(removed(values), None, "{values:?}");
        }
    }
}
