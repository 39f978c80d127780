//! `/docs`: Swagger UI, a page on which the document can be read and requests can be tried.

use axum::http::Uri;
use axum::response::{Redirect, Response};

use super::swagger_ui;
use crate::http::error::ApiError;

/// `GET /docs`
pub(in crate::http) async fn enter() -> Redirect {
    // Relative, so that it also works behind a proxy that adds a prefix.
    Redirect::permanent("docs/")
}

/// `GET /docs/`
pub(in crate::http) async fn page() -> Result<Response, ApiError> {
    swagger_ui::file("index.html")
}

/// `GET /docs/{file}`
pub(in crate::http) async fn file(uri: Uri) -> Result<Response, ApiError> {
    match uri.path().strip_prefix("/docs/") {
        // The crate would answer it with the page.
        Some("/") | None => Err(ApiError::NotFound),
        Some(name) => swagger_ui::file(name),
    }
}
