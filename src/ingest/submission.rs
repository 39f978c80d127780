//! What a request submits, and the answer that it gets.

use std::net::IpAddr;

use super::budget::Reservation;
use crate::event::{Event, Trace};
use crate::store::{LogPosition, Outcome};

/// Who has sent a request, as far as that is known.
pub(super) type Client = Option<IpAddr>;

/// The events of one request.
#[derive(Debug)]
pub struct Submission {
    /// In the order of the request; at least one.
    pub events: Vec<Event>,
    /// The memory that they occupy; released when their group commit has ended.
    pub reservation: Reservation,
    /// What happens to the others when the store rejects some of them.
    pub handling: Handling,
    /// The trace of the request, if it is traced.
    pub trace: Option<Trace>,
    /// The client that has sent it, as far as that is known: clients take turns.
    pub client: Option<IpAddr>,
}

/// What happens to the rest of a request when the store rejects some of its events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Handling {
    /// Nothing of the request is stored.
    Strict,
    /// The other events are stored.
    Lenient,
}

/// The outcome of one event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventOutcome {
    /// The event was new.
    Stored(LogPosition),
    /// Its identity was stored before; the position is that of the first copy, which may have expired.
    Duplicate(LogPosition),
    /// Its identity was stored before with another payload.
    Conflict(LogPosition),
    /// The store rejected the event (lenient requests only).
    Refused,
}

/// Why a request was not stored, or may not have been.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SubmitError {
    /// The queue has no room for the events. Nothing was stored.
    #[error("the queue is full")]
    Full,
    /// The service is shutting down. Nothing was stored.
    #[error("the service is stopping")]
    Stopping,
    /// The deadline passed before a commit was tried, or every attempt certainly failed. Nothing was stored.
    #[error("the store did not take the events in time")]
    TooLate,
    /// The store takes no writes. Nothing was stored.
    #[error("the store is read-only")]
    ReadOnly,
    /// A commit was tried, and its outcome is unknown.
    #[error("the outcome of the commit is unknown")]
    Unknown,
    /// The store rejected these events of the request (indices into `Submission::events`). Nothing was stored.
    #[error("the store rejected {} of the events", .0.len())]
    Refused(Vec<usize>),
}

/// The answer to a request: the outcomes of its events in their order, or why there are none.
pub(super) type Answer = Result<Vec<EventOutcome>, SubmitError>;

impl From<Outcome> for EventOutcome {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Stored(position) => EventOutcome::Stored(position),
            Outcome::Duplicate(first) => EventOutcome::Duplicate(first),
            Outcome::Conflict(first) => EventOutcome::Conflict(first),
        }
    }
}
