//! `GET /topics`, `GET /topics/{topic}/events/{event_id}` and `GET /conflicts`.

use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};

use super::docs::answers::topics::{ConflictsAnswers, EventAnswers, TopicsAnswers};
use super::docs::parameters::{ConflictsParameters, EventParameters, TopicsParameters};
use super::error::ApiError;
use super::events::{OTHER_BYTES, page_bytes_max};
use super::guard::{self, May, visible};
use super::query::Query;
use super::state::AppState;
use crate::api::events::{Form, JsonText, LIMIT_DEFAULT, LIMIT_MAX, StoredEvent};
use crate::api::topics::{CONFLICTS_MAX, Conflict, Conflicts, TopicSummary, Topics};
use crate::event::{EventId, Loc, Topic, ValidationError, ValidationErrorKind};
use crate::store::{self, CONFLICT_PAYLOAD_BYTES_MAX, ConflictList, TopicList};

/// The most bytes of a conflict in an answer.
const CONFLICT_BYTES_MAX: usize = CONFLICT_PAYLOAD_BYTES_MAX + OTHER_BYTES;

/// List topics with their counters
///
/// By name, compared byte by byte. The counters also count events that have expired.
#[utoipa::path(
    get,
    path = "/topics",
    operation_id = "listTopics",
    tag = "read",
    params(TopicsParameters),
    responses(TopicsAnswers)
)]
pub(super) async fn topics(
    May { who, .. }: May<guard::Read>,
    State(state): State<AppState>,
    RawQuery(query): RawQuery,
) -> Result<Response, ApiError> {
    state.check_started()?;
    let mut query = Query::read(query.as_deref());
    let (prefix, after, limit) = (
        query.topic_or_empty("prefix"),
        query.topic_or_empty("after"),
        limit(&mut query, LIMIT_MAX),
    );
    query.finish().map_err(ApiError::Invalid)?;
    let list = TopicList {
        prefix,
        after,
        globs: who.topics().clone(),
        limit,
    };
    let topics = state.store.topics(&list).await?;
    let next = topics.last().filter(|_| topics.len() == limit as usize);
    let answer = Topics {
        next: next.map(|topic| topic.topic.as_str().into()),
        topics: topics.iter().map(summary).collect(),
    };
    state.figures.json(&answer)
}

fn summary(topic: &store::TopicSummary) -> TopicSummary<'_> {
    let unsigned = |count: i64| u64::try_from(count).unwrap_or(0);
    TopicSummary {
        topic: topic.topic.as_str().into(),
        received: unsigned(topic.counts.received),
        unique_processed: unsigned(topic.counts.unique_processed),
        duplicate_dropped: unsigned(topic.counts.duplicate_dropped),
        conflicts: unsigned(topic.counts.conflicts),
        first_received_at: topic.first_received_at,
        last_received_at: topic.last_received_at,
    }
}

/// Get one event
///
/// An event that has expired is answered with 410 and the place that it had.
#[utoipa::path(
    get,
    path = "/topics/{topic}/events/{event_id}",
    operation_id = "getEvent",
    tag = "read",
    params(EventParameters),
    responses(EventAnswers)
)]
pub(super) async fn event(
    May { who, .. }: May<guard::Read>,
    State(state): State<AppState>,
    path: Result<Path<(String, String)>, PathRejection>,
) -> Result<Response, ApiError> {
    state.check_started()?;
    let at = |error: ValidationError, name| error.at(vec![Loc::name("path"), Loc::name(name)]);
    let Ok(Path((topic, event_id))) = path else {
        let error = ValidationError::new(ValidationErrorKind::StringPatternMismatch, "Input should be UTF-8");
        return Err(ApiError::Invalid(vec![error.at(vec![Loc::name("path")])]));
    };
    let topic = Topic::parse(topic).map_err(|error| at(error, "topic"));
    let event_id = EventId::parse(event_id).map_err(|error| at(error, "event_id"));
    let (topic, event_id) = match (topic, event_id) {
        (Ok(topic), Ok(event_id)) => (topic, event_id),
        (topic, event_id) => {
            let errors = topic.err().into_iter().chain(event_id.err());
            return Err(ApiError::Invalid(errors.collect()));
        }
    };
    let Some(topic) = visible(Some(topic), &who).0 else {
        return Err(ApiError::EventUnknown);
    };
    let room = state.answers.room(page_bytes_max(1)).await?;
    let found = state
        .store
        .find(&topic, &event_id)
        .await?
        .ok_or(ApiError::EventUnknown)?;
    let event = found.event.ok_or(ApiError::EventExpired(found.first))?;
    let mut body = Vec::new();
    StoredEvent::of(&event, Form::AsSent).write_json(&mut body);
    let json = [(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))];
    Ok((json, Body::from(room.hold(body))).into_response())
}

/// List conflicts
///
/// What was dropped because another payload is stored under its identity. All conflicts are counted, and kept for some days, of those
/// of one minute at most 1000.
#[utoipa::path(
    get,
    path = "/conflicts",
    operation_id = "listConflicts",
    tag = "read",
    params(ConflictsParameters),
    responses(ConflictsAnswers)
)]
pub(super) async fn conflicts(
    May { who, .. }: May<guard::Read>,
    State(state): State<AppState>,
    RawQuery(query): RawQuery,
) -> Result<Response, ApiError> {
    state.check_started()?;
    let mut query = Query::read(query.as_deref());
    let (topic, after) = (query.topic(), query.after());
    let limit = limit(&mut query, CONFLICTS_MAX);
    query.finish().map_err(ApiError::Invalid)?;
    let room = state.answers.room(limit as usize * CONFLICT_BYTES_MAX).await?;
    let (topic, globs) = visible(topic, &who);
    let list = ConflictList {
        topic,
        globs,
        after: after.unwrap_or(crate::event::Cursor::BEGINNING),
        limit,
    };
    let page = state.store.conflicts(&list).await?;
    let answer = Conflicts {
        next: page.next,
        conflicts: page.conflicts.iter().map(conflict).collect(),
    };
    room.json(&answer)
}

fn conflict(conflict: &store::Conflict) -> Conflict<'_> {
    Conflict {
        topic: conflict.topic.as_str().into(),
        event_id: conflict.event_id.as_str().into(),
        cursor: conflict.first,
        timestamp: conflict.occurred_at,
        source: conflict.source.as_str().into(),
        payload: conflict
            .payload
            .as_ref()
            .map(|payload| JsonText(payload.as_str().into())),
        payload_omitted: conflict.payload.is_none(),
        received_at: conflict.received_at,
    }
}

fn limit(query: &mut Query, max: u32) -> u32 {
    let limit = query.number("limit", 1, max.into());
    limit.map_or(LIMIT_DEFAULT, |limit| u32::try_from(limit).unwrap_or(max))
}
