//! The files of Swagger UI, which are part of the binary.

use std::sync::Arc;

use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use utoipa_swagger_ui::Config;

use crate::http::error::ApiError;

/// The page may load only its own files; its icons are in its style sheet.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
);

/// The URL of the document, relative to the page: a proxy may add a prefix to both.
const DOCUMENT: &str = "../openapi.json";

/// A file of Swagger UI by its name; 404 for any other name.
pub(super) fn file(name: &str) -> Result<Response, ApiError> {
    // Otherwise the page would load a badge from a validator on another host.
    let config = Config::from(DOCUMENT).validator_url("none").use_base_layout();
    let file = utoipa_swagger_ui::serve(name, Arc::new(config)).map_err(|_| ApiError::Internal)?;
    let file = file.ok_or(ApiError::NotFound)?;
    let media_type = HeaderValue::from_str(&file.content_type).map_err(|_| ApiError::Internal)?;
    let headers = HeaderMap::from_iter([
        (header::CONTENT_TYPE, media_type),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (
            HeaderName::from_static("referrer-policy"),
            HeaderValue::from_static("no-referrer"),
        ),
    ]);
    Ok((headers, file.bytes.into_owned()).into_response())
}
