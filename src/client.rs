//! The HTTP client of the commands.
//!
//! Every call ends within a timeout, and a stream of events ends when it falls silent. The client follows no redirect and uses no
//! proxy, so an answer is always that of the service itself. It never sends a request twice: the caller decides about a retry,
//! and [`ClientError`] says what the caller needs to know for that.

mod answer;
pub mod error;
pub mod events;
mod explain;
pub mod target;

use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use reqwest::{RequestBuilder, Response, StatusCode, Url, redirect};
use serde::de::DeserializeOwned;
use tokio::time::timeout;

pub use self::error::{ClientError, Effect};
use self::events::{EventLines, EventStream, EventText, LogEnd, Page};
use self::explain::{one_line, root_cause};
use self::target::Target;
use crate::api::events::LIMIT_MAX;
use crate::api::publish::PublishAnswer;
use crate::api::stats::Stats;
use crate::config;

/// How long opening a connection may take: longer than one lost SYN (which is retransmitted after 1 s and 3 s).
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a call may take, by default: twice the service's default request deadline, so that the answer of the service (503 or
/// 504) comes first.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(30);

/// A header of the specification of Server-Sent Events, for which the crate `http` has no name.
const LAST_EVENT_ID: &str = "last-event-id";

/// A connection pool for one service.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    target: Target,
    call_timeout: Duration,
}

impl Client {
    /// A client for the service at `target`; each call ends within `call_timeout`. It opens no connection yet. Fails as
    /// [`ClientError::Setup`] when TLS cannot be prepared (only for an `https` target).
    pub fn new(target: Target, call_timeout: Duration) -> Result<Self, ClientError> {
        // It fails if a provider is already installed, which is just as good.
        drop(rustls::crypto::ring::default_provider().install_default());
        let mut builder = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .redirect(redirect::Policy::none())
            .no_proxy()
            .user_agent(concat!("eventsieve/", env!("CARGO_PKG_VERSION")));
        if !target.is_encrypted() {
            // Otherwise reqwest would read the system's certificates even without TLS, and fail in an image that has none.
            builder = builder.tls_certs_only([]);
        }
        if let Some(key) = config::client_key().map_err(ClientError::Setup)? {
            let mut value = HeaderValue::try_from(format!("Bearer {}", key.expose()))
                .map_err(|_| ClientError::Setup("EVENTSIEVE_KEY is not a key".to_owned()))?;
            value.set_sensitive(true);
            builder = builder.default_headers([(AUTHORIZATION, value)].into_iter().collect());
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

    /// The service of this client.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// Publishes `body`, the events of one request in the form that `content_type` names, and waits until they are committed.
    pub async fn publish(
        &self,
        body: Bytes,
        content_type: &'static str,
    ) -> Result<PublishAnswer<'static>, ClientError> {
        let request = self.publish_request(body, content_type);
        published(send(request).await?).await
    }

    /// Publishes as [`Client::publish`] does, with the header `Prefer`: a `handling` or `return` preference (RFC 7240).
    pub async fn publish_preferring(
        &self,
        body: Bytes,
        content_type: &'static str,
        prefer: &'static str,
    ) -> Result<PublishAnswer<'static>, ClientError> {
        let request = self.publish_request(body, content_type);
        let request = request.header("prefer", HeaderValue::from_static(prefer));
        published(send(request).await?).await
    }

    fn publish_request(&self, body: Bytes, content_type: &'static str) -> RequestBuilder {
        self.http
            .post(self.target.route("publish"))
            .timeout(self.call_timeout)
            .header(CONTENT_TYPE, content_type)
            .body(body)
    }

    /// Reads the statistics of the store and of the process that answers.
    pub async fn stats(&self) -> Result<Stats, ClientError> {
        let response = send(self.get(self.target.route("stats"))).await?;
        ok(response).await
    }

    /// Checks that publishing can succeed now. If it cannot, fails as [`ClientError::Retryable`] with the reason of the service.
    pub async fn ready(&self) -> Result<(), ClientError> {
        let response = send(self.get(self.target.route("readyz"))).await?;
        match response.status() {
            StatusCode::OK => Ok(()),
            _ => Err(answer::error(response).await),
        }
    }

    /// Reads how far the log reaches.
    pub async fn log_end(&self) -> Result<LogEnd, ClientError> {
        let newest = [("order", "desc"), ("limit", "1")];
        self.page(&newest).await.map(LogEnd::of)
    }

