//! The trace of the request that published an event.

use std::sync::Arc;

/// The trace of the request that published an event, and the span of the request. Only traced requests have one.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Trace(Arc<str>);

impl Trace {
    /// Reads the value of a header `traceparent` (W3C Trace Context, version 00).
    pub fn new(traceparent: &str) -> Self {
        Self(traceparent.into())
    }

    /// The value of the header `traceparent` for spans below that of the request.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}
