//! `/docs` in a build without Swagger UI: nothing.

use axum::response::Response;

use crate::http::error::ApiError;

/// Answers every request for a file with 404.
pub fn file(_name: &str) -> Result<Response, ApiError> {
    Err(ApiError::NotFound)
}
