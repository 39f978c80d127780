//! Sends one request until it is answered: shared by `load` and `publish`.

use std::time::Duration;

use bytes::Bytes;
use tokio::{
    select,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;

use crate::api::publish::PublishAnswer;
use crate::client::{Client, ClientError, Effect};
use crate::store::backoff::Backoff;

/// The longest wait that a service may ask for with `Retry-After`.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(60);

/// A request to publish. Every attempt sends the same bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Request {
    /// The body as it goes over the wire.
    pub(crate) body: Bytes,
    /// Its media type.
    pub(crate) content_type: &'static str,
    /// The value of the header `Prefer`, if it is sent.
    pub(crate) prefer: Option<&'static str>,
}

/// How long to retry.
#[derive(Debug, Clone, Default)]
pub(crate) struct RetryLimits {
    /// For how long one request is retried; without a limit, until it is answered.
    pub(crate) patience: Option<Duration>,
    /// Once this is cancelled, the attempt that is under way is the last.
    pub(crate) stop: CancellationToken,
}

/// A request that was answered with success.
#[derive(Debug, Clone)]
pub(crate) struct Answered {
    pub(crate) answer: PublishAnswer<'static>,
    /// How long the attempt took that was answered, from its first byte to the last of its answer.
    pub(crate) latency: Duration,
    /// How many earlier attempts may have stored the events, although no answer said so.
    pub(crate) lost_attempts: u64,
}

/// A request that was not answered with success.
#[derive(Debug)]
pub(crate) struct Unanswered {
    /// The error of the last attempt.
    pub(crate) error: ClientError,
    /// How many attempts may have stored the events, although no answer said so.
    pub(crate) lost_attempts: u64,
}

/// Sends `request`, again and again while an attempt fails in a way that may pass; reports each such failure to `retrying`.
///
/// Waits between attempts grow with full jitter, so that clients that failed together do not come back together. A `Retry-After`
/// is waited out in full first.
pub(crate) async fn send(
    client: &Client,
    request: &Request,
    limits: &RetryLimits,
    retrying: impl Fn(&ClientError),
) -> Result<Answered, Unanswered> {
    let begun = Instant::now();
    let mut backoff = Backoff::default();
    let mut lost_attempts = 0;
    loop {
        let sent = Instant::now();
        let error = match attempt(client, request).await {
            Ok(answer) => {
                return Ok(Answered {
                    answer,
                    latency: sent.elapsed(),
                    lost_attempts,
                });
            }
            Err(error) => error,
        };
        let ClientError::Retryable {
            retry_after, effect, ..
        } = &error
        else {
            return Err(Unanswered { error, lost_attempts });
        };
        if *effect == Effect::Unknown {
            lost_attempts += 1;
        }
        let wait = retry_after.unwrap_or_default().min(RETRY_AFTER_MAX) + backoff.next_wait();
        let is_too_late = limits
            .patience
            .is_some_and(|patience| begun.elapsed() + wait > patience);
        if is_too_late || limits.stop.is_cancelled() {
            return Err(Unanswered { error, lost_attempts });
        }
        retrying(&error);
        select! {
            () = sleep(wait) => {}
            () = limits.stop.cancelled() => return Err(Unanswered { error, lost_attempts }),
        }
    }
}

async fn attempt(client: &Client, request: &Request) -> Result<PublishAnswer<'static>, ClientError> {
    let body = request.body.clone();
    match request.prefer {
        Some(prefer) => client.publish_preferring(body, request.content_type, prefer).await,
        None => client.publish(body, request.content_type).await,
    }
}
