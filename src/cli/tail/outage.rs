//! When to try again, and what to tell of it: once that somebody is away, and once that they are back.

use std::{fmt::Display, time::Duration};

use super::End;
use crate::{client::ClientError, store::backoff::Backoff};

/// The longest wait that a service may ask for with `Retry-After`.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(60);

/// Whether somebody is away.
#[derive(Debug)]
pub struct Outage {
    who: String,
    tell: fn(&str),
    is_away: bool,
    backoff: Backoff,
}

impl Outage {
    /// As long as nothing failed, `who` is not away.
    #[must_use]
    pub fn new(who: impl Display, tell: fn(&str)) -> Self {
        Self {
            who: who.to_string(),
            tell,
            is_away: false,
            backoff: Backoff::default(),
        }
    }

    /// Takes a failure, and says how long to wait before the next attempt.
    ///
    /// # Errors
    /// [`End::Failed`] when another attempt could not succeed.
    pub fn failed(&mut self, error: ClientError) -> Result<Duration, End> {
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

    /// Tells that somebody is away, and why.
    pub fn away(&mut self, reason: &str) {
        if !self.is_away {
            (self.tell)(&format!("{} is away: {reason}; trying again", self.who));
            self.is_away = true;
        }
    }

    /// Tells that they are back, if they were away.
    pub fn back(&mut self) {
        if self.is_away {
            (self.tell)(&format!("{} is back", self.who));
            self.is_away = false;
        }
    }

    /// The next failure is one of its own: all was well meanwhile.
    pub fn is_over(&mut self) {
        self.back();
        self.backoff.reset();
    }
}
