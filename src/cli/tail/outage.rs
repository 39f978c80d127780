//! When to try again, and what to report: once that the service or Redis is away, and once that it is back.

use std::{fmt::Display, time::Duration};

use super::end::End;
use crate::{client::ClientError, store::backoff::Backoff};

/// The longest wait that a service may ask for with `Retry-After`.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(60);

/// Whether a peer is away.
#[derive(Debug)]
pub(crate) struct Outage {
    peer: String,
    report: fn(&str),
    is_away: bool,
    backoff: Backoff,
}

impl Outage {
    /// As long as nothing failed, `peer` is not away.
    pub(crate) fn new(peer: impl Display, report: fn(&str)) -> Self {
        Self {
            peer: peer.to_string(),
            report,
            is_away: false,
            backoff: Backoff::default(),
        }
    }

    /// Takes a failure, and says how long to wait before the next attempt; ends with [`End::Failed`] when another attempt could not
    /// succeed.
    pub(crate) fn failed(&mut self, error: ClientError) -> Result<Duration, End> {
        match error {
            ClientError::Retryable {
                reason, retry_after, ..
            } => {
                self.away(&reason);
                Ok(retry_after.unwrap_or_default().min(RETRY_AFTER_MAX) + self.backoff.next_wait())
            }
            error => Err(error.into()),
        }
    }

    /// Reports that the peer is away, and why.
    pub(crate) fn away(&mut self, reason: &str) {
        if !self.is_away {
            (self.report)(&format!("{} is unavailable: {reason}; retrying", self.peer));
            self.is_away = true;
        }
    }

    /// Reports that the peer is back, if it was away.
    pub(crate) fn back(&mut self) {
        if self.is_away {
            (self.report)(&format!("{} is available again", self.peer));
            self.is_away = false;
        }
    }

    /// Reports that events are missing, which no further attempt will bring.
    pub(crate) fn truncated(&self) {
        (self.report)("some events are missing here: they were pruned, or lost with a copy of the log");
    }

    /// A call succeeded: the next failure is a new outage.
    pub(crate) fn is_over(&mut self) {
        self.back();
        self.backoff.reset();
    }
}
