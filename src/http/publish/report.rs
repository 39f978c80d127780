//! What a request to publish is answered: the totals, the result of each event, the faults.

use std::borrow::Cow;

use axum::Json;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::json;
use utoipa::ToSchema;

use crate::event::{
    Cursor, Event, EventId, Parsed, Rejected, Shape, Timestamp, Topic, VALIDATION_ERRORS_MAX, ValidationError,
    ValidationErrorKind,
};
use crate::http::observe::Tally;
use crate::http::prefer::{PREFERENCE_APPLIED, Preferences};
use crate::ingest::{EventOutcome, Handling};

/// The fault of an event that the store would not take, for a reason found only there.
fn store_refused(parsed: &Parsed, index: usize) -> ValidationError {
    ValidationError::new(ValidationErrorKind::StoreRefused, "The store refused this event").at(parsed.loc(index))
}

/// What the answer will tell: kept from before the events go to the writer.
pub(super) struct Report {
    /// For each valid event, where results are wanted.
    identities: Option<Vec<(Topic, EventId)>>,
    rejected: Vec<Rejected>,
    handling: Handling,
}

/// The answer to a request whose events were committed.
#[derive(Serialize, ToSchema)]
pub struct Processed<'a> {
    /// `success`
    #[schema(pattern = "^success$")]
    status: &'static str,
    /// For people.
    #[schema(example = "Processed 3 events")]
    message: String,
    /// Valid events: `unique_processed + duplicate_dropped`.
    received: usize,
    /// Of these, those that were new and are stored now.
    unique_processed: usize,
    /// Of these, those that were dropped, because their identity was stored already.
    duplicate_dropped: usize,
    /// The same in other words, and the rejected.
    details: Details,
    /// In the order of the request: of a single event, of all with `return=representation`, of the rejected with
    /// `handling=lenient`.
    #[schema(nullable = false)]
    #[serde(skip_serializing_if = "Option::is_none")]
    results: Option<Vec<EventResult<'a>>>,
}

/// How many events went which way.
#[derive(Serialize, ToSchema)]
pub struct Details {
    /// As `unique_processed`.
    accepted: usize,
    /// With `handling=lenient`: events that break a rule.
    rejected: usize,
    /// As `duplicate_dropped`.
    duplicates_immediate: usize,
}

/// The result of one event, in the order of the request.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
pub enum EventResult<'a> {
    /// It was received.
    Received {
        /// Its place in the request, from 0.
        index: usize,
        /// Its topic.
        #[schema(value_type = Topic)]
        topic: &'a str,
        /// Its id.
        #[schema(value_type = EventId)]
        event_id: &'a str,
        /// `stored`, `duplicate`, or `conflict`: a duplicate with another payload.
        #[schema(pattern = "^(stored|duplicate|conflict)$")]
        status: &'static str,
        /// The first copy's. Null when that was pruned at the same moment.
        #[schema(required = true)]
        cursor: Option<Cursor>,
        /// The first copy's. Null when that was pruned at the same moment.
        #[schema(required = true)]
        received_at: Option<Timestamp>,
    },
    /// It breaks a rule.
    Rejected {
        /// Its place in the request, from 0.
        index: usize,
        /// `rejected`
        #[schema(pattern = "^rejected$")]
        status: &'static str,
        /// What is wrong.
        #[schema(value_type = Vec<ValidationError>)]
        errors: Cow<'a, [ValidationError]>,
    },
}

impl EventResult<'_> {
    fn index(&self) -> usize {
        match self {
            EventResult::Received { index, .. } | EventResult::Rejected { index, .. } => *index,
        }
    }
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

    /// The answer to a request whose events were committed.
    pub(super) fn processed(&self, parsed: &Parsed, verdicts: &[EventOutcome], tally: &Tally) -> Response {
        let received = tally.stored + tally.duplicates;
        let results = match (&self.identities, self.handling) {
            (None, Handling::Strict) => None,
            (None, Handling::Lenient) => Some(self.results(parsed, verdicts, &[])),
            (Some(identities), _) => Some(self.results(parsed, verdicts, identities)),
        };
        let status = if tally.stored > 0 {
            StatusCode::CREATED
        } else {
            StatusCode::OK
        };
        let answer = Processed {
            status: "success",
            message: format!("Processed {received} events"),
            received,
            unique_processed: tally.stored,
            duplicate_dropped: tally.duplicates,
            details: Details {
                accepted: tally.stored,
                rejected: tally.rejected,
                duplicates_immediate: tally.duplicates,
            },
            results,
        };
        (status, Json(answer)).into_response()
    }

    /// The faults of a request of which nothing could be stored: those of its invalid events, and those that the store found.
    pub(super) fn faults(self, parsed: &Parsed, culprits: &[usize]) -> Vec<ValidationError> {
        let refused = culprits.iter().map(|culprit| parsed.indices[*culprit]);
        let refused = refused.map(|index| (index, vec![store_refused(parsed, index)]));
        let rejected = self
            .rejected
            .into_iter()
            .map(|rejected| (rejected.index, rejected.errors));
        let mut faults: Vec<(usize, Vec<ValidationError>)> = rejected.chain(refused).collect();
        faults.sort_by_key(|(index, _)| *index);
        faults
            .into_iter()
            .flat_map(|(_, faults)| faults)
            .take(VALIDATION_ERRORS_MAX)
            .collect()
    }

    /// The answer to a request whose events are only queued.
    pub(super) fn accepted(&self, parsed: &Parsed) -> Response {
        let received = parsed.indices.len();
        let mut answer = json!({
            "status": "accepted",
            "message": format!("Received {received} event(s) for processing"),
            "received": received,
        });
        if self.handling == Handling::Lenient {
            answer["details"] = json!({ "rejected": self.rejected.len() });
            answer["results"] = json!(self.results(parsed, &[], &[]));
        }
        let applied = [(PREFERENCE_APPLIED, HeaderValue::from_static("respond-async"))];
        (StatusCode::ACCEPTED, applied, Json(answer)).into_response()
    }

    /// The rejected, and the others where their `identities` are given.
    fn results<'a>(
        &'a self,
        parsed: &Parsed,
        verdicts: &[EventOutcome],
        identities: &'a [(Topic, EventId)],
    ) -> Vec<EventResult<'a>> {
        let rejected = self.rejected.iter().map(|rejected| EventResult::Rejected {
            index: rejected.index,
            status: "rejected",
            errors: Cow::Borrowed(&rejected.errors),
        });
        let mut results: Vec<EventResult<'a>> = rejected.collect();
        for (place, (&verdict, &index)) in verdicts.iter().zip(&parsed.indices).enumerate() {
            let (status, first) = match verdict {
                EventOutcome::Stored(first) => ("stored", Some(first)),
                EventOutcome::Duplicate(first) => ("duplicate", first),
                EventOutcome::Conflict(first) => ("conflict", first),
                EventOutcome::Refused => {
                    let errors = Cow::Owned(vec![store_refused(parsed, index)]);
                    results.push(EventResult::Rejected {
                        index,
                        status: "rejected",
                        errors,
                    });
                    continue;
                }
            };
            let Some((topic, event_id)) = identities.get(place) else {
                continue;
            };
            let (topic, event_id) = (topic.as_str(), event_id.as_str());
            let (cursor, received_at) = (first.map(|first| first.cursor), first.map(|first| first.received_at));
            results.push(EventResult::Received {
                index,
                topic,
                event_id,
                status,
                cursor,
                received_at,
            });
        }
        results.sort_by_key(EventResult::index);
        results
    }
}
