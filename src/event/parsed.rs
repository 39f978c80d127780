//! The content of a request body, and the locations of its events in an answer.

use crate::event::Event;
use crate::event::validation_error::{Loc, VALIDATION_ERRORS_MAX, ValidationError};

/// The form of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// One event.
    One,
    /// `[…]`
    Array,
    /// `{"events":[…]}`
    Envelope,
    /// NDJSON: one event a line.
    Lines,
}

impl Shape {
    /// The location of an event: `number` counts from 0 in an array and an envelope, and is the number of the line, from 1, in
    /// NDJSON. It is not used for a body of one event.
    pub fn loc(self, number: usize) -> Vec<Loc> {
        let body = Loc::name("body");
        match self {
            Self::One => vec![body],
            Self::Array => vec![body, Loc::Index(number)],
            Self::Envelope => vec![body, Loc::name("events"), Loc::Index(number)],
            Self::Lines => vec![Loc::name("line"), Loc::Index(number)],
        }
    }
}

/// An event of the request that breaks a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejected {
    /// Its index among the events of the request, from 0.
    pub index: usize,
    /// At least one error. All of them, until the request has [`VALIDATION_ERRORS_MAX`]; then the first one of each event.
    pub errors: Vec<ValidationError>,
}

/// The content of a body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parsed {
    /// The form of the body.
    pub shape: Shape,
    /// The valid events, in the order of the request.
    pub events: Vec<Event>,
    /// For each of `events` its index among all events of the request, from 0.
    pub indices: Vec<usize>,
    /// The invalid events, in the order of the request.
    pub rejected: Vec<Rejected>,
    /// For each event of NDJSON, valid or not, the number of its line, from 1. Empty for other shapes.
    pub lines: Vec<usize>,
}

impl Parsed {
    /// A body of this form, without events.
    pub(super) fn new(shape: Shape) -> Self {
        Self {
            shape,
            events: Vec::new(),
            indices: Vec::new(),
            rejected: Vec::new(),
            lines: Vec::new(),
        }
    }

    /// The number of events in the request, the rejected included.
    pub fn count(&self) -> usize {
        self.events.len() + self.rejected.len()
    }

    /// The location of the event with this index in the request.
    pub fn loc(&self, index: usize) -> Vec<Loc> {
        let number = match self.shape {
            Shape::Lines => self.lines[index],
            _ => index,
        };
        self.shape.loc(number)
    }

    /// The errors of all rejected events, the first [`VALIDATION_ERRORS_MAX`].
    pub fn into_errors(self) -> Vec<ValidationError> {
        let errors = self.rejected.into_iter().flat_map(|rejected| rejected.errors);
        errors.take(VALIDATION_ERRORS_MAX).collect()
    }
}
