//! Traces: the spans of a request, from its head to the fan-out of its events, sent to a collector over OTLP/HTTP.
//!
//! One process has one way to a collector, or none. Where it has none, no request has a trace, and everything here is one look
//! at a cell that is empty.
//!
//! A request is one span ([`RequestSpan`]), and each thing that is done on its behalf another one below it ([`Step`]). Many
//! requests share a flush; each has a span of its own for it, with the same times. Spans are made when they end, for nothing of
//! them is known elsewhere: what goes with a request and its events through the process is the text of a `traceparent`
//! ([`Trace`]). Only requests that are sampled have one.

mod exporter;

use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

use opentelemetry::propagation::{Extractor, TextMapPropagator};
use opentelemetry::trace::{
    Span, SpanBuilder, SpanContext, SpanKind, Status, TraceContextExt, TraceFlags, TraceState, Tracer, TracerProvider,
};
use opentelemetry::{Context, KeyValue, SpanId, TraceId, Value};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider};
use tokio::time::Instant;

use self::exporter::Collector;
use crate::config::TraceConfig;
use crate::event::Trace;

/// The most that the end of the process waits for a collector that does not answer.
const LAST_SEND: Duration = Duration::from_secs(5);

/// What the spans say of where they come from.
const SCOPE: &str = "eventsieve";

/// Set once, before anything is served.
static TRACING: OnceLock<Tracing> = OnceLock::new();

struct Tracing {
    provider: SdkTracerProvider,
    tracer: SdkTracer,
}

/// Traces requests from now on, and sends their spans to a collector, from a thread of its own. Nothing is connected yet. The
/// SDK reads `OTEL_TRACES_SAMPLER`, `OTEL_EXPORTER_OTLP_HEADERS`, `OTEL_RESOURCE_ATTRIBUTES` and `OTEL_BSP_*` itself.
///
/// # Errors
/// A sentence that says why it cannot be: an address that is none, or certificates that cannot be read.
pub async fn send_traces(config: TraceConfig) -> Result<(), String> {
    // Its HTTP client starts a runtime of its own, which it may not within another one.
    let making = tokio::task::spawn_blocking(move || {
        let collector = Collector::new(&config.endpoint)?;
        let resource = Resource::builder().with_service_name(config.service_name).build();
        Ok::<_, String>(
            SdkTracerProvider::builder()
                .with_batch_exporter(collector)
                .with_resource(resource)
                .build(),
        )
    });
    let provider = making.await.map_err(|error| error.to_string())??;
    let tracer = provider.tracer(SCOPE);
    // Who comes second changes nothing: a process is started once.
    drop(TRACING.set(Tracing { provider, tracer }));
    Ok(())
}

/// Sends what was not sent yet, for no longer than some seconds, and traces nothing more.
pub async fn end_traces() {
    if let Some(tracing) = TRACING.get() {
        let ending = tokio::task::spawn_blocking(|| tracing.provider.shutdown_with_timeout(LAST_SEND));
        if !matches!(ending.await, Ok(Ok(()))) {
            tracing::warn!("the last spans may not have reached the collector");
        }
    }
}

/// The span of a request that is under way. It ends when this is dropped.
pub struct RequestSpan(opentelemetry_sdk::trace::Span);

impl RequestSpan {
    /// Begins the span of a request, below that of its client if the header `traceparent` names one; one that breaks the rules of
    /// W3C Trace Context is ignored. `None` where nothing is traced: then no header is looked at.
    pub fn begin<'a>(name: impl FnOnce() -> String, header: impl Fn(&str) -> Option<&'a str>) -> Option<Self> {
        let tracing = TRACING.get()?;
        let headers = Headers {
            parent: header("traceparent"),
            state: header("tracestate"),
        };
        let client = TraceContextPropagator::new().extract_with_context(&Context::new(), &headers);
        let builder = SpanBuilder::from_name(name()).with_kind(SpanKind::Server);
        Some(Self(tracing.tracer.build_with_context(builder, &client)))
    }

    /// The trace for what is done on behalf of the request; `None` if it is not sampled.
    #[must_use]
    pub fn trace(&self) -> Option<Trace> {
        let context = self.0.span_context();
        let traceparent = || format!("00-{}-{}-01", context.trace_id(), context.span_id());
        context.is_sampled().then(|| Trace::new(&traceparent()))
    }

    /// The id of the trace, in 32 hexadecimal digits.
    #[must_use]
    pub fn trace_id(&self) -> String {
        self.0.span_context().trace_id().to_string()
    }

    /// Says something about the request.
    pub fn set(&mut self, key: &'static str, value: impl Into<Value>) {
        self.0.set_attribute(KeyValue::new(key, value));
    }

    /// The request has failed, and it was not its own fault.
    pub fn fail(&mut self) {
        self.0.set_status(Status::error(""));
    }
}

