//! A run of the publisher: requests become answers, and answers a tally.

use std::{cell::RefCell, num::NonZeroU64, pin::pin, time::Duration};

use anyhow::Context;
use futures_util::{Stream, StreamExt, stream};
use tokio::{
    select,
    time::{Instant, interval_at, sleep_until},
};

use super::{
    batch::{Batch, Source},
    progress::{self, Progress},
    send::{self, Answered},
    tally::{Tally, Ticket},
};
use crate::client::Client;

/// The requests of `source`, each not before its turn when `rate` limits the events of a second. Time that was lost is not made up for by
/// a burst.
pub fn paced(source: Source, rate: Option<NonZeroU64>) -> impl Stream<Item = anyhow::Result<Batch>> {
    stream::try_unfold((source, Instant::now()), move |(mut source, turn)| async move {
        let Some(batch) = source.next().await? else {
            return Ok(None);
        };
        let Some(rate) = rate else {
            return Ok(Some((batch, (source, turn))));
        };
        sleep_until(turn).await;
        let next_turn =
            turn.max(Instant::now()) + Duration::from_secs(1).mul_f64(batch.events as f64 / rate.get() as f64);
        Ok(Some((batch, (source, next_turn))))
    })
}

/// One run: who is sent what, and what came of it.
pub struct Run {
    client: Client,
    patience: Option<Duration>,
    progress: Progress,
    tally: RefCell<Tally>,
}

impl Run {
    /// A run to the service of `client` that shows its progress towards `total` events, where that is known. `patience` is how long one request
    /// may be tried.
    #[must_use]
    pub fn new(client: Client, total: Option<u64>, patience: Option<Duration>) -> Self {
        Self {
            progress: Progress::new(client.target().clone(), total),
            client,
            patience,
            tally: RefCell::default(),
        }
    }

    /// Sends `requests`, so many of them at a time, until all are answered. Who drops it gives up what is on its way.
    ///
    /// # Errors
    /// When an answer is wrong in itself, when a request is refused for good or not answered for too long, and when there is no next request
    /// because its file cannot be read.
    pub async fn drive(
        &self,
        requests: impl Stream<Item = anyhow::Result<Batch>>,
        concurrency: usize,
    ) -> anyhow::Result<()> {
        let mut answers = pin!(requests.map(|batch| self.request(batch)).buffer_unordered(concurrency));
        let mut lines = interval_at(Instant::now() + progress::LINE_INTERVAL, progress::LINE_INTERVAL);
        loop {
            select! {
                biased;
                _ = lines.tick() => self.progress.line(&self.tally.borrow()),
                answer = answers.next() => {
                    let Some(answer) = answer else { return Ok(()) };
                    let (ticket, answered) = answer?;
                    self.tally.borrow_mut().answered(ticket, &answered)?;
                    self.progress.answered(&self.tally.borrow());
                }
            }
        }
    }

    /// How many events are in requests that have begun and are not answered.
    #[must_use]
    pub fn events_in_flight(&self) -> u64 {
        self.tally.borrow().events_in_flight()
    }

    /// Clears the progress away, and gives back what the answers add up to.
    #[must_use]
    pub fn end(self) -> Tally {
        self.progress.end();
        self.tally.into_inner()
    }

    /// Begins a request at once, because the tally relies on the order, and returns what is left to do for it.
    fn request(&self, batch: anyhow::Result<Batch>) -> impl Future<Output = anyhow::Result<(Ticket, Answered)>> {
        let begun = batch.map(|batch| (self.tally.borrow_mut().begin(&batch), batch));
        async move {
            let (ticket, batch) = begun?;
            let trouble = |error: &_| self.progress.trouble(error);
            let answered = send::send(&self.client, &batch, self.patience, trouble).await;
            Ok((
                ticket,
                answered.with_context(|| format!("{} are not published", batch.place))?,
            ))
        }
    }
}
