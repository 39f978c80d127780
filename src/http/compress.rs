//! Compressed answers to reading: gzip or zstd, as the client asks (RFC 9110, section 12.5.3).
//!
//! A body is compressed piece by piece as its client reads it, so that it keeps its room in the budget of answers until its last byte has
//! been read from it. What the compression itself takes comes out of a budget of its own; an answer that finds none left is not
//! compressed. It is fast rather than small: the same processor stores events.

use std::pin::Pin;

use async_compression::Level;
use async_compression::tokio::bufread::{GzipEncoder, ZstdEncoder};
use async_compression::zstd::CParameter;
use axum::body::{Body, HttpBody};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, header};
use axum::middleware::Next;
use axum::response::Response;
use futures_util::{StreamExt, TryStreamExt};
use tokio::io::AsyncRead;
use tokio_util::io::{ReaderStream, StreamReader};

use super::room::Room;
use super::state::AppState;

/// An answer that is smaller is not worth the time.
const SMALL_BYTES: u64 = 1 << 10;

/// How far zstd looks back: 2 to this power. With it and its buffers zstd takes some 520 KiB; with its defaults, more than twice as much.
const ZSTD_WINDOW: u32 = 16;

/// The most bytes that the compression of one answer takes: its tables, its window, and what it has read and written.
const ENCODER_BYTES: usize = 768 << 10;

/// The compressed bytes that are handed on at a time.
const PIECE_BYTES: usize = 16 << 10;

/// How an answer is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Coding {
    Gzip,
    Zstd,
}

/// Compresses the answer if its client wants that and it is worth it.
pub(super) async fn compress(State(state): State<AppState>, request: Request, next: Next) -> Response {
    let wanted = (request.method() == Method::GET).then(|| Coding::preferred(request.headers()));
    let mut response = next.run(request).await;
    if media_type(&response) == "text/event-stream" {
        return response;
    }
    let vary = HeaderValue::from_static("accept-encoding");
    response.headers_mut().append(header::VARY, vary);
    let Some(coding) = wanted.flatten().filter(|_| is_worth_it(&response)) else {
        return response;
    };
    match state.encoders.room_now(ENCODER_BYTES) {
        Some(room) => coding.compressed(response, room),
        None => response,
    }
}

fn media_type(response: &Response) -> &str {
    let value = response.headers().get(header::CONTENT_TYPE);
    value.and_then(|value| value.to_str().ok()).unwrap_or_default()
}

fn is_worth_it(response: &Response) -> bool {
    let is_packed = media_type(response).starts_with("image/") && media_type(response) != "image/svg+xml";
    response.status().is_success()
        && !is_packed
        && !response.headers().contains_key(header::CONTENT_ENCODING)
        && response
            .body()
            .size_hint()
            .exact()
            .is_none_or(|bytes| bytes >= SMALL_BYTES)
}

impl Coding {
    /// What the client likes best, zstd if it likes both; `None` if it likes neither, or its own form better.
    fn preferred(headers: &HeaderMap) -> Option<Self> {
        let mut accepted = headers.get_all(header::ACCEPT_ENCODING).iter().peekable();
        accepted.peek()?;
        let codings: Vec<(&str, f32)> = accepted
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .map(weighted)
            .collect();
        let of = |name: &str| {
            let named = codings.iter().find(|(coding, _)| coding.eq_ignore_ascii_case(name));
            named.map(|(_, weight)| *weight)
        };
        let other = of("*").unwrap_or(0.0);
        let (gzip, zstd) = (
            of("gzip").or(of("x-gzip")).unwrap_or(other),
            of("zstd").unwrap_or(other),
        );
        let best = gzip.max(zstd);
        if best <= of("identity").unwrap_or(0.0) {
            return None;
        }
        Some(if zstd >= gzip { Self::Zstd } else { Self::Gzip })
    }

