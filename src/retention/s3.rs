//! An archive in a bucket of S3, or of a service that speaks its protocol.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use reqwest::{Client, RequestBuilder, Response, Url};
use rusty_s3::{Bucket, Credentials, S3Action, UrlStyle};

use super::target::{Target, TargetError};
use crate::config::ArchiveOptions;

/// How long a signature is valid.
const SIGNATURE: Duration = Duration::from_secs(900);
/// How long a request may take: a segment has some megabytes.
const TIMEOUT: Duration = Duration::from_secs(300);
/// How much of an error is shown.
const ERROR_CHARS_MAX: usize = 300;

/// A bucket, and what the names of objects in it begin with.
pub(super) struct S3 {
    http: Client,
    bucket: Bucket,
    credentials: Option<Credentials>,
    prefix: String,
}

impl S3 {
    /// A bucket under these settings. Nothing is connected yet. Fails with what is wrong with them.
    pub(super) fn new(options: &ArchiveOptions, name: &str, prefix: &str) -> Result<Self, String> {
        // It fails if a provider is already installed, which is just as good.
        drop(rustls::crypto::ring::default_provider().install_default());
        let region = options.archive_region.clone();
        let (endpoint, style) = match &options.archive_endpoint {
            // Services of one's own seldom have a host name for each bucket.
            Some(endpoint) => (endpoint.clone(), UrlStyle::Path),
            None => (format!("https://s3.{region}.amazonaws.com"), UrlStyle::VirtualHost),
        };
        let endpoint: Url = endpoint
            .parse()
            .map_err(|error| format!("EVENTSIEVE_ARCHIVE_ENDPOINT is not a URL: {error}"))?;
        let bucket = Bucket::new(endpoint, style, name.to_owned(), region)
            .map_err(|error| format!("EVENTSIEVE_ARCHIVE cannot be used with that endpoint: {error}"))?;
        let credentials = match (&options.archive_key_id, &options.archive_secret, &options.archive_token) {
            (Some(id), Some(secret), None) => Some(Credentials::new(id.clone(), secret.expose())),
            (Some(id), Some(secret), Some(token)) => {
                Some(Credentials::new_with_token(id.clone(), secret.expose(), token.expose()))
            }
            (None, None, None) => None,
            _ => return Err("AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY are needed together".to_owned()),
        };
        let http = Client::builder()
            .connect_timeout(Duration::from_secs(10))
            .timeout(TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|error| format!("cannot prepare TLS: {error}"))?;
        Ok(Self {
            http,
            bucket,
            credentials,
            prefix: prefix.to_owned(),
        })
    }

    fn object(&self, name: &str) -> String {
        if self.prefix.is_empty() {
            name.to_owned()
        } else {
            format!("{}/{name}", self.prefix)
        }
    }
}

#[async_trait]
impl Target for S3 {
    async fn put(&self, name: &str, body: Bytes) -> Result<(), TargetError> {
        let object = self.object(name);
        let action = self.bucket.put_object(self.credentials.as_ref(), &object);
        let request = self.http.put(action.sign(SIGNATURE)).body(body);
        send(request, "write", &object).await.map(drop)
    }

    async fn get(&self, name: &str) -> Result<Bytes, TargetError> {
        let object = self.object(name);
        let action = self.bucket.get_object(self.credentials.as_ref(), &object);
        let response = send(self.http.get(action.sign(SIGNATURE)), "read", &object).await?;
        response
            .bytes()
            .await
            .map_err(|error| TargetError(format!("cannot read {object}: {}", error.without_url())))
    }
}

/// Sends a request. The URL holds a signature, so no error shows it.
async fn send(request: RequestBuilder, verb: &str, object: &str) -> Result<Response, TargetError> {
    let response = request
        .send()
        .await
        .map_err(|error| TargetError(format!("cannot {verb} {object}: {}", cause(error))))?;
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let text = response.text().await.unwrap_or_default();
    let text: String = text
        .chars()
        .map(|character| if character.is_control() { ' ' } else { character })
        .take(ERROR_CHARS_MAX)
        .collect();
    Err(TargetError(format!("cannot {verb} {object}: {status} {text}")))
}

/// The cause of an error, without the URL.
fn cause(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut cause: &dyn std::error::Error = &error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}
