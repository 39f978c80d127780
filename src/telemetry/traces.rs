//! Traces: the spans of a request, from its head to the publishing of its events, sent to a collector over OTLP/HTTP.
//!
//! A process sends to one collector, or to none. Without one, no request is traced, and each function here only reads an empty
//! cell.
//!
//! A request is one span ([`RequestSpan`]), and each step on its behalf another one below it ([`Step`]). Many requests share a
//! group commit; each has a span of its own for it, with the same times. Spans are made when they end: what goes with a request
//! and its events through the process is the text of a `traceparent` ([`Trace`]). Only sampled requests have one.

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

/// How long the end of the process waits for a collector that does not answer.
const LAST_SEND: Duration = Duration::from_secs(5);

/// The instrumentation scope of the spans.
const SCOPE: &str = "eventsieve";

/// Set once, before the first request.
static TRACING: OnceLock<Tracing> = OnceLock::new();

struct Tracing {
    provider: SdkTracerProvider,
    tracer: SdkTracer,
}

/// Traces requests from now on, and sends their spans to a collector, from a thread of its own. It connects with the first spans. The
/// SDK reads `OTEL_TRACES_SAMPLER`, `OTEL_EXPORTER_OTLP_HEADERS`, `OTEL_RESOURCE_ATTRIBUTES` and `OTEL_BSP_*` itself.
///
/// # Errors
/// A sentence that says what is wrong: an invalid address, or certificates that cannot be read.
pub async fn send_traces(config: TraceConfig) -> Result<(), String> {
    // The HTTP client starts a runtime of its own, which it may not do within another one.
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
    // A second call changes nothing: a process is started once.
    drop(TRACING.set(Tracing { provider, tracer }));
    Ok(())
}

/// Sends the remaining spans, within some seconds, and ends tracing.
pub async fn end_traces() {
    if let Some(tracing) = TRACING.get() {
        let ending = tokio::task::spawn_blocking(|| tracing.provider.shutdown_with_timeout(LAST_SEND));
        if !matches!(ending.await, Ok(Ok(()))) {
            tracing::warn!("failed to send the last spans to the collector, some may be lost");
        }
    }
}

/// The span of a request in progress. It ends on drop.
pub struct RequestSpan(opentelemetry_sdk::trace::Span);

impl RequestSpan {
    /// Begins the span of a request, below that of its client if the header `traceparent` names one; a header that is invalid by W3C
    /// Trace Context is ignored. `None` without a collector: then no header is read.
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

    /// The trace for steps on behalf of the request; `None` if it is not sampled.
    pub fn trace(&self) -> Option<Trace> {
        let context = self.0.span_context();
        let traceparent = || format!("00-{}-{}-01", context.trace_id(), context.span_id());
        context.is_sampled().then(|| Trace::new(&traceparent()))
    }

    /// The id of the trace, in 32 hexadecimal digits.
    pub fn trace_id(&self) -> String {
        self.0.span_context().trace_id().to_string()
    }

    /// Sets an attribute.
    pub fn set(&mut self, key: &'static str, value: impl Into<Value>) {
        self.0.set_attribute(KeyValue::new(key, value));
    }

    /// Marks the request as failed by the service.
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

    /// Never called.
    fn keys(&self) -> Vec<&str> {
        Vec::new()
    }
}

/// A step on behalf of requests: a span in the trace of each, made when it ends.
#[derive(Debug)]
pub struct Step {
    name: &'static str,
    begun: Instant,
    attributes: Vec<KeyValue>,
    failure: Option<&'static str>,
}

impl Step {
    /// A step (`module.verb`) that began at this instant.
    pub fn new(name: &'static str, begun: Instant) -> Self {
        Self {
            name,
            begun,
            attributes: Vec::new(),
            failure: None,
        }
    }

    /// The same with an attribute.
    pub fn with(mut self, key: &'static str, value: impl Into<Value>) -> Self {
        self.attributes.push(KeyValue::new(key, value));
        self
    }

    /// The same with a number as an attribute.
    pub fn count(self, key: &'static str, count: usize) -> Self {
        self.with(key, i64::try_from(count).unwrap_or(i64::MAX))
    }

    /// The same, failed for this reason.
    pub fn failed(mut self, reason: &'static str) -> Self {
        self.failure = Some(reason);
        self
    }

    /// Ends the step at this moment, in each of these traces.
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

/// An instant, and this moment, in wall-clock time.
#[expect(
    clippy::disallowed_methods,
    reason = "spans carry wall-clock time, so that those of many hosts fit together"
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
    fn without_a_collector_reads_no_header() {
        let span = RequestSpan::begin(|| panic!("a name was made"), |name| panic!("{name} was read"));
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
