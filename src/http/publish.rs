//! `POST /publish` and `POST /_flush`: parse, submit, render.

use std::borrow::Cow;

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::{Extension, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::{Value, json};
use tokio::time::Instant;
use utoipa::ToSchema;

use super::AppState;
use super::body::{self, Form};
use super::docs::answers::{FlushAnswers, PublishAnswers};
use super::docs::parameters::PublishParameters;
use super::docs::schemas::{Lines, Publication};
use super::error::Failure;
use super::observe::Tally;
use super::prefer::{PREFERENCE_APPLIED, Preferences};
use crate::config::EVENT_BYTES;
use crate::event::{
    Breach, Cursor, Event, EventId, FAULTS_MAX, Fault, FaultKind, Parsed, Rejected, Shape, Timestamp, Topic, Trace,
    parse_json, parse_lines,
};
use crate::ingest::{Handling, Reservation, Submission, SubmitError, Verdict};
use crate::metrics::Fate;
use crate::telemetry::Step;

/// What an event takes beside its text is within what the configuration reckons with.
const _: () = assert!(size_of::<Event>() <= EVENT_BYTES);

/// Takes events and answers when they are durable
///
/// The body is one event, an array or an envelope of events, or one event a line. A request is stored as a whole or not at
/// all; with `Prefer: handling=lenient` its valid events are. Limits of the body are set where the service is started: by
/// default 10 MiB, counted after decompression, and 10 000 events.
#[utoipa::path(
    post,
    path = "/publish",
    tag = "publish",
    params(PublishParameters),
    request_body(content(
        (Publication = "application/json", examples(
            ("event" = (summary = "One event", value = json!(example()))),
            ("array" = (summary = "An array", value = json!([example()]))),
            ("envelope" = (summary = "An envelope", value = json!({ "events": [example()] })))
        )),
        (Lines = "application/x-ndjson", example = json!(format!("{}\n", example())))
    )),
    responses(PublishAnswers)
)]
pub async fn publish(
    State(state): State<AppState>,
    trace: Option<Extension<Trace>>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let mut tally = Tally::default();
    let trace = trace.map(|Extension(trace)| trace);
    let answer = take(&state, trace, (&headers, body), &mut tally).await;
    let mut response = answer.into_response();
    // Of a body that did not come nothing is known.
    if tally.bytes > 0 {
        response.extensions_mut().insert(tally);
    }
    response
}

async fn take(
    state: &AppState,
    trace: Option<Trace>,
    (headers, mut body): (&HeaderMap, Body),
    tally: &mut Tally,
) -> Result<Response, Failure> {
    let reading = trace.as_ref().map(|_| Step::new("http.read", Instant::now()));
    let read = read(state, headers, &mut body).await;
    if read.is_err() {
        body::discard(&mut body, state.limits.body_bytes_max).await;
    }
    let (form, bytes, mut reservation) = read?;
    tally.bytes = bytes.len();
    let preferences = Preferences::of(headers);
    let parse = if form == Form::Json { parse_json } else { parse_lines };
    let mut parsed = parse(&bytes, state.limits.events_max).map_err(Failure::Invalid)?;
    drop(bytes);
    tally.events = parsed.events.len() + parsed.rejected.len();
    tally.rejected = parsed.rejected.len();
    if let Some(step) = reading {
        step.count("bytes", tally.bytes)
            .count("events", tally.events)
            .end(&trace);
    }
    let is_valid = parsed.rejected.is_empty();
    if !is_valid {
        let rejected = state.metrics.events_of(Fate::Rejected);
        rejected.inc_by(parsed.rejected.len() as u64);
    }
    if !is_valid && (preferences.handling == Handling::Strict || parsed.events.is_empty()) {
        return Err(Failure::Invalid(parsed.into_faults()));
    }
    // The text is accounted with the body; what comes on top of it is the events' own size.
    let own_size = parsed.events.len() * size_of::<Event>();
    reservation
        .grow(own_size)
        .map_err(|_| Failure::from(SubmitError::Full))?;
    let report = Report::new(&mut parsed, preferences);
    let events = std::mem::take(&mut parsed.events);
    if events.is_empty() {
        return Ok(report.processed(&parsed, &[], tally));
    }
    let submission = Submission {
        events,
        reservation,
        handling: preferences.handling,
        trace,
    };
    if preferences.respond_async {
        state.ingest.submit_and_forget(submission)?;
        return Ok(report.accepted(&parsed));
    }
    match state.ingest.submit(submission).await {
        Ok(verdicts) => {
            count(&verdicts, tally);
            Ok(report.processed(&parsed, &verdicts, tally))
        }
        Err(SubmitError::Refused(culprits)) => {
            tally.rejected += culprits.len();
            Err(Failure::Invalid(report.faults(&parsed, &culprits)))
        }
        Err(error) => Err(error.into()),
    }
}

