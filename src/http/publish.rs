//! `POST /publish` and `POST /_flush`.

mod report;

use std::net::IpAddr;

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::{Extension, State};
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use tokio::time::Instant;

use self::report::Report;
use super::body::{self, Form};
use super::client_address::ClientAddress;
use super::docs::answers::publish::{FlushAnswers, PublishAnswers};
use super::docs::examples;
use super::docs::parameters::PublishParameters;
use super::error::ApiError;
use super::guard::{self, May};
use super::observe::Tally;
use super::prefer::Preferences;
use super::state::AppState;
use crate::api::events::{Lines, PublishRequest};
use crate::api::publish::Flushed;
use crate::config::EVENT_BYTES;
use crate::event::{
    Event, Loc, Parsed, Rejected, Trace, ValidationError, ValidationErrorKind, parse_json, parse_lines,
};
use crate::ingest::{EventOutcome, Handling, Reservation, Submission, SubmitError, in_turn};
use crate::metrics::OutcomeLabel;
use crate::principals::Principal;
use crate::telemetry::Step;

/// The configuration assumes that an event needs no more memory than this beside its text.
const _: () = assert!(size_of::<Event>() <= EVENT_BYTES);

/// To parse a larger body keeps a processor busy for long: a millisecond for each 200 KB or so, more where much of it is invalid.
const BYTES_HEAVY: usize = 16 << 10;

/// Publish events
///
/// The response comes when the events are durable. The body is one event, an array or an envelope of events, or one event per line.
/// A request is stored as a whole or not at all; with `Prefer: handling=lenient` its valid events are stored. The limits of the
/// body are set where the service is started: by default 10 MiB, counted after decompression, and 10 000 events.
#[utoipa::path(
    post,
    path = "/publish",
    operation_id = "publishEvents",
    tag = "publish",
    params(PublishParameters),
    request_body(content(
        (PublishRequest = "application/json", examples(
            ("event" = (summary = "One event", value = json!(examples::single()))),
            ("array" = (summary = "An array", value = json!(examples::array()))),
            ("envelope" = (summary = "An envelope", value = json!(examples::envelope())))
        )),
        (Lines = "application/x-ndjson", example = json!(examples::lines()))
    )),
    responses(PublishAnswers)
)]
pub(super) async fn publish(
    May { who, .. }: May<guard::Publish>,
    State(state): State<AppState>,
    sender: Sender,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let mut tally = Tally::default();
    let answer = handle(&state, (&who, sender), (&headers, body), &mut tally).await;
    let mut response = answer.into_response();
    // Nothing is known of a body that did not arrive.
    if tally.bytes > 0 {
        response.extensions_mut().insert(tally);
    }
    response
}

/// Who has sent a request, and its trace, as far as they are known.
type Sender = (Option<Extension<ClientAddress>>, Option<Extension<Trace>>);

async fn handle(
    state: &AppState,
    (who, (client, trace)): (&Principal, Sender),
    (headers, mut body): (&HeaderMap, Body),
    tally: &mut Tally,
) -> Result<Response, ApiError> {
    let trace = trace.map(|Extension(trace)| trace);
    let reading = trace.as_ref().map(|_| Step::new("http.read", Instant::now()));
    let (form, bytes, reservation) = read(state, headers, &mut body).await?;
    let max = state.limits.events_max;
    let parsed = if bytes.len() > BYTES_HEAVY {
        in_turn(|| parse(form, bytes, max, tally)).await?
    } else {
        parse(form, bytes, max, tally)?
    };
    if let Some(step) = reading {
        step.count("bytes", tally.bytes)
            .count("events", tally.events)
            .end(&trace);
    }
    let preferences = Preferences::of(headers);
    let parsed = check(state, parsed, preferences)?;
    let parsed = allow(state, who, parsed, preferences)?;
    tally.rejected = parsed.rejected.len();
    who.take(tally.events, tally.bytes)?;
    let request = Request {
        parsed,
        preferences,
        reservation,
        trace,
        client: client.map(|Extension(client)| client.network()),
    };
    submit(state, request, tally).await
}

/// Reads the body, with the memory reserved for it.
async fn read(state: &AppState, headers: &HeaderMap, body: &mut Body) -> Result<(Form, Bytes, Reservation), ApiError> {
    state.check_writable()?;
    let form = body::form(headers)?;
    let (bytes, reservation) = body::read(headers, body, &state.limits, state.ingest.bytes()).await?;
    state.metrics.http_bodies.inc();
    state.metrics.http_body_bytes.inc_by(bytes.len() as u64);
    Ok((form, bytes, reservation))
}

/// Parses the events of a body. They hold on to the parts of it that they need.
fn parse(form: Form, bytes: Bytes, events_max: usize, tally: &mut Tally) -> Result<Parsed, ApiError> {
    tally.bytes = bytes.len();
    let parsed = match form {
        Form::Json => parse_json(&bytes, events_max),
        Form::Lines => parse_lines(&bytes, events_max),
    };
    let parsed = parsed.map_err(ApiError::Invalid)?;
    tally.events = parsed.events.len() + parsed.rejected.len();
    tally.rejected = parsed.rejected.len();
    Ok(parsed)
}