    /// Reads the next page of a cursor read, from `after` (empty: from the beginning), of all events or only of `topic`. Fails as
    /// [`ClientError::Refused`] when `after` is not a cursor.
    pub async fn scan(&self, after: &str, topic: Option<&str>) -> Result<Page, ClientError> {
        let limit = LIMIT_MAX.to_string();
        let topic = topic.map(|topic| ("topic", topic));
        let query: Vec<_> = [("after", after), ("limit", limit.as_str())]
            .into_iter()
            .chain(topic)
            .collect();
        self.page(&query).await
    }

    /// Reads a page of `GET /events` with these parameters.
    pub async fn page(&self, query: &[(&str, &str)]) -> Result<Page, ClientError> {
        let response = send(self.get(self.url("events", query))).await?;
        let status = response.status();
        if status != StatusCode::OK {
            return Err(answer::error(response).await);
        }
        let body = answer::body(response).await?;
        Page::read(&body).ok_or(ClientError::Foreign {
            status: status.as_u16(),
        })
    }

    /// Reads a list of `GET /events` with these parameters, of any length. Its lines come from one snapshot of the log.
    pub async fn lines(&self, query: &[(&str, &str)]) -> Result<EventLines, ClientError> {
        let request = self
            .http
            .get(self.url("events", query))
            .header(ACCEPT, "application/x-ndjson");
        let response = timeout(self.call_timeout, send(request))
            .await
            .map_err(|_| ClientError::no_answer())??;
        match response.status() {
            StatusCode::OK => Ok(EventLines::of(response)),
            _ => Err(answer::error(response).await),
        }
    }

    /// Reads one event. Fails as [`ClientError::Refused`] with status 404 when there is none, and 410 when it has expired.
    pub async fn event(&self, topic: &str, event_id: &str) -> Result<EventText, ClientError> {
        let mut url = self.target.route("topics");
        url.path_segments_mut()
            .expect("the URL of a service has a path")
            .extend([topic, "events", event_id]);
        let response = send(self.get(url)).await?;
        let status = response.status();
        if status != StatusCode::OK {
            return Err(answer::error(response).await);
        }
        let body = answer::body(response).await?;
        let event = std::str::from_utf8(&body).ok().and_then(EventText::read);
        event.ok_or(ClientError::Foreign {
            status: status.as_u16(),
        })
    }

    /// Reads a page of `GET /topics` or `GET /conflicts` with these parameters, as JSON.
    pub async fn json_page(&self, route: &str, query: &[(&str, &str)]) -> Result<Bytes, ClientError> {
        let response = send(self.get(self.url(route, query))).await?;
        match response.status() {
            StatusCode::OK => answer::body(response).await,
            _ => Err(answer::error(response).await),
        }
    }

    /// Opens the stream of events behind `after` (empty: from the beginning), of all events or only of `topic`. To resume a
    /// stream, pass the cursor of the last event as `last_event_id`, which takes precedence over `after`.
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
        // The timeout is only for the beginning of the answer: the answer itself has no end.
        let response = timeout(self.call_timeout, send(request))
            .await
            .map_err(|_| ClientError::no_answer())??;
        match response.status() {
            StatusCode::OK => EventStream::of(response),
            _ => Err(answer::error(response).await),
        }
    }

    fn url(&self, path: &str, query: &[(&str, &str)]) -> Url {
        let mut url = self.target.route(path);
        url.query_pairs_mut().extend_pairs(query);
        url
    }

    fn get(&self, url: Url) -> RequestBuilder {
        self.http.get(url).timeout(self.call_timeout)
    }
}

async fn send(request: RequestBuilder) -> Result<Response, ClientError> {
    request.send().await.map_err(ClientError::transport)
}

/// The answer to a request to publish.
async fn published(response: Response) -> Result<PublishAnswer<'static>, ClientError> {
    match response.status() {
        StatusCode::OK | StatusCode::CREATED => answer::json(response).await,
        _ => Err(answer::error(response).await),
    }
}

/// The answer with status 200.
async fn ok<T: DeserializeOwned>(response: Response) -> Result<T, ClientError> {
    match response.status() {
        StatusCode::OK => answer::json(response).await,
        _ => Err(answer::error(response).await),
    }
}