    fn compressed(self, response: Response, room: Room) -> Response {
        let (mut parts, body) = response.into_parts();
        let name = match self {
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        };
        parts
            .headers
            .insert(header::CONTENT_ENCODING, HeaderValue::from_static(name));
        parts.headers.remove(header::CONTENT_LENGTH);
        // The bytes are others than those of the same tag without compression.
        if let Some(tag) = parts.headers.get_mut(header::ETAG)
            && let Ok(text) = tag.to_str()
            && !text.starts_with("W/")
            && let Ok(weak) = HeaderValue::from_str(&format!("W/{text}"))
        {
            *tag = weak;
        }
        let pieces = ReaderStream::with_capacity(self.encoder(body), PIECE_BYTES);
        let pieces = pieces.inspect(move |_| {
            // The room is held until the last piece is written.
            let _ = &room;
        });
        Response::from_parts(parts, Body::from_stream(pieces))
    }

    fn encoder(self, body: Body) -> Pin<Box<dyn AsyncRead + Send>> {
        let reader = StreamReader::new(body.into_data_stream().map_err(std::io::Error::other));
        match self {
            Self::Gzip => Box::pin(GzipEncoder::with_quality(reader, Level::Fastest)),
            Self::Zstd => {
                let window = [CParameter::window_log(ZSTD_WINDOW)];
                Box::pin(ZstdEncoder::with_quality_and_params(reader, Level::Fastest, &window))
            }
        }
    }
}

/// A coding of `Accept-Encoding` and its weight. One that cannot be read is not accepted.
fn weighted(text: &str) -> (&str, f32) {
    let (coding, parameter) = text.split_once(';').unwrap_or((text, "q=1"));
    let weight = parameter
        .trim()
        .strip_prefix(['q', 'Q'])
        .and_then(|rest| rest.trim_start().strip_prefix('='));
    let weight = weight
        .and_then(|weight| weight.trim().parse().ok())
        .filter(|weight| (0.0..=1.0).contains(weight));
    (coding.trim(), weight.unwrap_or(0.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn coding_is_the_one_that_the_client_likes_best() {
        let preferred = |values: &[&'static str]| {
            let headers = values
                .iter()
                .map(|value| (header::ACCEPT_ENCODING, HeaderValue::from_static(value)));
            Coding::preferred(&headers.collect())
        };
        for (values, expected) in [
            (&["gzip, deflate, br, zstd"][..], Some(Coding::Zstd)),
            (&["gzip"], Some(Coding::Gzip)),
            (&["x-gzip"], Some(Coding::Gzip)),
            (&["GZIP;Q=0.5", "zstd; q=0.4"], Some(Coding::Gzip)),
            (&["zstd;q=0, *"], Some(Coding::Gzip)),
            (&["*;q=0.1"], Some(Coding::Zstd)),
            (&["gzip;q=0.5, identity;q=0.4"], Some(Coding::Gzip)),
            (&["gzip;q=0.5, identity"], None),
            (&["gzip;q=0, zstd;q=0.000"], None),
            (&["gzip;q=2, zstd;q=x, br"], None),
            (&["identity"], None),
            (&[""], None),
            (&[], None),
        ] {
            assert_eq!(preferred(values), expected, "{values:?}");
        }
    }

    #[tokio::test]
    async fn compressed_body_keeps_its_room_and_breaks_off_with_its_source() {
        use crate::http::room::Answers;

        for coding in [Coding::Gzip, Coding::Zstd] {
            let encoders = Answers::new(ENCODER_BYTES);
            let room = encoders.room_now(ENCODER_BYTES).unwrap();
            assert!(encoders.room_now(ENCODER_BYTES).is_none());
            let source = futures_util::stream::iter([Ok(vec![b'x'; 100_000]), Err(std::io::Error::other("gone"))]);
            let response = coding.compressed(Response::new(Body::from_stream(source)), room);
            let mut pieces = response.into_body().into_data_stream();
            let mut is_broken = false;
            while let Some(piece) = pieces.next().await {
                is_broken = piece.is_err();
            }
            assert!(is_broken, "{coding:?}: a client must see that the rest is missing");
            assert_eq!(encoders.taken(), encoders.max());
            drop(pieces);
            assert_eq!(encoders.taken(), 0);
        }
    }
}