/// Counts the invalid events, and fails if nothing of the request may be stored because of them.
fn check(state: &AppState, parsed: Parsed, preferences: Preferences) -> Result<Parsed, ApiError> {
    if parsed.rejected.is_empty() {
        return Ok(parsed);
    }
    let rejected = state.metrics.events_of(OutcomeLabel::Rejected);
    rejected.inc_by(parsed.rejected.len() as u64);
    if preferences.handling == Handling::Strict || parsed.events.is_empty() {
        return Err(ApiError::Invalid(parsed.into_errors()));
    }
    Ok(parsed)
}

/// Takes out the events of topics to which the principal may not publish, and fails if nothing of the request may be stored because of
/// them.
fn allow(state: &AppState, who: &Principal, mut parsed: Parsed, preferences: Preferences) -> Result<Parsed, ApiError> {
    let topics = who.topics();
    if topics.is_all() || parsed.events.iter().all(|event| topics.matches(&event.topic)) {
        return Ok(parsed);
    }
    if preferences.handling == Handling::Strict {
        return Err(ApiError::Forbidden(TOPIC));
    }
    let (events, indices) = (std::mem::take(&mut parsed.events), std::mem::take(&mut parsed.indices));
    let before = parsed.rejected.len();
    for (event, index) in events.into_iter().zip(indices) {
        if topics.matches(&event.topic) {
            parsed.events.push(event);
            parsed.indices.push(index);
        } else {
            let mut loc = parsed.loc(index);
            loc.push(Loc::name("topic"));
            let error = ValidationError::new(ValidationErrorKind::TopicForbidden, TOPIC).at(loc);
            let errors = vec![error];
            parsed.rejected.push(Rejected { index, errors });
        }
    }
    let rejected = (parsed.rejected.len() - before) as u64;
    state.metrics.events_of(OutcomeLabel::Rejected).inc_by(rejected);
    parsed.rejected.sort_by_key(|rejected| rejected.index);
    if parsed.events.is_empty() {
        return Err(ApiError::Invalid(parsed.into_errors()));
    }
    Ok(parsed)
}

const TOPIC: &str = "This key may not publish to this topic.";

/// A request whose valid events may be stored.
struct Request {
    parsed: Parsed,
    preferences: Preferences,
    reservation: Reservation,
    trace: Option<Trace>,
    client: Option<IpAddr>,
}

/// Hands the events over to ingest, and waits for their commit unless the client prefers not to.
async fn submit(state: &AppState, request: Request, tally: &mut Tally) -> Result<Response, ApiError> {
    let Request {
        mut parsed,
        preferences,
        mut reservation,
        trace,
        client,
    } = request;
    // The text of the events is reserved with the body; this is for the rest of them.
    let own_size = parsed.events.len() * size_of::<Event>();
    reservation
        .grow(own_size)
        .map_err(|_| ApiError::from(SubmitError::Full))?;
    state.new_topics.admit(&parsed.events).await?;
    let report = Report::new(&mut parsed, preferences);
    // Before anything is stored: afterwards the answer cannot be refused any more.
    let room = state.results.room(report.bytes_max()).await?;
    let events = std::mem::take(&mut parsed.events);
    if events.is_empty() {
        return report.committed(&parsed, &[], tally, room);
    }
    let submission = Submission {
        events,
        reservation,
        handling: preferences.handling,
        trace,
        client,
    };
    if preferences.respond_async {
        state.ingest.submit_and_forget(submission)?;
        return report.accepted(&parsed, room);
    }
    match state.ingest.submit(submission).await {
        Ok(outcomes) => {
            count(&outcomes, tally);
            report.committed(&parsed, &outcomes, tally, room)
        }
        Err(SubmitError::Refused(poison)) => {
            tally.rejected += poison.len();
            Err(ApiError::Invalid(report.errors(&parsed, &poison)))
        }
        Err(error) => Err(error.into()),
    }
}

/// Counts the outcomes of the submitted events.
fn count(outcomes: &[EventOutcome], tally: &mut Tally) {
    for outcome in outcomes {
        match outcome {
            EventOutcome::Stored(_) => tally.stored += 1,
            EventOutcome::Duplicate(_) | EventOutcome::Conflict(_) => tally.duplicates += 1,
            EventOutcome::Refused => tally.rejected += 1,
        }
    }
}

/// Wait until all accepted events are committed and published
#[utoipa::path(
    post,
    path = "/_flush",
    operation_id = "flushAccepted",
    tag = "publish",
    responses(FlushAnswers)
)]
pub(super) async fn flush(
    May { who, .. }: May<guard::Publish>,
    State(state): State<AppState>,
) -> Result<Json<Flushed>, ApiError> {
    state.check_started()?;
    let flushed = state.ingest.flush().await.map_err(|_| ApiError::FLUSH_TIMEOUT)?;
    // Those of topics that exist for the principal alone cannot be told apart.
    let flushed = if who.topics().is_all() { flushed as u64 } else { 0 };
    Ok(Json(Flushed { flushed }))
}
