//! `/docs` in a build without Swagger UI: there is no such page.

use axum::response::Response;

use crate::http::error::ApiError;

/// Answers every request for a file with 404.
pub(super) fn file(_name: &str) -> Result<Response, ApiError> {
    Err(ApiError::NotFound)
}
