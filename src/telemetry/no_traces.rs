//! Traces in a build without OpenTelemetry: no request is traced.

use tokio::time::Instant;

use crate::config::TraceConfig;
use crate::event::Trace;

/// Fails: this build sends no traces.
pub async fn send_traces(_config: TraceConfig) -> Result<(), String> {
    Err(
        "this eventsieve was built without traces: build it with the feature `otel`, or unset OTEL_EXPORTER_OTLP_ENDPOINT"
            .to_owned(),
    )
}

/// Does nothing.
pub async fn end_traces() {}

/// The span of a request, which no request has.
pub enum RequestSpan {}

impl RequestSpan {
    /// Always `None`.
    pub fn begin<'a>(_name: impl FnOnce() -> String, _header: impl Fn(&str) -> Option<&'a str>) -> Option<Self> {
        None
    }

    /// Never called.
    pub fn trace(&self) -> Option<Trace> {
        match *self {}
    }

    /// Never called.
    pub fn trace_id(&self) -> String {
        match *self {}
    }

    /// Never called.
    pub fn set<V>(&mut self, _key: &'static str, _value: V) {
        match *self {}
    }

    /// Never called.
    pub fn fail(&mut self) {
        match *self {}
    }
}

/// A step in the traces of requests, none of which is traced.
#[derive(Debug)]
pub struct Step;

impl Step {
    /// A step that records nothing.
    pub fn new(_name: &'static str, _begun: Instant) -> Self {
        Self
    }

    /// The same.
    pub fn with<V>(self, _key: &'static str, _value: V) -> Self {
        self
    }

    /// The same.
    pub fn count(self, _key: &'static str, _count: usize) -> Self {
        self
    }

    /// The same.
    pub fn failed(self, _reason: &'static str) -> Self {
        self
    }

    /// Does nothing.
    pub fn end<'a>(self, _traces: impl IntoIterator<Item = &'a Trace>) {}
}
