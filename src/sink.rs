//! The sink: where the relay publishes stored events.
//!
//! A sink takes events and delivers them to its subscribers. It **promises**:
//!
//! - [`Sink::publish`] returns when it has taken every event, in the order given; or it says which events it rejects, or that
//!   the outcome is unknown. Subscribers that are not connected at that moment may miss an event.
//! - It accepts events that it may have taken already: subscribers drop repeated events by their cursor.
//!
//! It does **not** remember, retry or wait: that is the task of the [`crate::relay`], which alone calls it, beside the command
//! `outbox`. It knows nothing of requests, and of the store only what a stored event is.
//!
//! Without a sink, events are delivered inside this process alone: [`HandoffQueue`] announces each commit to
//! [`crate::subscribers`].

mod contract;
mod handoff;
#[cfg(feature = "redis")]
mod redis;

use std::sync::Arc;

#[cfg(test)]
pub(crate) use self::contract::Undeliverable;
pub(crate) use self::contract::{Sink, SinkError, SinkErrorKind};
pub(crate) use self::handoff::{Committed, HandoffQueue, OutboxLease};
#[cfg(feature = "redis")]
pub(crate) use self::redis::error::sink_error;
#[cfg(feature = "redis")]
pub(crate) use self::redis::servers::{Servers, with_pushes};
use crate::config::{ConfigError, RedisConfig};

/// Opens the sink that publishes to Redis. It connects when it is used.
#[cfg(feature = "redis")]
pub(crate) fn open(config: RedisConfig) -> Result<Arc<dyn Sink>, ConfigError> {
    Ok(Arc::new(redis::RedisSink::new(config)))
}

/// Fails: this build has no Redis.
#[cfg(not(feature = "redis"))]
pub(crate) fn open(_config: RedisConfig) -> Result<Arc<dyn Sink>, ConfigError> {
    Err(ConfigError(vec![
        "this eventsieve was built without Redis: build it with the feature `redis`, or unset REDIS_URL".to_owned(),
    ]))
}
