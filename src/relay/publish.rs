//! Publishing: a batch from memory, in portions, and dead-lettering of events that the sink rejects.

use tokio::time::Instant;

use super::Relay;
use super::amount::CUTS_MAX;
use super::error::RelayError;
use crate::event::{StoredEvent, Trace};
use crate::metrics::PublishPath;
use crate::sink::{Committed, SinkError, SinkErrorKind};
use crate::store::NewDeadLetter;
use crate::telemetry::Step;

/// How many bytes of payload are read back, and go into one pipeline, at a time.
pub(super) const PORTION_BYTES: usize = 2 << 20;

impl Relay {
    /// Publishes a batch from memory.
    pub(super) async fn publish_committed(&mut self, committed: Committed) -> Result<(), RelayError> {
        let Committed {
            batch,
            events,
            bytes,
            since,
            ..
        } = committed;
        let begun = Instant::now();
        let published = self.publish_in_portions(&events, since).await;
        trace_publish(begun, &events, batch, matches!(published, Ok(true)));
        match published {
            Ok(true) => self.note_published(batch),
            Ok(false) | Err(_) => self.to_release.push(batch),
        }
        self.handoff.done(bytes);
        published.map(drop)
    }

    /// Publishes the events of a batch, mostly in one pipeline: of large events a pipeline holds several copies. Returns whether
    /// all were published while the lease certainly lasts; otherwise the rest is published from the outbox.
    async fn publish_in_portions(&mut self, events: &[StoredEvent], since: Instant) -> Result<bool, RelayError> {
        let mut rest = events;
        while !rest.is_empty() {
            if !self.has_time(since) {
                return Ok(false);
            }
            let mut bytes = 0;
            let fits = |event: &&StoredEvent| {
                bytes += event.event.payload.as_str().len();
                bytes <= PORTION_BYTES
            };
            let count = rest.iter().take_while(fits).count().max(1);
            let (portion, left) = rest.split_at(count);
            self.publish(portion, PublishPath::Fast).await?;
            rest = left;
            if !rest.is_empty() {
                self.resume_after = portion.last().map(|event| event.cursor);
            }
        }
        Ok(true)
    }

    /// Publishes events, mostly at once, and dead-letters those that the sink rejects. They are counted by `path`.
    pub(super) async fn publish(&mut self, events: &[StoredEvent], path: PublishPath) -> Result<(), RelayError> {
        let mut rest = events;
        while !rest.is_empty() {
            let (part, left) = rest.split_at(self.amount.events_max().min(rest.len()));
            self.publish_at_once(part, path).await?;
            rest = left;
            if !rest.is_empty() {
                self.resume_after = part.last().map(|event| event.cursor);
            }
        }
        Ok(())
    }

    async fn publish_at_once(&mut self, events: &[StoredEvent], path: PublishPath) -> Result<(), RelayError> {
        let begun = Instant::now();
        let answer = self.sink.publish(events).await;
        self.metrics.sink_duration.observe(begun.elapsed().as_secs_f64());
        let rejected: Vec<NewDeadLetter> = match answer {
            Ok(undeliverable) => undeliverable
                .into_iter()
                .map(|event| NewDeadLetter {
                    cursor: events[event.index].cursor,
                    reason: event.reason,
                })
                .collect(),
            Err(error) if error.kind == SinkErrorKind::Unexpected && events.len() > 1 => {
                self.publish_one_by_one(events, &error).await?
            }
            Err(error) if error.is_cut && self.amount.was_too_much(events) => vec![NewDeadLetter {
                cursor: events[0].cursor,
                reason: format!("the connection ended {CUTS_MAX} times when this event was published: {error}"),
            }],
            Err(error) => return Err(error.into()),
        };
        self.amount.was_taken();
        self.sink_answered_at = Instant::now();
        let taken = events.len() - rejected.len();
        self.metrics.published_by(path).inc_by(taken as u64);
        if !rejected.is_empty() {
            self.store.dead_letter(&rejected).await?;
            self.metrics.sink_dead_letters.inc_by(rejected.len() as u64);
            for NewDeadLetter { cursor, reason } in &rejected {
                tracing::warn!(
                    event.cursor = %cursor,
                    "the sink rejected an event, keeping it as a dead letter; publish it again with `eventsieve outbox --retry`: {reason}"
                );
            }
        }
        Ok(())
    }

    /// Publishes each event alone, after an unexpected error. If the sink takes some of them, the error is about the others; if
    /// it takes none, the error is about the sink.
    async fn publish_one_by_one(
        &self,
        events: &[StoredEvent],
        error: &SinkError,
    ) -> Result<Vec<NewDeadLetter>, SinkError> {
        let mut rejected = Vec::new();
        for event in events {
            if self.stop.is_cancelled() {
                return Err(error.clone());
            }
            let reason = match self.sink.publish(std::slice::from_ref(event)).await {
                Ok(undeliverable) => undeliverable.into_iter().next().map(|event| event.reason),
                Err(error) if error.kind == SinkErrorKind::Unexpected => Some(error.to_string()),
                Err(error) => return Err(error),
            };
            rejected.extend(reason.map(|reason| NewDeadLetter {
                cursor: event.cursor,
                reason,
            }));
        }
        if rejected.len() == events.len() {
            return Err(error.clone());
        }
        Ok(rejected)
    }
}

/// Adds a step to the traces of a batch's requests: it was published, or left to the outbox.
fn trace_publish(begun: Instant, events: &[StoredEvent], batch: i64, is_published: bool) {
    let mut traces: Vec<&Trace> = events.iter().filter_map(|event| event.trace.as_ref()).collect();
    // The events of a request are adjacent.
    traces.dedup();
    if traces.is_empty() {
        return;
    }
    let mut step = Step::new("outbox.publish", begun)
        .with("batch", batch)
        .count("batch.events", events.len());
    if !is_published {
        step = step.failed("left to the outbox");
    }
    step.end(traces);
}
