//! The typed HTTP client that the commands use to talk to a running service.
//!
//! Every call but a stream of events ends within a time-out, and a stream when it falls silent. A call follows no redirect and uses no proxy, so that an answer is always the service's own. The client
//! never sends a request twice: whether to try again is the caller's decision, and [`ClientError`] says what it needs to
//! know for that.

pub mod events;
mod explain;
pub mod stats;
pub mod target;

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use reqwest::{
    Response, StatusCode, Url,
    header::{ACCEPT, CONTENT_TYPE, RETRY_AFTER},
    redirect,
};
use serde::{Deserialize, de::DeserializeOwned};
use tokio::time::timeout;

use self::{
    events::{Edge, EventStream, Page, PageAnswer},
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

/// The events of a page of a walk: as many as the service gives.
const WALK_LIMIT: &str = "1000";

/// The header of the specification of Server-Sent Events, which the crate `http` has no name for.
const LAST_EVENT_ID: &str = "last-event-id";

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
    fn no_answer() -> Self {
        Self::Retryable {
            reason: explain::NO_ANSWER.to_owned(),
            retry_after: None,
            effect: Effect::Unknown,
        }
    }

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
    call_timeout: Duration,
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
        Ok(Self {
            http,
            target,
            call_timeout,
        })
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
            .timeout(self.call_timeout)
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

    /// Asks how far the log reaches.
    ///
    /// # Errors
    /// As [`Client::publish`].
    pub async fn edge(&self) -> Result<Edge, ClientError> {
        let newest = [("order", "desc"), ("limit", "1")];
        self.page(&newest).await.map(Edge::of)
    }

    /// Walks one page on, from `after` (empty: from the beginning), through the events of `topic` alone if one is given.
    ///
    /// # Errors
    /// As [`Client::publish`]; [`ClientError::Refused`] when `after` is no cursor.
    pub async fn scan(&self, after: &str, topic: Option<&str>) -> Result<Page, ClientError> {
        let topic = topic.map(|topic| ("topic", topic));
        let query: Vec<_> = [("after", after), ("limit", WALK_LIMIT)]
            .into_iter()
            .chain(topic)
            .collect();
        self.page(&query).await
    }

    /// Opens the stream of events behind `after` (empty: from the beginning), of `topic` alone if one is given. Whoever opens it
    /// again gives the cursor of the last event it has as `last_event_id`, which then counts in the place of `after`.
    ///
    /// # Errors
    /// As [`Client::walk`].
    pub async fn stream(
        &self,
        after: &str,
        topic: Option<&str>,
        last_event_id: Option<&str>,
    ) -> Result<EventStream, ClientError> {
        let topic = topic.map(|topic| ("topic", topic));
        let query: Vec<_> = [("after", after)].into_iter().chain(topic).collect();
        let url = self.url("events/stream", &query);
        let mut request = self.http.get(url).header(ACCEPT, "text/event-stream");
        if let Some(id) = last_event_id {
            request = request.header(LAST_EVENT_ID, id);
        }
        // Only the beginning of the answer must come in time: the answer itself has no end.
        let response = timeout(self.call_timeout, request.send())
            .await
            .map_err(|_| ClientError::no_answer())?
            .map_err(ClientError::transport)?;
        match response.status() {
            StatusCode::OK => EventStream::of(response),
            _ => Err(failure(response).await),
        }
    }

    async fn page(&self, query: &[(&str, &str)]) -> Result<Page, ClientError> {
        let request = self.http.get(self.url("events", query)).timeout(self.call_timeout);
        let response = request.send().await.map_err(ClientError::transport)?;
        let status = response.status();
        if status != StatusCode::OK {
            return Err(failure(response).await);
        }
        let answer: PageAnswer = read_json(response).await?;
        answer.page().ok_or(ClientError::Foreign {
            status: status.as_u16(),
        })
    }

    fn url(&self, path: &str, query: &[(&str, &str)]) -> Url {
        let mut url = self.target.route(path);
        url.query_pairs_mut().extend_pairs(query);
        url
    }

    async fn get(&self, path: &str) -> Result<Response, ClientError> {
        let request = self.http.get(self.target.route(path)).timeout(self.call_timeout);
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
