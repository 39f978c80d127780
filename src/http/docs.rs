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
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{self, RefOr, Type};
use utoipa::{OpenApi, PartialSchema, ToSchema};

use crate::access::Scope;
use crate::api::events::{Event, Lines, Page, PageStatus, PublishRequest, StoredEvent, StreamEvent};
use crate::api::health::{Health, HealthStatusOnly, Probe, ServiceInfo};
use crate::api::keys::{KeyChange, KeyInfo, KeyWithSecret, Keys, NewKey, Rotation, ScopeName};
use crate::api::problem::{Problem, ValidationErrors};
use crate::api::publish::{AcceptedAnswer, Flushed, PublishAnswer};
use crate::api::stats::{History, SomeStats, Stats, TopicStats};
use crate::api::topics::{Conflicts, Topics};
use crate::api::{KeyName, TopicPattern};
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
        (name = "observe", description = "Statistics, metrics and probes"),
        (name = "manage", description = "Keys")
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
        HealthStatusOnly,
        Stats,
        SomeStats,
        TopicStats,
        Topics,
        Conflicts,
        History,
        NewKey,
        ScopeName,
        KeyName,
        TopicPattern,
        KeyChange,
        Rotation,
        KeyInfo,
        KeyWithSecret,
        Keys,
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
    let about = "A key, as a bearer token or as the password of HTTP Basic. Where EVENTSIEVE_ANONYMOUS allows it, none is needed.";
    let mut key = Http::new(HttpAuthScheme::Bearer);
    key.description = Some(about.to_owned());
    components
        .security_schemes
        .insert("key".to_owned(), SecurityScheme::Http(key).into());
    base
}

/// Notes in the routes of `paths` that they need a key with a scope, and what they answer without one.
pub(super) fn secured(paths: &mut openapi::Paths, scope: Scope) {
    for operation in paths.paths.values_mut().flat_map(operations) {
        operation.security = Some(vec![SecurityRequirement::new("key", [scope.name()])]);
        for (status, refusal) in answers::refusals() {
            operation.responses.responses.entry(status).or_insert(refusal);
        }
    }
}

/// Notes in the routes of `paths` that they need none.
pub(super) fn unsecured(paths: &mut openapi::Paths) {
    for operation in paths.paths.values_mut().flat_map(operations) {
        operation.security = Some(Vec::new());
    }
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

/// The operations of a path, by the methods that the API uses.
fn operations(item: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    let reading = item.get.iter_mut();
    reading
        .chain(&mut item.post)
        .chain(&mut item.patch)
        .chain(&mut item.delete)
}
