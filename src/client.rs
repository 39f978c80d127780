//! The typed HTTP client that the commands use to talk to a running service.
//!
//! Every call ends within a time-out, follows no redirect and uses no proxy, so that an answer is always the service's own. The client
//! never sends a request twice: whether to try again is the caller's decision, and [`ClientError`] says what it needs to
//! know for that.

mod explain;
pub mod stats;
pub mod target;

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use reqwest::{
    Response, StatusCode,
    header::{CONTENT_TYPE, RETRY_AFTER},
    redirect,
};
use serde::{Deserialize, de::DeserializeOwned};

use self::{
    explain::{explain, one_line, root_cause},
    stats::Stats,
    target::Target,
};

/// How long opening a connection may take. Longer than one lost SYN (retransmitted after 1 s and 3 s).
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a call may take, by default: twice the service's default request deadline, so that the service's own answer (503 or 504) comes first.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(30);

/// The longest answer that is read: far above that of a batch of 10 000 events.
const ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;

/// What is known of a failed request's effect on the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Nothing of the request was stored.
    Nothing,
    /// It may have been stored: the request was begun, and its answer never came.
    Unknown,
}

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No client can be built, for example because the system's certificates cannot be read.
    #[error("the HTTP client cannot be set up: {0}")]
    Setup(String),
    /// The service cannot be reached or cannot serve now; the same request may succeed later, and is always safe to send again.
    #[error("{reason}")]
    Retryable {
        /// What happened, in one line.
        reason: String,
        /// How long the service asks to be left alone, from `Retry-After`.
        retry_after: Option<Duration>,
        /// What may have been stored.
        effect: Effect,
    },
    /// The service answered that it will not take this request; sending it again would not help.
    #[error("refused with status {status}: {detail}")]
    Refused {
        /// The status code of the answer.
        status: u16,
        /// The reason that the answer gives, in one line.
        detail: String,
    },
    /// Something answered that does not speak this service's language.
    #[error("status {status} with an answer that is not eventsieve's: is this the right URL?")]
    Foreign {
        /// The status code of the answer.
        status: u16,
    },
}

impl ClientError {
    fn transport(error: reqwest::Error) -> Self {
        // A connection that was never opened carried nothing; of everything later the service may have seen all.
        let effect = if error.is_connect() {
            Effect::Nothing
        } else {
            Effect::Unknown
        };
        Self::Retryable {
            reason: one_line(&root_cause(error)),
            retry_after: None,
            effect,
        }
    }
}

/// The answer to a publish request: its events are committed and flushed to disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct PublishAnswer {
    /// How many events were received.
    pub received: u64,
    /// How many of them were new.
    pub unique_processed: u64,
    /// How many of them were stored before, or are repeated within the request.
    pub duplicate_dropped: u64,
}

/// A connection pool to one service.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    target: Target,
}

impl Client {
    /// A client for the service at `target` whose calls each end within `call_timeout`. It opens no connection yet.
    ///
    /// # Errors
    /// [`ClientError::Setup`] when TLS cannot be prepared (only for an `https` target).
    pub fn new(target: Target, call_timeout: Duration) -> Result<Self, ClientError> {
        // An error means that a provider is installed already, which is as good.
        drop(rustls::crypto::ring::default_provider().install_default());
        let mut builder = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(call_timeout)
            .redirect(redirect::Policy::none())
            .no_proxy()
            .user_agent(concat!("eventsieve/", env!("CARGO_PKG_VERSION")));
        if !target.is_encrypted() {
            // Without this, reqwest reads the system's certificates even if it never needs them, and fails in an image that has none.
            builder = builder.tls_certs_only([]);
        }
        let http = builder
            .build()
            .map_err(|error| ClientError::Setup(one_line(&root_cause(error))))?;
        Ok(Self { http, target })
    }

    /// The service that this client talks to.
    #[must_use]
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// Publishes `body`, the events of one request in the form that `content_type` names, and waits until they are committed.
    ///
    /// # Errors
    /// [`ClientError::Retryable`] when the same request may succeed later, [`ClientError::Refused`] and [`ClientError::Foreign`]
    /// when it will not.
    pub async fn publish(&self, body: Bytes, content_type: &'static str) -> Result<PublishAnswer, ClientError> {
        let request = self
            .http
            .post(self.target.route("publish"))
            .header(CONTENT_TYPE, content_type)
            .body(body);
        let response = request.send().await.map_err(ClientError::transport)?;
        match response.status() {
            StatusCode::OK | StatusCode::CREATED => read_json(response).await,
            _ => Err(failure(response).await),
        }
    }

    /// Asks for the figures of the store and of the process that answers.
    ///
    /// # Errors
    /// As [`Client::publish`].
    pub async fn stats(&self) -> Result<Stats, ClientError> {
        let response = self.get("stats").await?;
        match response.status() {
            StatusCode::OK => read_json(response).await,
            _ => Err(failure(response).await),
        }
    }

    /// Asks whether publishing can succeed now.
    ///
    /// # Errors
    /// [`ClientError::Retryable`] with the service's reason when it cannot, and as [`Client::publish`] otherwise.
    pub async fn ready(&self) -> Result<(), ClientError> {
        let response = self.get("readyz").await?;
        match response.status() {
            StatusCode::OK => Ok(()),
            _ => Err(failure(response).await),
        }
    }

    async fn get(&self, path: &str) -> Result<Response, ClientError> {
        let request = self.http.get(self.target.route(path));
        request.send().await.map_err(ClientError::transport)
    }
}

/// The error that an answer without success stands for.
async fn failure(response: Response) -> ClientError {
    let status = response.status();
    let retry_after = retry_after(&response);
    // The status alone decides; an explanation that does not arrive is no reason to know less.
    let detail = read_answer(response)
        .await
        .map(|body| explain(&body))
        .unwrap_or_default();
    let reason = format!(
        "status {}{}{detail}",
        status.as_u16(),
        if detail.is_empty() { "" } else { ": " }
    );
    match status {
        // The service has these say that nothing was stored.
        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
            ClientError::Retryable {
                reason,
                retry_after,
                effect: Effect::Nothing,
            }
        }
        // Of 504 it says so itself; the others may come from a load balancer that lost the service half-way.
        status if status.is_server_error() => ClientError::Retryable {
            reason,
            retry_after,
            effect: Effect::Unknown,
        },
        status if status.is_client_error() => ClientError::Refused {
            status: status.as_u16(),
            detail,
        },
        status => ClientError::Foreign {
            status: status.as_u16(),
        },
    }
}

/// `Retry-After` in seconds, the only form that this service and the usual load balancers send (a date would need a true clock here).
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

async fn read_json<T: DeserializeOwned>(response: Response) -> Result<T, ClientError> {
    let status = response.status().as_u16();
    let answer = read_answer(response).await?;
    serde_json::from_slice(&answer).map_err(|_| ClientError::Foreign { status })
}

async fn read_answer(mut response: Response) -> Result<Bytes, ClientError> {
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
