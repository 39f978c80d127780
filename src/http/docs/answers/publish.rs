//! The answers of `POST /publish` and `POST /_flush`.

use utoipa::IntoResponses;
use utoipa::openapi::schema::Object;
use utoipa::openapi::{RefOr, Type};

use super::{Answers, errors, header, invalid, of, with};
use crate::api::publish::{
    AcceptedAnswer, AcceptedStatus, Details, EventResult, EventStatus, Flushed, PublishAnswer, PublishStatus,
    ReceivedEvent, RejectedEvent, RejectedStatus,
};
use crate::event::{Loc, ValidationError, ValidationErrorKind};
use crate::http::docs::examples;
use crate::http::error::ApiError;
use crate::ingest::SubmitError;

/// The answers of `POST /publish`.
pub(in crate::http) struct PublishAnswers;

impl PublishAnswers {
    fn committed(unique: u64, rejected: u64, result: EventResult<'static>) -> PublishAnswer<'static> {
        PublishAnswer {
            status: PublishStatus::Success,
            message: "Processed 1 events".to_owned(),
            received: 1,
            unique_processed: unique,
            duplicate_dropped: 1 - unique,
            details: Details {
                accepted: unique,
                rejected,
                duplicates_immediate: 1 - unique,
            },
            results: Some(vec![result]),
        }
    }

    fn single(status: EventStatus) -> PublishAnswer<'static> {
        let result = ReceivedEvent {
            index: 0,
            topic: "order.created".into(),
            event_id: "evt-1".into(),
            status,
            cursor: examples::cursor(),
            received_at: examples::received_at(),
        };
        let unique = (status == EventStatus::Stored).into();
        Self::committed(unique, 0, EventResult::Received(result))
    }

    fn lenient() -> PublishAnswer<'static> {
        let loc = vec![Loc::name("body"), Loc::Index(1), Loc::name("topic")];
        let error = ValidationError::new(ValidationErrorKind::Missing, "Field required").at(loc);
        let result = RejectedEvent {
            index: 1,
            status: RejectedStatus::Rejected,
            errors: vec![error].into(),
        };
        Self::committed(1, 1, EventResult::Rejected(result))
    }

    fn errors() -> Answers {
        let missing = invalid(ValidationErrorKind::Missing, "Field required", &["body", "topic"]);
        let mut answers = errors([
            ("not_decodable", ApiError::BodyNotDecodable),
            ("incomplete", ApiError::BodyIncomplete),
            ("timeout", ApiError::BodyTimeout),
            ("too_large", ApiError::BodyTooLarge(10 << 20)),
            ("too_many_topics_at_once", ApiError::TooManyTopicsAtOnce(10_000)),
            ("too_many_topics", ApiError::TooManyTopics { seconds: 12 }),
            ("media_type", ApiError::UnsupportedMediaType { is_missing: false }),
            ("content_coding", ApiError::UnsupportedContentCoding),
            ("missing", missing),
            ("internal", ApiError::Internal),
            ("starting", ApiError::STARTING),
            ("out_of_memory", ApiError::OUT_OF_MEMORY),
            ("read_only", ApiError::READ_ONLY),
            ("queue_full", SubmitError::Full.into()),
            ("stopping", SubmitError::Stopping.into()),
            ("too_late", SubmitError::TooLate.into()),
            ("outcome_unknown", SubmitError::Unknown.into()),
        ]);
        if let Some(RefOr::T(answer)) = answers.get_mut("422") {
            "The request is invalid: nothing was stored. The response lists all validation errors, up to 100."
                .clone_into(&mut answer.description);
        }
        answers
    }
}

impl IntoResponses for PublishAnswers {
    fn responses() -> Answers {
        let accepted = AcceptedAnswer {
            status: AcceptedStatus::Accepted,
            message: "Received 1 event(s) for processing".to_owned(),
            received: 1,
            details: None,
            results: None,
        };
        let applied = Object::builder()
            .schema_type(Type::String)
            .enum_values(Some(["respond-async"]));
        let duplicate = ("duplicate", Self::single(EventStatus::Duplicate));
        let conflict = ("conflict", Self::single(EventStatus::Conflict));
        let stored = ("stored", Self::single(EventStatus::Stored));
        let lenient = ("lenient", Self::lenient());
        let duplicates = of(
            "Committed, flushed to disk, and counted: every event was a duplicate, or the request had none.",
            [duplicate, conflict],
        );
        let created = of(
            "Committed, flushed to disk, and counted: at least one event was new.",
            [stored, lenient],
        );
        let queued = of(
            "With `Prefer: respond-async`: valid and queued in memory, not yet durable.",
            [("accepted", accepted)],
        );
        let queued = queued.header(
            "preference-applied",
            header("The preferences that were applied.", applied),
        );
        with(Self::errors(), [("200", duplicates), ("201", created), ("202", queued)])
    }
}

/// The answers of `POST /_flush`.
pub(in crate::http) struct FlushAnswers;

impl IntoResponses for FlushAnswers {
    fn responses() -> Answers {
        let errors = errors([
            ("internal", ApiError::Internal),
            ("starting", ApiError::STARTING),
            ("flush_timeout", ApiError::FLUSH_TIMEOUT),
        ]);
        let flushed = of(
            "All events that were accepted before the call are committed, and published or kept in the outbox because Redis is down.",
            [("flushed", Flushed { flushed: 3 })],
        );
        with(errors, [("200", flushed)])
    }
}
