//! `GET /dashboard`: the built-in page, as plain files in the binary. It requests only this service, by relative URLs, so it works
//! behind any host name and any path prefix.

use std::borrow::Cow;
use std::hash::{DefaultHasher, Hash, Hasher};

use axum::Json;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};

use super::docs::answers::observe::RootAnswers;
use super::docs::parameters::RootParameters;
use super::error::ApiError;
use crate::api::health::ServiceInfo;

/// The headers of each file. With `no-cache` a browser may keep a file, but asks each time whether it is still current, so that the
/// page of a new version is shown at once.
const HEADERS: [(HeaderName, HeaderValue); 4] = [
    (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
    (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY)),
    (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
];

/// The page may load only the files below and connect only to this service; no other site may frame it.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const HTML: &str = "text/html; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const ICON: &str = "image/svg+xml";

/// The answer of `GET /` to a program.
const INFO: ServiceInfo = ServiceInfo {
    service: Cow::Borrowed("eventsieve"),
    status: Cow::Borrowed("alive"),
    version: Cow::Borrowed(env!("CARGO_PKG_VERSION")),
};

struct File {
    name: &'static str,
    media_type: &'static str,
    text: &'static str,
}

const PAGE: File = File {
    name: "index.html",
    media_type: HTML,
    text: include_str!("dashboard/index.html"),
};

/// A file of the folder `dashboard`, with its media type.
macro_rules! file {
    ($name:literal, $media_type:expr) => {
        File {
            name: $name,
            media_type: $media_type,
            text: include_str!(concat!("dashboard/", $name)),
        }
    };
}

/// The files of the page, under `/dashboard/`.
const FILES: [File; 11] = [
    file!("style.css", STYLE),
    file!("icon.svg", ICON),
    file!("theme.js", SCRIPT),
    file!("app.js", SCRIPT),
    file!("request.js", SCRIPT),
    file!("chart.js", SCRIPT),
    file!("statistics.js", SCRIPT),
    file!("live.js", SCRIPT),
    file!("search.js", SCRIPT),
    file!("text.js", SCRIPT),
    file!("topics.js", SCRIPT),
];

/// Get the name and the version of the service
///
/// A browser (`Accept: text/html`) gets the dashboard.
#[utoipa::path(
    get,
    path = "/",
    operation_id = "getServiceInfo",
    tag = "observe",
    params(RootParameters),
    responses(RootAnswers)
)]
pub(super) async fn root(headers: HeaderMap) -> Response {
    let mut response = if prefers_html(&headers) {
        PAGE.answer(&headers)
    } else {
        Json(INFO).into_response()
    };
    response
        .headers_mut()
        .insert(header::VARY, HeaderValue::from_static("accept"));
    response
}

/// `GET /dashboard`
pub(super) async fn page(headers: HeaderMap) -> Response {
    PAGE.answer(&headers)
}

/// `GET /dashboard/{file}`
pub(super) async fn file(uri: Uri, headers: HeaderMap) -> Result<Response, ApiError> {
    let name = uri.path().strip_prefix("/dashboard/");
    let file = FILES
        .iter()
        .find(|file| Some(file.name) == name)
        .ok_or(ApiError::NotFound)?;
    Ok(file.answer(&headers))
}

impl File {
    /// The file, or 304 if the browser's copy is still current.
    fn answer(&self, request: &HeaderMap) -> Response {
        let etag = self.etag();
        let known = request.get_all(header::IF_NONE_MATCH).iter();
        let is_known = known
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .any(|tag| tag.trim().trim_start_matches("W/") == etag);
        let tag = [(header::ETAG, etag)];
        if is_known {
            return (StatusCode::NOT_MODIFIED, HEADERS, tag).into_response();
        }
        let media_type = [(header::CONTENT_TYPE, self.media_type)];
        (HEADERS, tag, media_type, self.text).into_response()
    }

