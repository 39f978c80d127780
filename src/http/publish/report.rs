//! The answers to a request to publish: the totals, the result of each event, the validation errors.

use std::borrow::Cow;

use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;

use crate::api::publish::{
    AcceptedAnswer, AcceptedStatus, Details, EventResult, EventStatus, PublishAnswer, PublishStatus, ReceivedEvent,
    RejectedCount, RejectedEvent, RejectedStatus,
};
use crate::event::{
    Event, EventId, Parsed, Rejected, Shape, Topic, VALIDATION_ERRORS_MAX, ValidationError, ValidationErrorKind,
};
use crate::http::error::ApiError;
use crate::http::observe::Tally;
use crate::http::prefer::{PREFERENCE_APPLIED, Preferences};
use crate::http::room::Room;
use crate::ingest::{EventOutcome, Handling};

/// The validation error of an event that the store did not accept, for a reason that only the store knows.
fn store_refused(parsed: &Parsed, index: usize) -> ValidationError {
    ValidationError::new(ValidationErrorKind::StoreRefused, "The store rejected this event").at(parsed.loc(index))
}

/// The most bytes of an answer without results, of a result without its names, and of a validation error.
const ANSWER_BYTES: usize = 512;
const RESULT_BYTES: usize = 256;
const ERROR_BYTES: usize = 512;

/// What the answer needs of a request whose events have been handed over.
pub(super) struct Report {
    /// For each valid event, where the answer has results.
    identities: Option<Vec<(Topic, EventId)>>,
    rejected: Vec<Rejected>,
    handling: Handling,
}

impl Report {
    pub(super) fn new(parsed: &mut Parsed, preferences: Preferences) -> Self {
        let wants_all = preferences.representation || parsed.shape == Shape::One;
        let identity = |event: &Event| (event.topic.clone(), event.event_id.clone());
        Self {
            identities: wants_all.then(|| parsed.events.iter().map(identity).collect()),
            rejected: std::mem::take(&mut parsed.rejected),
            handling: preferences.handling,
        }
    }

    /// The most bytes of the answer.
    pub(super) fn bytes_max(&self) -> usize {
        let identities = self.identities.iter().flatten();
        // Of the names each byte may have an escape.
        let results: usize = identities
            .map(|(topic, event_id)| RESULT_BYTES + 2 * (topic.as_str().len() + event_id.as_str().len()))
            .sum();
        let errors = self
            .rejected_results()
            .map(|rejected| rejected.errors.len())
            .sum::<usize>();
        ANSWER_BYTES + results + errors * ERROR_BYTES
    }

    /// The answer to a request whose events are committed.
    pub(super) fn committed(
        &self,
        parsed: &Parsed,
        outcomes: &[EventOutcome],
        tally: &Tally,
        room: Room,
    ) -> Result<Response, ApiError> {
        let results = match (&self.identities, self.handling) {
            (None, Handling::Strict) => None,
            (None, Handling::Lenient) => Some(self.results(parsed, outcomes, &[])),
            (Some(identities), _) => Some(self.results(parsed, outcomes, identities)),
        };
        let code = if tally.stored > 0 {
            StatusCode::CREATED
        } else {
            StatusCode::OK
        };
        let (stored, duplicates) = (tally.stored as u64, tally.duplicates as u64);
        let received = stored + duplicates;
        let answer = PublishAnswer {
            status: PublishStatus::Success,
            message: format!("Processed {received} events"),
            received,
            unique_processed: stored,
            duplicate_dropped: duplicates,
            details: Details {
                accepted: stored,
                rejected: tally.rejected as u64,
                duplicates_immediate: duplicates,
            },
            results,
        };
        let mut response = room.json(&answer)?;
        *response.status_mut() = code;
        Ok(response)
    }

    /// The validation errors of a request of which nothing could be stored: those of its invalid events, and one for each event
    /// that the store did not accept (`poison`, indices of the valid events).
    pub(super) fn errors(self, parsed: &Parsed, poison: &[usize]) -> Vec<ValidationError> {
        let refused = poison.iter().map(|poison| parsed.indices[*poison]);
        let refused = refused.map(|index| (index, vec![store_refused(parsed, index)]));
        let rejected = self
            .rejected
            .into_iter()
            .map(|rejected| (rejected.index, rejected.errors));
        let mut errors: Vec<(usize, Vec<ValidationError>)> = rejected.chain(refused).collect();
        errors.sort_by_key(|(index, _)| *index);
        errors
            .into_iter()
            .flat_map(|(_, errors)| errors)
            .take(VALIDATION_ERRORS_MAX)
            .collect()
    }

    /// The answer to a request whose events are only queued.
    pub(super) fn accepted(&self, parsed: &Parsed, room: Room) -> Result<Response, ApiError> {
        let received = parsed.indices.len() as u64;
        let is_lenient = self.handling == Handling::Lenient;
        let answer = AcceptedAnswer {
            status: AcceptedStatus::Accepted,
            message: format!("Received {received} event(s) for processing"),
            received,
            details: is_lenient.then_some(RejectedCount {
                rejected: self.rejected.len() as u64,
            }),
            results: is_lenient.then(|| self.rejected_results().map(rejected).collect()),
        };
        let mut response = room.json(&answer)?;
        *response.status_mut() = StatusCode::ACCEPTED;
        let applied = HeaderValue::from_static("respond-async");
        response.headers_mut().insert(PREFERENCE_APPLIED, applied);
        Ok(response)
    }

    /// The rejected events that are listed: the first ones. A small request with many invalid events must not have a large answer.
    fn rejected_results(&self) -> impl Iterator<Item = &Rejected> {
        self.rejected.iter().take(VALIDATION_ERRORS_MAX)
    }

    /// The results of the rejected events, and of the others where their `identities` are given.
    fn results<'a>(
        &'a self,
        parsed: &Parsed,
        outcomes: &[EventOutcome],
        identities: &'a [(Topic, EventId)],
    ) -> Vec<EventResult<'a>> {
        let rejected = self
            .rejected_results()
            .map(|event| EventResult::Rejected(rejected(event)));
        let mut results: Vec<EventResult<'a>> = rejected.collect();
        for (place, (&outcome, &index)) in outcomes.iter().zip(&parsed.indices).enumerate() {
            let (status, first) = match outcome {
                EventOutcome::Stored(first) => (EventStatus::Stored, first),
                EventOutcome::Duplicate(first) => (EventStatus::Duplicate, first),
                EventOutcome::Conflict(first) => (EventStatus::Conflict, first),
                EventOutcome::Refused => {
                    results.push(EventResult::Rejected(RejectedEvent {
                        index,
                        status: RejectedStatus::Rejected,
                        errors: Cow::Owned(vec![store_refused(parsed, index)]),
                    }));
                    continue;
                }
            };
            let Some((topic, event_id)) = identities.get(place) else {
                continue;
            };
            results.push(EventResult::Received(ReceivedEvent {
                index,
                topic: topic.as_str().into(),
                event_id: event_id.as_str().into(),
                status,
                cursor: first.cursor,
                received_at: first.received_at,
            }));
        }
        results.sort_by_key(|result| match result {
            EventResult::Received(event) => event.index,
            EventResult::Rejected(event) => event.index,
        });
        results
    }
}

fn rejected(event: &Rejected) -> RejectedEvent<'_> {
    RejectedEvent {
        index: event.index,
        status: RejectedStatus::Rejected,
        errors: Cow::Borrowed(&event.errors),
    }
}
