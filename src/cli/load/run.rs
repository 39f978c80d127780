//! A run of the load generator: requests become answers, and answers a tally.

use std::{cell::RefCell, num::NonZeroU64, pin::pin, time::Duration};

use anyhow::Context;
use futures_util::{Stream, StreamExt, stream};
use tokio::{
    select,
    time::{Instant, interval_at, sleep_until},
};

use super::{
    generator::{Batch, Generator},
    tally::Tally,
};
use crate::cli::{
    progress::{self, Progress},
    send::{self, Answered, RetryLimits},
};
use crate::client::Client;

/// The requests of `generator`, each not before its turn when `rate` limits the events of a second. Time that was lost is not made
/// up for by a burst.
pub(crate) fn paced(generator: Generator, rate: Option<NonZeroU64>) -> impl Stream<Item = Batch> {
    stream::unfold((generator, Instant::now()), move |(mut generator, turn)| async move {
        let batch = generator.next()?;
        let Some(rate) = rate else {
            return Some((batch, (generator, turn)));
        };
        sleep_until(turn).await;
        let next_turn =
            turn.max(Instant::now()) + Duration::from_secs(1).mul_f64(batch.events as f64 / rate.get() as f64);
        Some((batch, (generator, next_turn)))
    })
}

/// A run: its service, and what it has sent.
pub(crate) struct Run {
    client: Client,
    limits: RetryLimits,
    progress: Progress,
    tally: RefCell<Tally>,
}

impl Run {
    /// A run against the service of `client` that shows its progress towards `total` events. `patience` is how long one request may
    /// be retried; without it, for ever.
    pub(crate) fn new(client: Client, total: u64, patience: Option<Duration>) -> Self {
        Self {
            progress: Progress::new(client.target().clone(), Some(total)),
            client,
            limits: RetryLimits {
                patience,
                ..RetryLimits::default()
            },
            tally: RefCell::default(),
        }
    }

    /// Sends `requests`, so many of them at a time, until all are answered. The first request that is rejected, or not answered in
    /// time, is an error. Dropping the future gives up the requests in flight.
    pub(crate) async fn drive(&self, requests: impl Stream<Item = Batch>, concurrency: usize) -> anyhow::Result<()> {
        let mut answers = pin!(requests.map(|batch| self.request(batch)).buffer_unordered(concurrency));
        let mut lines = interval_at(Instant::now() + progress::LINE_INTERVAL, progress::LINE_INTERVAL);
        loop {
            select! {
                biased;
                _ = lines.tick() => self.progress.line(|| self.tally.borrow().done()),
                answer = answers.next() => {
                    let Some(answer) = answer else { return Ok(()) };
                    let (batch, answered) = answer?;
                    self.tally.borrow_mut().answered(batch.events, &batch.place, &answered)?;
                    self.progress.answered(|| self.tally.borrow().done());
                }
            }
        }
    }

    /// How many events are in requests that have begun and are not answered.
    pub(crate) fn events_in_flight(&self) -> u64 {
        self.tally.borrow().events_in_flight()
    }

    /// Removes the progress bar, and gives back what the answers add up to.
    pub(crate) fn end(self) -> Tally {
        self.progress.end();
        self.tally.into_inner()
    }

    /// Sends a request until it is answered.
    async fn request(&self, batch: Batch) -> anyhow::Result<(Batch, Answered)> {
        self.tally.borrow_mut().begin(batch.events);
        let retrying = |error: &_| self.progress.retrying(error);
        let answered = send::send(&self.client, &batch.request, &self.limits, retrying).await;
        let answered = answered.map_err(|unanswered| unanswered.error);
        let answered = answered.with_context(|| format!("{} were not published", batch.place))?;
        Ok((batch, answered))
    }
}
