//! The body of `/publish`: its media type, its coding, its limits, and the memory it takes while it is read.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::body::{Body, HttpBody};
use axum::http::{HeaderMap, header};
use bytes::Bytes;
use futures_util::TryStreamExt;
use http_body_util::{BodyDataStream, BodyExt};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio_util::io::StreamReader;

use super::error::ApiError;
use crate::config::HttpConfig;
use crate::ingest::{Budget, Reservation};

/// How many bytes are decompressed at a time: the most by which a decompression bomb can exceed the limit.
const CHUNK: usize = 64 << 10;

/// A body of up to this size is copied out of the connection's buffer. A slice would keep the whole buffer (8 to 24 KiB) in memory
/// until the event is stored, and the connection would need a new buffer for each request.
const COPIED_BYTES: usize = 8 << 10;

/// Over this time the bytes of a body are counted.
const RATE_WINDOW: Duration = Duration::from_secs(5);

/// A body of up to this size may arrive as slowly as the time limit allows: there is room for as many of them as there are connections.
const FREE_BYTES: usize = 4 << 10;

/// The two media types.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// `application/json`
    Json,
    /// `application/x-ndjson`, also by its other names
    Lines,
}

/// How the body is encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Coding {
    Identity,
    Gzip,
    Zstd,
}

/// The media type of a request. Any other, and none, is [`ApiError::UnsupportedMediaType`]: a page of another site can then not
/// publish in a visitor's name without a preflight request (a "simple" request has neither type).
pub(super) fn form(headers: &HeaderMap) -> Result<Form, ApiError> {
    let value = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let essence = value.split(';').next().unwrap_or_default().trim();
    match essence.to_ascii_lowercase().as_str() {
        "application/json" => Ok(Form::Json),
        "application/x-ndjson" | "application/ndjson" | "application/jsonl" => Ok(Form::Lines),
        _ => Err(ApiError::UnsupportedMediaType {
            is_missing: !headers.contains_key(header::CONTENT_TYPE),
        }),
    }
}

/// Reads the whole body, decompressed, with the memory reserved for it. Fails with 413, 415, 400, 408, or with 503 when the byte
/// budget is spent; the rest of the body is then not read yet.
pub(super) async fn read(
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
        return Err(ApiError::BodyTooLarge(max));
    }
    let received = AtomicUsize::new(0);
    let mut body = body.map_frame(|frame| {
        let bytes = frame.data_ref().map_or(0, Bytes::len);
        received.fetch_add(bytes, Ordering::Relaxed);
        frame
    });
    let reading = async {
        if coding == Coding::Identity {
            return plain(&mut body, declared, max, &mut reservation).await;
        }
        let stream = TryStreamExt::map_err(BodyDataStream::new(&mut body), std::io::Error::other);
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
    // What little a body that is not compressed may hold is left to the time limit alone.
    let free = if coding == Coding::Identity { FREE_BYTES } else { 0 };
    let reading = tokio::time::timeout(limits.body_timeout, reading);
    let bytes = tokio::select! {
        read = reading => read.map_err(|_| ApiError::BodyTimeout)??,
        () = stalled(&received, limits.body_rate_min, free) => return Err(ApiError::BodyTimeout),
    };
    Ok((bytes, reservation))
}

/// Waits until fewer bytes than `rate` for each second have come within a window, `free` bytes apart: a body that stands still keeps
/// memory from others.
async fn stalled(received: &AtomicUsize, rate: usize, free: usize) {
    let mut before = 0;
    loop {
        tokio::time::sleep(RATE_WINDOW).await;
        let now = received.load(Ordering::Relaxed);
        let needed = rate.saturating_mul(usize::try_from(RATE_WINDOW.as_secs()).unwrap_or(usize::MAX));
        if now - before < needed && now > free {
            return;
        }
        before = now;
    }
}

fn coding(headers: &HeaderMap) -> Result<Coding, ApiError> {
    let mut codings = headers.get_all(header::CONTENT_ENCODING).iter();
    let Some(value) = codings.next() else {
        return Ok(Coding::Identity);
    };
    match value.to_str().unwrap_or_default().trim().to_ascii_lowercase().as_str() {
        _ if codings.next().is_some() => Err(ApiError::UnsupportedContentCoding),
        "identity" => Ok(Coding::Identity),
        "gzip" | "x-gzip" => Ok(Coding::Gzip),
        "zstd" => Ok(Coding::Zstd),
        _ => Err(ApiError::UnsupportedContentCoding),
    }
}

/// Reads a body that is not compressed. A body that arrives in one piece is not copied unless it is small. A body with a
/// `Content-Length` gets a buffer of that size, where a buffer that doubles could be twice as large. What is reserved is the
/// capacity, not the length. (It does not include the buffer of the connection, which is up to three times as large as a piece that
/// is not copied.)
async fn plain(
    body: &mut (impl HttpBody<Data = Bytes> + Unpin),
    declared: Option<usize>,
    max: usize,
    reservation: &mut Reservation,
) -> Result<Bytes, ApiError> {
    let mut first = Bytes::new();
    let mut whole = Vec::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|_| ApiError::BodyIncomplete)?.into_data() else {
            continue;
        };
        let length = first.len() + whole.len() + data.len();
        if length > max {
            return Err(ApiError::BodyTooLarge(max));
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
            // Up to the declared length, but in steps: a client that has sent little must not reserve much.
            let capacity = declared.map_or(2 * length, |declared| declared.min(4 * length));
            let capacity = capacity.min(max).max(length);
            grow(reservation, capacity - reservation.bytes())?;
            whole.reserve_exact(capacity - whole.len());
        }
        whole.extend_from_slice(&std::mem::take(&mut first));
        whole.extend_from_slice(&data);
    }
    Ok(if whole.is_empty() { first } else { whole.into() })
}

/// Decompresses a body as it arrives, up to the limit. What is reserved is the capacity, as for a body that is not compressed.
async fn decoded(
    mut decoder: impl AsyncRead + Unpin,
    max: usize,
    reservation: &mut Reservation,
) -> Result<Bytes, ApiError> {
    let mut whole = Vec::new();
    loop {
        if whole.len() == whole.capacity() {
            // One chunk above the limit, to see whether there is more. It is not reserved for a request within the limit.
            let capacity = (2 * whole.len()).clamp(CHUNK, max + CHUNK);
            grow(reservation, capacity.min(max).saturating_sub(reservation.bytes()))?;
            whole.reserve_exact(capacity - whole.len());
        }
        let mut chunk = AsyncReadExt::take(&mut decoder, CHUNK as u64);
        let read = chunk
            .read_buf(&mut whole)
            .await
            .map_err(|_| ApiError::BodyNotDecodable)?;
        if whole.len() > max {
            return Err(ApiError::BodyTooLarge(max));
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
    reservation.grow(bytes).map_err(|_| ApiError::OUT_OF_MEMORY)
}
