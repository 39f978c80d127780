//! A request's place in the queue. Who owns the events decides what can be answered.

use std::sync::Mutex;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::{EventOutcome, Handling, Reservation, SubmitError};
use crate::event::{Event, Trace};

/// What a request is answered.
pub(super) type Answer = Result<Vec<EventOutcome>, SubmitError>;

/// The events of one request, and the one who waits for them.
#[derive(Debug)]
pub(super) struct Work {
    /// Its number in the order of arrival.
    pub(super) ticket: u64,
    pub(super) events: Vec<Event>,
    pub(super) handling: Handling,
    pub(super) reservation: Reservation,
    /// `None`: nobody waits (`respond-async`), and no deadline ends it.
    pub(super) deadline: Option<Instant>,
    pub(super) answer: oneshot::Sender<Answer>,
    /// The trace of the request, if it is traced.
    pub(super) trace: Option<Trace>,
    /// Since when a traced one waits for a writer, until that has taken it for the first time.
    pub(super) waiting_since: Option<Instant>,
}

/// What came out of a seat.
pub(super) enum Taken {
    /// The events: no commit of them is under way.
    Work(Box<Work>),
    /// A writer has them, or had.
    Gone,
}

/// Holds the work while no commit of it is under way.
#[derive(Debug)]
pub(super) struct Seat(Mutex<Option<Box<Work>>>);

impl Seat {
    pub(super) fn new(work: Work) -> Self {
        Self(Mutex::new(Some(Box::new(work))))
    }

    /// Takes the work out: by the writer, to commit it; by the request, to give up.
    pub(super) fn take(&self) -> Taken {
        self.lock().take().map_or(Taken::Gone, Taken::Work)
    }

    /// Puts the work back: the attempt to commit it has surely failed.
    pub(super) fn put_back(&self, work: Box<Work>) {
        *self.lock() = Some(work);
    }

    /// The number of events in it, 0 when they were taken out.
    pub(super) fn len(&self) -> usize {
        self.lock().as_ref().map_or(0, |work| work.events.len())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Box<Work>>> {
        self.0.lock().expect("nothing panics while it holds a seat")
    }
}
