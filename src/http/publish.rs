//! `POST /publish` and `POST /_flush`: parse, submit, render.

mod report;

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::{Extension, State};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use tokio::time::Instant;

pub use self::report::Processed;
use self::report::Report;
use super::AppState;
use super::body::{self, Form};
use super::docs::answers::{FlushAnswers, PublishAnswers};
use super::docs::parameters::PublishParameters;
use super::docs::schemas::{Lines, Publication};
use super::error::ApiError;
use super::observe::Tally;
use super::prefer::Preferences;
use crate::config::EVENT_BYTES;
use crate::event::{Event, Trace, parse_json, parse_lines};
use crate::ingest::{EventOutcome, Handling, Reservation, Submission, SubmitError};
use crate::metrics::OutcomeLabel;
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
) -> Result<Response, ApiError> {
    let reading = trace.as_ref().map(|_| Step::new("http.read", Instant::now()));
    let (form, bytes, mut reservation) = match read(state, headers, &mut body).await {
        Ok(read) => read,
        Err(failure) => {
            let is_broken = matches!(failure, ApiError::Incomplete | ApiError::Undecodable);
            let mut answer = failure.into_response();
            if !body::discard(&mut body, state.limits.body_bytes_max).await || is_broken {
                // The rest is still on its way, or nobody knows where it ends: this connection cannot be used again.
                let close = HeaderValue::from_static("close");
                answer.headers_mut().insert(header::CONNECTION, close);
            }
            return Ok(answer);
        }
    };
    tally.bytes = bytes.len();
    let preferences = Preferences::of(headers);
    let parse = if form == Form::Json { parse_json } else { parse_lines };
    let mut parsed = parse(&bytes, state.limits.events_max).map_err(ApiError::Invalid)?;
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
        let rejected = state.metrics.events_of(OutcomeLabel::Rejected);
        rejected.inc_by(parsed.rejected.len() as u64);
    }
    if !is_valid && (preferences.handling == Handling::Strict || parsed.events.is_empty()) {
        return Err(ApiError::Invalid(parsed.into_errors()));
    }
    // The text is accounted with the body; what comes on top of it is the events' own size.
    let own_size = parsed.events.len() * size_of::<Event>();
    reservation
        .grow(own_size)
        .map_err(|_| ApiError::from(SubmitError::Full))?;
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
            Err(ApiError::Invalid(report.faults(&parsed, &culprits)))
        }
        Err(error) => Err(error.into()),
    }
}

/// Counts what became of the events that were submitted.
fn count(verdicts: &[EventOutcome], tally: &mut Tally) {
    for verdict in verdicts {
        match verdict {
            EventOutcome::Stored(_) => tally.stored += 1,
            EventOutcome::Duplicate(_) | EventOutcome::Conflict(_) => tally.duplicates += 1,
            EventOutcome::Refused => tally.rejected += 1,
        }
    }
}

/// What comes before the body is whole.
async fn read(state: &AppState, headers: &HeaderMap, body: &mut Body) -> Result<(Form, Bytes, Reservation), ApiError> {
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
pub async fn flush(State(state): State<AppState>) -> Result<Json<Value>, ApiError> {
    state.check_started()?;
    let flushed = state.ingest.flush().await.map_err(|_| ApiError::NOT_FLUSHED)?;
    Ok(Json(json!({ "flushed": flushed })))
}
