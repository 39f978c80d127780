//! Reading answers.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use reqwest::header::RETRY_AFTER;
use reqwest::{Response, StatusCode};
use serde::de::DeserializeOwned;

use super::error::{ClientError, Effect};
use super::explain::explain;

/// The longest answer that is read: far above that of a batch of 10 000 events.
const ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Reads an answer of JSON.
pub(super) async fn json<T: DeserializeOwned>(response: Response) -> Result<T, ClientError> {
    let status = response.status().as_u16();
    let answer = body(response).await?;
    serde_json::from_slice(&answer).map_err(|_| ClientError::Foreign { status })
}

/// Reads a whole answer.
pub(super) async fn body(mut response: Response) -> Result<Bytes, ClientError> {
    let status = response.status().as_u16();
    let mut body = BytesMut::new();
    while let Some(chunk) = response.chunk().await.map_err(ClientError::transport)? {
        if body.len() + chunk.len() > ANSWER_BYTES_MAX {
            return Err(ClientError::Foreign { status });
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body.freeze())
}

/// The error of an answer without success.
pub(super) async fn error(response: Response) -> ClientError {
    let status = response.status();
    let retry_after = retry_after(&response);
    // The status alone decides what may be retried, so an explanation that does not arrive changes nothing.
    let (detail, errors) = body(response).await.map(|body| explain(&body)).unwrap_or_default();
    let separator = if detail.is_empty() { "" } else { ": " };
    let reason = format!("status {}{separator}{detail}", status.as_u16());
    match status {
        // The service answers so only if nothing was stored.
        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
            ClientError::Retryable {
                reason,
                retry_after,
                effect: Effect::Nothing,
            }
        }
        // A 504 of the service says so. Another status may come from a load balancer that lost its connection to the service.
        status if status.is_server_error() => ClientError::Retryable {
            reason,
            retry_after,
            effect: Effect::Unknown,
        },
        status if status.is_client_error() => ClientError::Refused {
            status: status.as_u16(),
            detail,
            errors,
        },
        status => ClientError::Foreign {
            status: status.as_u16(),
        },
    }
}

/// `Retry-After` in seconds, the only form that this service and common load balancers send. (A date would need a correct clock.)
fn retry_after(response: &Response) -> Option<Duration> {
    let seconds = response
        .headers()
        .get(RETRY_AFTER)?
        .to_str()
        .ok()?
        .trim()
        .parse()
        .ok()?;
    Some(Duration::from_secs(seconds))
}
