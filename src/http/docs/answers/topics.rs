//! The answers of `GET /topics`, `GET /topics/{topic}/events/{event_id}` and `GET /conflicts`.

use serde_json::json;
use utoipa::IntoResponses;
use utoipa::openapi::response::Response;

use super::{Answers, JSON, content, errors, of, read_errors, reference, with};
use crate::api::events::{JsonText, StoredEvent};
use crate::api::topics::{Conflict, Conflicts, TopicSummary, Topics};
use crate::http::docs::examples::{self, stored_event};
use crate::http::error::ApiError;
use crate::store::LogPosition;

/// The answers of `GET /topics`.
pub(in crate::http) struct TopicsAnswers;

impl IntoResponses for TopicsAnswers {
    fn responses() -> Answers {
        let topic = TopicSummary {
            topic: "order.created".into(),
            received: 4,
            unique_processed: 2,
            duplicate_dropped: 2,
            conflicts: 1,
            first_received_at: Some(examples::received_at()),
            last_received_at: Some(examples::received_at()),
        };
        let page = Topics {
            topics: vec![topic],
            next: None,
        };
        with(errors(read_errors()), [("200", of("The topics.", [("last", page)]))])
    }
}

/// The answers of `GET /topics/{topic}/events/{event_id}`.
pub(in crate::http) struct EventAnswers;

impl IntoResponses for EventAnswers {
    fn responses() -> Answers {
        let mut reasons = read_errors();
        reasons.push(("event_unknown", ApiError::EventUnknown));
        let position = LogPosition {
            cursor: examples::cursor(),
            received_at: examples::received_at(),
        };
        reasons.push(("event_expired", ApiError::EventExpired(position)));
        let found = Response::builder().description("The event.").content(
            JSON,
            content(reference::<StoredEvent<'_>>(), [("event", json!(stored_event()))]),
        );
        with(errors(reasons), [("200", found)])
    }
}

/// The answers of `GET /conflicts`.
pub(in crate::http) struct ConflictsAnswers;

impl IntoResponses for ConflictsAnswers {
    fn responses() -> Answers {
        let conflict = Conflict {
            topic: "order.created".into(),
            event_id: "evt-1".into(),
            cursor: examples::cursor(),
            timestamp: examples::timestamp(),
            source: "shop".into(),
            payload: Some(JsonText(r#"{"total":45}"#.into())),
            payload_omitted: false,
            received_at: examples::received_at(),
        };
        let page = Conflicts {
            conflicts: vec![conflict],
            next: examples::cursor(),
        };
        with(
            errors(read_errors()),
            [("200", of("The conflicts, the newest last.", [("page", page)]))],
        )
    }
}