    /// A hash of the content: the same on every replica of a build, and another one when a byte has changed.
    fn etag(&self) -> String {
        let mut hasher = DefaultHasher::new();
        self.text.hash(&mut hasher);
        format!("\"{:016x}\"", hasher.finish())
    }
}

/// Whether a client prefers HTML to JSON. A client that accepts both equally (`*/*`) is a program.
fn prefers_html(headers: &HeaderMap) -> bool {
    let values = headers.get_all(header::ACCEPT).iter();
    let ranges: Vec<&str> = values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .collect();
    quality(&ranges, "text", "html") > quality(&ranges, "application", "json")
}

/// The quality of a media type, 0 to 1: that of the most specific range that matches it (RFC 9110, section 12.5.1).
fn quality(ranges: &[&str], kind: &str, subtype: &str) -> f32 {
    let fitting = ranges.iter().filter_map(|range| {
        let mut parts = range.split(';').map(str::trim);
        let (range_kind, range_subtype) = parts.next()?.split_once('/')?;
        let kind_fits = range_kind.eq_ignore_ascii_case(kind);
        let precision = match (kind_fits, range_subtype.eq_ignore_ascii_case(subtype)) {
            (true, true) => 2,
            (true, false) if range_subtype == "*" => 1,
            (false, _) if range_kind == "*" => 0,
            _ => return None,
        };
        let weight = parts.find_map(|part| part.strip_prefix("q=").or(part.strip_prefix("Q=")));
        Some((precision, weight.and_then(|weight| weight.parse().ok()).unwrap_or(1.0)))
    });
    fitting
        .max_by_key(|(precision, _)| *precision)
        .map_or(0.0, |(_, quality)| quality)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accepting(values: &[&'static str]) -> HeaderMap {
        let values = values.iter().map(|value| HeaderValue::from_static(value));
        values.map(|value| (header::ACCEPT, value)).collect()
    }

    #[test]
    fn browser_gets_the_page_and_other_clients_json() {
        for page in [
            &["text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"][..],
            &["text/html"],
            &["application/json;q=0.5", "TEXT/HTML"],
            &["text/*, application/json;q=0.9"],
            &["application/json; q=0.1, text/html; level=1; q=0.2"],
        ] {
            assert!(prefers_html(&accepting(page)), "{page:?}");
        }
        for json in [
            &[][..],
            &["*/*"],
            &["application/json"],
            &["application/json, text/html;q=0.9"],
            &["text/html;q=0, */*"],
            &["text/html, application/json"],
            &["text/plain"],
            &["nonsense"],
        ] {
            assert!(!prefers_html(&accepting(json)), "{json:?}");
        }
    }

    #[test]
    fn files_have_distinct_tags_and_names() {
        let mut tags: Vec<String> = FILES.iter().chain([&PAGE]).map(File::etag).collect();
        let mut names: Vec<&str> = FILES.iter().map(|file| file.name).collect();
        for distinct in [&mut tags, &mut names.drain(..).map(str::to_owned).collect()] {
            let count = distinct.len();
            distinct.sort();
            distinct.dedup();
            assert_eq!(distinct.len(), count, "{distinct:?}");
        }
    }

    #[test]
    fn files_refer_to_each_other_and_to_no_host() {
        for file in FILES.iter().chain([&PAGE]) {
            let without_namespace = file.text.replace("http://www.w3.org/2000/svg", "");
            assert!(!without_namespace.contains("://"), "{} names a host", file.name);
            for import in file.text.split("from './").skip(1) {
                let name = import.split('\'').next().unwrap_or_default();
                assert!(FILES.iter().any(|file| file.name == name), "there is no {name}");
            }
        }
        for link in PAGE.text.split("\"dashboard/").skip(1) {
            let name = link.split('"').next().unwrap_or_default();
            assert!(FILES.iter().any(|file| file.name == name), "there is no {name}");
        }
    }
}