/// Counts what became of the events that were submitted.
fn count(verdicts: &[Verdict], tally: &mut Tally) {
    for verdict in verdicts {
        match verdict {
            Verdict::Stored(_) => tally.stored += 1,
            Verdict::Duplicate(_) | Verdict::Conflict(_) => tally.duplicates += 1,
            Verdict::Refused => tally.rejected += 1,
        }
    }
}

/// What comes before the body is whole.
async fn read(state: &AppState, headers: &HeaderMap, body: &mut Body) -> Result<(Form, Bytes, Reservation), Failure> {
    state.check_started()?;
    let form = body::form(headers)?;
    let (bytes, reservation) = body::read(headers, body, &state.limits, state.ingest.bytes()).await?;
    state.metrics.http_bodies.inc();
    state.metrics.http_body_bytes.inc_by(bytes.len() as u64);
    Ok((form, bytes, reservation))
}

/// An event for the examples of the document.
fn example() -> Value {
    json!({
        "topic": "order.created", "event_id": "evt-1", "timestamp": "2025-10-24T10:30:00Z",
        "source": "shop", "payload": { "total": 44.8 }
    })
}

/// Waits until all that was accepted before is committed and fanned out
#[utoipa::path(post, path = "/_flush", tag = "publish", responses(FlushAnswers))]
pub async fn flush(State(state): State<AppState>) -> Result<Json<Value>, Failure> {
    state.check_started()?;
    let flushed = state.ingest.flush().await.map_err(|_| Failure::NOT_FLUSHED)?;
    Ok(Json(json!({ "flushed": flushed })))
}

/// The fault of an event that the store would not take, for a reason found only there.
fn store_refused(parsed: &Parsed, index: usize) -> Fault {
    Breach::new(FaultKind::StoreRefused, "The store refused this event").at(parsed.loc(index))
}

/// What the answer will tell: kept from before the events go to the writer.
struct Report {
    /// For each valid event, where results are wanted.
    identities: Option<Vec<(Topic, EventId)>>,
    rejected: Vec<Rejected>,
    handling: Handling,
}

/// The answer to a request whose events were committed.
#[derive(Serialize, ToSchema)]
pub(super) struct Processed<'a> {
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
pub(super) struct Details {
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
pub(super) enum EventResult<'a> {
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
        #[schema(value_type = Vec<Fault>)]
        errors: Cow<'a, [Fault]>,
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
    fn new(parsed: &mut Parsed, preferences: Preferences) -> Self {
        let wants_all = preferences.representation || parsed.shape == Shape::One;
        let identity = |event: &Event| (event.topic.clone(), event.event_id.clone());
        Self {
            identities: wants_all.then(|| parsed.events.iter().map(identity).collect()),
            rejected: std::mem::take(&mut parsed.rejected),
            handling: preferences.handling,
        }
    }

    /// The answer to a request whose events were committed.
    fn processed(&self, parsed: &Parsed, verdicts: &[Verdict], tally: &Tally) -> Response {
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
    fn faults(self, parsed: &Parsed, culprits: &[usize]) -> Vec<Fault> {
        let refused = culprits.iter().map(|culprit| parsed.indices[*culprit]);
        let refused = refused.map(|index| (index, vec![store_refused(parsed, index)]));
        let rejected = self
            .rejected
            .into_iter()
            .map(|rejected| (rejected.index, rejected.faults));
        let mut faults: Vec<(usize, Vec<Fault>)> = rejected.chain(refused).collect();
        faults.sort_by_key(|(index, _)| *index);
        faults
            .into_iter()
            .flat_map(|(_, faults)| faults)
            .take(FAULTS_MAX)
            .collect()
    }

    /// The answer to a request whose events are only queued.
    fn accepted(&self, parsed: &Parsed) -> Response {
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
        verdicts: &[Verdict],
        identities: &'a [(Topic, EventId)],
    ) -> Vec<EventResult<'a>> {
        let rejected = self.rejected.iter().map(|rejected| EventResult::Rejected {
            index: rejected.index,
            status: "rejected",
            errors: Cow::Borrowed(&rejected.faults),
        });
        let mut results: Vec<EventResult<'a>> = rejected.collect();
        for (place, (&verdict, &index)) in verdicts.iter().zip(&parsed.indices).enumerate() {
            let (status, first) = match verdict {
                Verdict::Stored(first) => ("stored", Some(first)),
                Verdict::Duplicate(first) => ("duplicate", first),
                Verdict::Conflict(first) => ("conflict", first),
                Verdict::Refused => {
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