/// The headers of W3C Trace Context.
struct Headers<'a> {
    parent: Option<&'a str>,
    state: Option<&'a str>,
}

impl Extractor for Headers<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        match key {
            "traceparent" => self.parent,
            "tracestate" => self.state,
            _ => None,
        }
    }

    /// Nothing asks for them.
    fn keys(&self) -> Vec<&str> {
        Vec::new()
    }
}

/// Something that is done on behalf of requests: a span in the trace of each, when it has ended.
#[derive(Debug)]
pub struct Step {
    name: &'static str,
    begun: Instant,
    attributes: Vec<KeyValue>,
    failure: Option<&'static str>,
}

impl Step {
    /// A step (`room.verb`) that began at this instant.
    #[must_use]
    pub fn new(name: &'static str, begun: Instant) -> Self {
        Self {
            name,
            begun,
            attributes: Vec::new(),
            failure: None,
        }
    }

    /// The same with something said about it.
    #[must_use]
    pub fn with(mut self, key: &'static str, value: impl Into<Value>) -> Self {
        self.attributes.push(KeyValue::new(key, value));
        self
    }

    /// The same with a number of things.
    #[must_use]
    pub fn count(self, key: &'static str, count: usize) -> Self {
        self.with(key, i64::try_from(count).unwrap_or(i64::MAX))
    }

    /// The same, which has failed for this reason.
    #[must_use]
    pub fn failed(mut self, reason: &'static str) -> Self {
        self.failure = Some(reason);
        self
    }

    /// It has ended at this moment, in each of these traces.
    pub fn end<'a>(self, traces: impl IntoIterator<Item = &'a Trace>) {
        let Some(tracing) = TRACING.get() else { return };
        let (begun, ended) = times(self.begun);
        for trace in traces {
            let Some(request) = context(trace) else { continue };
            let builder = SpanBuilder::from_name(self.name)
                .with_start_time(begun)
                .with_attributes(self.attributes.clone());
            let mut span = tracing.tracer.build_with_context(builder, &request);
            if let Some(reason) = self.failure {
                span.set_status(Status::error(reason));
            }
            span.end_with_timestamp(ended);
        }
    }
}

/// An instant, and this moment, by the clock on the wall.
#[expect(
    clippy::disallowed_methods,
    reason = "spans are told in wall-clock time, so that those of many hosts fit together"
)]
fn times(begun: Instant) -> (SystemTime, SystemTime) {
    let now = SystemTime::now();
    (now - begun.elapsed(), now)
}

/// The span of a request, to be the parent of others.
fn context(trace: &Trace) -> Option<Context> {
    let mut parts = trace.as_str().split('-').skip(1);
    let trace_id = TraceId::from_hex(parts.next()?).ok()?;
    let span_id = SpanId::from_hex(parts.next()?).ok()?;
    let span = SpanContext::new(trace_id, span_id, TraceFlags::SAMPLED, false, TraceState::NONE);
    Some(Context::new().with_remote_span_context(span))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_collector_no_request_is_traced_and_none_of_its_headers_is_looked_at() {
        let span = RequestSpan::begin(|| panic!("a name is made"), |name| panic!("{name} is looked at"));
        assert!(span.is_none());
    }

    #[test]
    fn a_trace_is_the_parent_of_its_steps() {
        let trace = Trace::new("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
        let context = context(&trace).unwrap();
        let (span, parent) = (context.span(), "b7ad6b7169203331");
        assert_eq!(
            span.span_context().trace_id().to_string(),
            "0af7651916cd43dd8448eb211c80319c"
        );
        assert_eq!(span.span_context().span_id().to_string(), parent);
        assert!(span.span_context().is_sampled() && !span.span_context().is_remote());
    }
}
