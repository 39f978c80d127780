//! HTTP for tests: complete answers, and raw bytes that no well-behaved client would send.

use std::fmt::Write;
use std::io::ErrorKind;
use std::sync::Once;
use std::time::Duration;

use anyhow::{Context, bail};
use bytes::Bytes;
use reqwest::header::HeaderMap;
use reqwest::{Client, RequestBuilder};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Longer than every deadline that a test configures, so that the service answers first.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// A complete answer.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

impl Answer {
    /// The value of a header, or "" without it.
    pub fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().expect("headers are ASCII"))
    }

    /// The body as text.
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("answers are UTF-8")
    }

    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{} is no JSON: {error}: {}", self.status, self.text()))
    }

    /// The lines of an NDJSON body.
    pub fn lines(&self) -> Vec<Value> {
        self.text()
            .lines()
            .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
            .collect()
    }

    /// Asserts that this is a problem document (RFC 9457) with this status, and returns it.
    #[track_caller]
    pub fn problem(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", self.text());
        assert_eq!(self.header("content-type"), "application/problem+json");
        let problem = self.json();
        for member in ["type", "title", "detail", "request_id"] {
            assert!(problem[member].is_string(), "a problem without {member}: {problem}");
        }
        assert_eq!(problem["status"], status);
        assert_eq!(problem["request_id"], self.header("x-request-id"));
        if status == 503 {
            assert!(
                self.header("retry-after").parse::<u32>().is_ok(),
                "a 503 without Retry-After: {:?}",
                self.headers
            );
        }
        problem
    }

    /// Asserts that this is a 422, and returns the `(type, loc)` of each validation error.
    #[track_caller]
    pub fn validation_errors(&self) -> Vec<(String, Value)> {
        assert_eq!(self.status, 422, "{}", self.text());
        let body = self.json();
        let errors = body["detail"].as_array().expect("422 carries a list `detail`");
        assert!(!errors.is_empty(), "a 422 without an error");
        errors
            .iter()
            .map(|error| {
                assert!(error["msg"].is_string(), "an error without msg: {error}");
                let kind = error["type"].as_str().expect("an error has a type");
                (kind.to_owned(), error["loc"].clone())
            })
            .collect()
    }
}

/// A client with connections of its own, which uses no proxy and follows no redirect.
pub fn client() -> Client {
    static PROVIDER: Once = Once::new();
    // reqwest is built without a TLS provider, and needs one even for plain HTTP.
    PROVIDER.call_once(|| {
        rustls::crypto::ring::default_provider()
            .install_default()
            .expect("nothing else in this process installs a provider");
    });
    Client::builder()
        .no_proxy()
        .tls_certs_only([])
        .redirect(reqwest::redirect::Policy::none())
        .timeout(ANSWER_TIMEOUT)
        .build()
        .expect("a client without options that can fail")
}

/// Sends a request and reads the complete answer.
///
/// # Errors
/// The connection was refused or broken, or the answer took too long.
pub async fn try_ask(request: RequestBuilder) -> anyhow::Result<Answer> {
    let response = request.send().await.context("no answer")?;
    Ok(Answer {
        status: response.status().as_u16(),
        headers: response.headers().clone(),
        body: response.bytes().await.context("the answer is incomplete")?,
    })
}

/// [`try_ask`], for a service that must answer.
pub async fn ask(request: RequestBuilder) -> Answer {
    try_ask(request).await.expect("the service answers")
}

/// Writes raw bytes on a new connection to `address` and reads until the service closes it.
///
/// # Errors
/// No connection could be made, or it was still open after `patience`.
pub async fn raw(address: &str, request: &[u8], patience: Duration) -> anyhow::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    // The service may answer and close before it has read everything; only the answer matters.
    drop(stream.write_all(request).await);
    read_to_end(&mut stream, patience).await
}

/// Reads until the other side closes or resets the connection.
///
/// # Errors
/// The connection was still open after `patience`.
pub async fn read_to_end(stream: &mut TcpStream, patience: Duration) -> anyhow::Result<String> {
    let mut answer = Vec::new();
    let ended = timeout(patience, stream.read_to_end(&mut answer)).await;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    match ended {
        Ok(Ok(_)) => Ok(answer),
        Ok(Err(error)) if error.kind() == ErrorKind::ConnectionReset => Ok(answer),
        Ok(Err(error)) => Err(error.into()),
        Err(_) => bail!("still open after {patience:?}, with {answer:?}"),
    }
}

/// The text as one component of a query string.
pub fn encoded(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            write!(out, "%{byte:02X}").expect("writing to a String cannot fail");
        }
    }
    out
}
