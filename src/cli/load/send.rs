//! Sends one request until it is answered.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::batch::Batch;
use crate::api::publish::PublishAnswer;
use crate::client::{Client, ClientError, Effect};

/// The first wait is at most this long, and each further one at most twice as long as the one before.
const BACKOFF_FIRST: Duration = Duration::from_millis(100);

/// No wait is longer than this, so that the load is back within seconds after the service is.
const BACKOFF_MAX: Duration = Duration::from_secs(3);

/// The longest wait that a service may ask for with `Retry-After`.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(60);

/// A request that was answered with success, and what it took.
#[derive(Debug, Clone)]
pub struct Answered {
    /// The counts of the answer.
    pub answer: PublishAnswer<'static>,
    /// How long the attempt took that was answered, from its first byte to the last of its answer.
    pub latency: Duration,
    /// How many earlier attempts ended without a word on whether they had stored the events.
    pub lost_attempts: u64,
}

/// Sends `batch`, again and again while an attempt fails in a way that may pass; tells `trouble` of each such failure.
///
/// Waits between attempts with full jitter (Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015), so that publishers that failed together do
/// not come back together; a `Retry-After` is waited out in full first.
///
/// # Errors
/// The last attempt's error when another attempt could not succeed, or when none did for as long as `patience` (for ever without one).
pub async fn send(
    client: &Client,
    batch: &Batch,
    patience: Option<Duration>,
    trouble: impl Fn(&ClientError),
) -> Result<Answered, ClientError> {
    let begin = Instant::now();
    let mut backoff_max = BACKOFF_FIRST;
    let mut lost_attempts = 0;
    loop {
        let sent = Instant::now();
        let error = match client.publish(batch.body.clone(), batch.content_type).await {
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
            return Err(error);
        };
        if *effect == Effect::Unknown {
            lost_attempts += 1;
        }
        let wait = retry_after.unwrap_or_default().min(RETRY_AFTER_MAX) + backoff_max.mul_f64(rand::random());
        if patience.is_some_and(|patience| begin.elapsed() + wait > patience) {
            return Err(error);
        }
        trouble(&error);
        sleep(wait).await;
        backoff_max = BACKOFF_MAX.min(backoff_max * 2);
    }
}
