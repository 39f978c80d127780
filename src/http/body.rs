//! The body of `/publish`: its media type, its coding, its limits, and the memory it takes while it is read.

use axum::body::Body;
use axum::http::{HeaderMap, header};
use bytes::Bytes;
use futures_util::TryStreamExt;
use http_body_util::{BodyDataStream, BodyExt};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio_util::io::StreamReader;

use super::error::ApiError;
use crate::config::HttpConfig;
use crate::ingest::{Budget, Reservation};

/// How many bytes are decompressed at a time: what a bomb can exceed the limit by.
const CHUNK: usize = 64 << 10;

/// A body of up to so many bytes is copied out of the connection's buffer, which can then be used again: a slice of it would hold on
/// to all of it (8 to 24 KiB) until the event is stored, and the connection would need a new one for each request.
const COPIED_BYTES: usize = 8 << 10;

/// How long the rest of a body is read that failed already, to be thrown away.
const LINGER: std::time::Duration = std::time::Duration::from_secs(2);

/// The two media types.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// `application/json`
    Json,
    /// `application/x-ndjson`
    Lines,
}

/// How the body is encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Coding {
    Identity,
    Gzip,
    Zstd,
}

/// The media type of a request.
///
/// # Errors
/// [`ApiError::UnsupportedMediaType`] for any other, and for none: a page of another site can then not publish in a
/// visitor's name without asking first (a "simple" request has neither type).
pub fn form(headers: &HeaderMap) -> Result<Form, ApiError> {
    let value = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let essence = value.split(';').next().unwrap_or_default().trim();
    match essence.to_ascii_lowercase().as_str() {
        "application/json" => Ok(Form::Json),
        "application/x-ndjson" => Ok(Form::Lines),
        _ => Err(ApiError::UnsupportedMediaType),
    }
}

/// Reads the whole body, decompressed, and the memory reserved for it.
///
/// # Errors
/// 413, 415, 400, 408, or 503 where the budget is spent. What of the body has not been read is then still to come.
pub async fn read(
    headers: &HeaderMap,
    body: &mut Body,
    limits: &HttpConfig,
    budget: &std::sync::Arc<Budget>,
) -> Result<(Bytes, Reservation), ApiError> {
    let coding = coding(headers)?;
    let mut reservation = budget.reserve();
    let max = limits.body_bytes_max;
    let declared = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    if coding == Coding::Identity && declared.is_some_and(|length| length > max) {
        return Err(ApiError::TooLarge(max));
    }
    let reading = async {
        if coding == Coding::Identity {
            return plain(body, declared, max, &mut reservation).await;
        }
        let stream = TryStreamExt::map_err(BodyDataStream::new(body), std::io::Error::other);
        let raw = tokio::io::BufReader::new(StreamReader::new(stream));
        match coding {
            Coding::Gzip => {
                let mut decoder = async_compression::tokio::bufread::GzipDecoder::new(raw);
                decoder.multiple_members(true);
                decoded(decoder, max, &mut reservation).await
            }
            _ => {
                let mut decoder = async_compression::tokio::bufread::ZstdDecoder::new(raw);
                decoder.multiple_members(true);
                decoded(decoder, max, &mut reservation).await
            }
        }
    };
    let bytes = tokio::time::timeout(limits.body_timeout, reading)
        .await
        .map_err(|_| ApiError::BodyTimeout)??;
    Ok((bytes, reservation))
}

fn coding(headers: &HeaderMap) -> Result<Coding, ApiError> {
    let mut codings = headers.get_all(header::CONTENT_ENCODING).iter();
    let Some(value) = codings.next() else {
        return Ok(Coding::Identity);
    };
    match value.to_str().unwrap_or_default().trim().to_ascii_lowercase().as_str() {
        _ if codings.next().is_some() => Err(ApiError::UnsupportedCoding),
        "identity" => Ok(Coding::Identity),
        "gzip" | "x-gzip" => Ok(Coding::Gzip),
        "zstd" => Ok(Coding::Zstd),
        _ => Err(ApiError::UnsupportedCoding),
    }
}

/// A body as it comes. One that arrives in one piece is not copied unless it is small, and one that says how long it is takes no
/// more room than that: a buffer that doubles would have up to twice as much. What is reserved is the room, not what is in it (the
/// buffer of a connection apart, which has up to three times what is reserved for a piece that is not copied).
async fn plain(
    body: &mut Body,
    declared: Option<usize>,
    max: usize,
    reservation: &mut Reservation,
) -> Result<Bytes, ApiError> {
    let mut first = Bytes::new();
    let mut whole = Vec::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|_| ApiError::Incomplete)?.into_data() else {
            continue;
        };
        let length = first.len() + whole.len() + data.len();
        if length > max {
            return Err(ApiError::TooLarge(max));
        }
        if length == data.len() {
            grow(reservation, length)?;
            first = if length <= COPIED_BYTES {
                Bytes::copy_from_slice(&data)
            } else {
                data
            };
            continue;
        }
        if length > whole.capacity() {
            // As far as it says, but in steps: who has sent little has not much set aside for it.
            let room = declared.map_or(2 * length, |declared| declared.min(4 * length));
            let room = room.min(max).max(length);
            grow(reservation, room - reservation.bytes())?;
            whole.reserve_exact(room - whole.len());
        }
        whole.extend_from_slice(&std::mem::take(&mut first));
        whole.extend_from_slice(&data);
    }
    Ok(if whole.is_empty() { first } else { whole.into() })
}

/// Reads on for a moment what nobody will look at, and at most `max` bytes of it, and says whether that was all. A client that
/// still writes when the connection is closed may never see the answer that tells it why; one that writes for too long is cut
/// all the same.
pub async fn discard(body: &mut Body, max: usize) -> bool {
    let reading = async {
        let mut read = 0;
        while read <= max {
            match body.frame().await {
                Some(Ok(frame)) => read += frame.data_ref().map_or(0, Bytes::len),
                end => return end.is_none(),
            }
        }
        false
    };
    tokio::time::timeout(LINGER, reading).await.unwrap_or_else(|_| {
        tracing::debug!("the body of a request that failed was still arriving");
        false
    })
}

/// A body that is decompressed as it comes, and cut off at its limit. What is reserved is the room, as for a plain one.
async fn decoded(
    mut decoder: impl AsyncRead + Unpin,
    max: usize,
    reservation: &mut Reservation,
) -> Result<Bytes, ApiError> {
    let mut whole = Vec::new();
    loop {
        if whole.len() == whole.capacity() {
            // A chunk above the limit, to see whether there is more; a request that is within it does not pay for that.
            let room = (2 * whole.len()).clamp(CHUNK, max + CHUNK);
            grow(reservation, room.min(max).saturating_sub(reservation.bytes()))?;
            whole.reserve_exact(room - whole.len());
        }
        let mut chunk = AsyncReadExt::take(&mut decoder, CHUNK as u64);
        let read = chunk.read_buf(&mut whole).await.map_err(|_| ApiError::Undecodable)?;
        if whole.len() > max {
            return Err(ApiError::TooLarge(max));
        }
        if read == 0 {
            break;
        }
    }
    if whole.len() <= whole.capacity() / 2 {
        whole.shrink_to_fit();
        reservation.shrink_to(whole.len());
    }
    Ok(whole.into())
}

fn grow(reservation: &mut Reservation, bytes: usize) -> Result<(), ApiError> {
    let spent = "The memory for requests is spent: nothing was stored. Try again a little later.";
    reservation.grow(bytes).map_err(|_| ApiError::Unavailable(spent))
}
