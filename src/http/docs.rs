//! The OpenAPI document: what is not said where a route or a type is defined. Swagger UI shows it from files in the binary, so the
//! page contacts no other host.

pub(super) mod answers;
pub(super) mod examples;
pub(super) mod pages;
pub(super) mod parameters;
#[cfg_attr(not(feature = "swagger-ui"), path = "docs/no_swagger_ui.rs")]
mod swagger_ui;

use utoipa::openapi::path::{Operation, PathItem};
use utoipa::openapi::schema::Object;
use utoipa::openapi::{self, RefOr, Type};
use utoipa::{OpenApi, PartialSchema, ToSchema};

use crate::api::events::{Event, Lines, Page, PageStatus, PublishRequest, StoredEvent, StreamEvent};
use crate::api::health::{Health, Probe, ServiceInfo};
use crate::api::problem::{Problem, ValidationErrors};
use crate::api::publish::{AcceptedAnswer, Flushed, PublishAnswer};
use crate::api::stats::{History, Stats, TopicStats};
use crate::api::topics::{Conflicts, Topics};
use crate::event::{Cursor, EventId, Payload, Source, Timestamp, Topic, ValidationError};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "eventsieve",
        description = "Publish an event as often as you like: it is stored once, counted once, and delivered to every subscriber at least once.\n\nAn unknown path is answered with 404, another method of a known path with 405 and `Allow`; every `GET` also works as `HEAD`. All errors except 422 are problem documents (RFC 9457). Every response has the header `x-request-id`, and every 503 has `Retry-After`. Sending a request again after a timeout, a 5xx or a lost connection is always safe: nothing is stored twice.",
        license(name = "MIT", identifier = "MIT")
    ),
    tags(
        (name = "publish", description = "Publish events"),
        (name = "read", description = "Read events"),
        (name = "observe", description = "Statistics, metrics and probes")
    ),
    components(schemas(
        Topic,
        EventId,
        Timestamp,
        Source,
        Payload,
        Cursor,
        Event,
        StoredEvent,
        ValidationError,
        PublishRequest,
        PublishAnswer,
        AcceptedAnswer,
        Flushed,
        Lines,
        StreamEvent,
        PageStatus,
        Problem,
        ValidationErrors,
        ServiceInfo,
        Probe,
        Health,
        Stats,
        TopicStats,
        Topics,
        Conflicts,
        History,
    ))
)]
struct Base;

/// The document without routes.
pub(super) fn base() -> openapi::OpenApi {
    let mut base = Base::openapi();
    // The derive would name it after the type of its events.
    let page = (Page::<()>::name().into_owned(), Page::<()>::schema());
    let components = base.components.get_or_insert_default();
    components.schemas.extend([page]);
    base
}

/// The document with its routes, and with what all requests and answers have in common.
pub(super) fn complete(mut document: openapi::OpenApi) -> openapi::OpenApi {
    for operation in document.paths.paths.values_mut().flat_map(operations) {
        operation
            .parameters
            .get_or_insert_default()
            .extend(parameters::shared().into_iter().map(Into::into));
        for answer in operation.responses.responses.values_mut() {
            if let RefOr::T(answer) = answer {
                let id = Object::builder()
                    .schema_type(Type::String)
                    .pattern(Some("^[A-Za-z0-9._:/+=-]{1,128}$"));
                let id = answers::header("The id of the request: the client's, or a new one.", id);
                answer.headers.insert("x-request-id".to_owned(), id.into());
            }
        }
    }
    document
}

/// The operations of a path: the API uses these two methods.
fn operations(item: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    item.get.iter_mut().chain(item.post.iter_mut())
}
