//! Publishing: a batch from memory, in portions, and what becomes of events that the fan-out refuses.

use tokio::time::Instant;

use super::{Relay, Stopped};
use crate::event::{StoredEvent, Trace};
use crate::metrics::PublishPath;
use crate::sink::{Committed, SinkError, SinkErrorKind};
use crate::store::NewDeadLetter;
use crate::telemetry::Step;

/// How many bytes of payload are read back, and go into one pipeline, at a time.
pub(super) const PORTION_BYTES: usize = 2 << 20;

impl Relay {
    /// Publishes a batch from memory.
    pub(super) async fn publish_committed(&mut self, committed: Committed) -> Result<(), Stopped> {
        let Committed {
            batch,
            events,
            bytes,
            since,
            ..
        } = committed;
        let begun = Instant::now();
        let published = self.publish_in_portions(&events, since).await;
        show(begun, &events, batch, matches!(published, Ok(true)));
        match published {
            Ok(true) => self.note_published(batch),
            Ok(false) | Err(_) => self.orphans.push(batch),
        }
        self.handoff.done(bytes);
        published.map(drop)
    }

    /// Publishes the events of a batch, mostly in one pipeline: of large ones a pipeline holds several copies. Answers whether
    /// that was done as long as the lease lasts surely; else the rest is published from the outbox.
    async fn publish_in_portions(&mut self, events: &[StoredEvent], since: Instant) -> Result<bool, Stopped> {
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
                self.reached = portion.last().map(|event| event.cursor);
            }
        }
        Ok(true)
    }

    /// Publishes events, and parks those that the fan-out refuses for themselves. They are counted by the `way` that they came.
    pub(super) async fn publish(&mut self, events: &[StoredEvent], way: PublishPath) -> Result<(), Stopped> {
        if events.is_empty() {
            return Ok(());
        }
        let begun = Instant::now();
        let answer = self.fanout.publish(events).await;
        self.metrics.sink_duration.observe(begun.elapsed().as_secs_f64());
        let refused: Vec<NewDeadLetter> = match answer {
            Ok(refusals) => refusals
                .into_iter()
                .map(|refusal| NewDeadLetter {
                    cursor: events[refusal.index].cursor,
                    reason: refusal.reason,
                })
                .collect(),
            Err(error) if error.kind == SinkErrorKind::Odd && events.len() > 1 => {
                self.one_by_one(events, &error).await?
            }
            Err(error) => return Err(error.into()),
        };
        self.answered_at = Instant::now();
        let taken = events.len() - refused.len();
        self.metrics.published_by(way).inc_by(taken as u64);
        if !refused.is_empty() {
            self.store.dead_letter(&refused).await?;
            self.metrics.sink_dead_letters.inc_by(refused.len() as u64);
            for NewDeadLetter { cursor, reason } in &refused {
                tracing::warn!(event.cursor = %cursor, "parked: Redis refuses this event: {reason}");
            }
        }
        Ok(())
    }

    /// Publishes each event alone, where nobody knows what an error was about. If some go well it was about the others; if none
    /// does it is about the fan-out.
    async fn one_by_one(&self, events: &[StoredEvent], error: &SinkError) -> Result<Vec<NewDeadLetter>, SinkError> {
        let mut refused = Vec::new();
        for event in events {
            if self.stop.is_cancelled() {
                return Err(error.clone());
            }
            let reason = match self.fanout.publish(std::slice::from_ref(event)).await {
                Ok(refusals) => refusals.into_iter().next().map(|refusal| refusal.reason),
                Err(error) if error.kind == SinkErrorKind::Odd => Some(error.to_string()),
                Err(error) => return Err(error),
            };
            refused.extend(reason.map(|reason| NewDeadLetter {
                cursor: event.cursor,
                reason,
            }));
        }
        if refused.len() == events.len() {
            return Err(error.clone());
        }
        Ok(refused)
    }
}

/// Shows in the traces of a batch's requests that it was published, or left to the outbox.
fn show(begun: Instant, events: &[StoredEvent], batch: i64, is_published: bool) {
    let mut traces: Vec<&Trace> = events.iter().filter_map(|event| event.trace.as_ref()).collect();
    // The events of a request lie side by side.
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
