//! How stored events leave the process.

use std::sync::Arc;

use anyhow::Result;
use tokio::sync::watch;
use uuid::Uuid;

use crate::config::SinkConfig;
use crate::http::SinkState;
use crate::metrics::Metrics;
use crate::relay::{self, Relay};
use crate::sink::{self, HandoffQueue, OutboxLease, SinkErrorKind};
use crate::store::Store;

/// The queue of what was committed, and who publishes it.
pub(super) struct Delivery {
    pub(super) handoff: Arc<HandoffQueue>,
    pub(super) relay: Option<Relay>,
    pub(super) state: SinkState,
}

impl Delivery {
    pub(super) fn new(config: &SinkConfig, store: &Arc<dyn Store>, metrics: &Arc<Metrics>) -> Result<Self> {
        for kind in SinkErrorKind::ALL {
            metrics.sink_errors.with_label_values(&[kind.as_str()]);
        }
        let (sink_error, seen_error) = watch::channel(None);
        let lease = OutboxLease {
            owner: Uuid::new_v4(),
            length: config.lease,
        };
        let handoff = Arc::new(HandoffQueue::new(config.redis.is_some().then_some(lease)));
        let relay = match config.redis.clone() {
            Some(redis) => {
                let settings = relay::Settings {
                    store: store.clone(),
                    sink: sink::open(redis)?,
                    handoff: handoff.clone(),
                    lease,
                    sink_error,
                    metrics: metrics.clone(),
                };
                Some(Relay::new(settings))
            }
            None => None,
        };
        let kind = if relay.is_some() { "redis" } else { "process" };
        Ok(Self {
            handoff,
            relay,
            state: SinkState {
                kind,
                error: seen_error,
            },
        })
    }
}
