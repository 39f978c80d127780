//! The trace that an event came in.

use std::sync::Arc;

/// The trace of the request that brought an event, and the request's place in it. Only requests that are traced have one.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Trace(Arc<str>);

impl Trace {
    /// From the value of a header `traceparent` (W3C Trace Context, version 00).
    #[must_use]
    pub fn new(traceparent: &str) -> Self {
        Self(traceparent.into())
    }

    /// The value of the header `traceparent` for what is done on behalf of the request.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}
