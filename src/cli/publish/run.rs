//! Sends lines, and counts what became of them.

use anyhow::{Context, anyhow, bail};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::{
    select,
    time::{Instant, interval_at},
};

use super::{
    lines::{Batch, Lines},
    rejects::{Rejects, by_line},
    tally::Tally,
};
use crate::api::publish::EventResult;
use crate::cli::{
    progress::{self, Progress},
    send::{Answered, Request, RetryLimits, Unanswered, send},
};
use crate::client::{Client, ClientError};
use crate::event::ValidationError;
use crate::lifecycle::Signals;

const NDJSON: &str = "application/x-ndjson";
const STRICT: &str = "return=representation";
const LENIENT: &str = "return=representation, handling=lenient";

/// How the lines are sent.
pub(crate) struct Settings {
    pub(crate) client: Client,
    pub(crate) limits: RetryLimits,
    pub(crate) concurrency: usize,
    /// Whether invalid lines are listed and skipped. Otherwise the first one ends the run.
    pub(crate) is_lenient: bool,
}

/// A run: what has been sent, and what became of it.
pub(crate) struct Run<'a> {
    settings: &'a Settings,
    progress: &'a Progress,
    rejects: Rejects,
    tally: Tally,
    failure: Option<anyhow::Error>,
}

impl<'a> Run<'a> {
    pub(crate) fn new(settings: &'a Settings, progress: &'a Progress, rejects: Rejects) -> Self {
        Self {
            settings,
            progress,
            rejects,
            tally: Tally::default(),
            failure: None,
        }
    }

    /// What became of the lines so far.
    pub(crate) fn tally(&self) -> &Tally {
        &self.tally
    }

    /// Sends all lines. After the first failure or signal no request begins, and the answers to those in flight are awaited and
    /// counted; a second signal ends the wait.
    pub(crate) async fn drive(&mut self, lines: &mut Lines, signals: &mut Signals) -> anyhow::Result<()> {
        let (settings, progress) = (self.settings, self.progress);
        let mut in_flight = FuturesUnordered::new();
        let mut events_in_flight = 0;
        let mut ticks = interval_at(Instant::now() + progress::LINE_INTERVAL, progress::LINE_INTERVAL);
        let mut is_end = false;
        loop {
            let may_begin = !is_end && self.failure.is_none() && in_flight.len() < settings.concurrency;
            if !may_begin && in_flight.is_empty() {
                break;
            }
            select! {
                biased;
                signal = signals.next() => {
                    if self.failure.is_some() {
                        self.tally.unknown += events_in_flight;
                        break;
                    }
                    self.fail(anyhow!("ended by {signal}"));
                }
                _ = ticks.tick() => progress.line(|| self.tally.done()),
                Some((batch, outcome)) = in_flight.next(), if !in_flight.is_empty() => {
                    events_in_flight -= batch_events(&batch);
                    if let Err(error) = self.sent(&batch, outcome) {
                        self.fail(error);
                    }
                    progress.answered(|| self.tally.done());
                }
                batch = lines.next(), if may_begin => match batch.and_then(|batch| self.read(batch)) {
                    Ok(Some(batch)) if batch.lines.is_empty() => {}
                    Ok(Some(batch)) => {
                        events_in_flight += batch_events(&batch);
                        in_flight.push(request(settings, progress, batch));
                    }
                    Ok(None) => is_end = true,
                    Err(error) => self.fail(error),
                },
            }
        }
        let written = self.rejects.end();
        self.failure.take().map_or(written, Err)
    }

    /// The first failure ends the run. Requests in flight finish the attempt that is under way.
    fn fail(&mut self, error: anyhow::Error) {
        self.settings.limits.stop.cancel();
        self.failure.get_or_insert(error);
    }

    /// Lists the lines of a request that are too long to be sent.
    fn read(&mut self, batch: Option<Batch>) -> anyhow::Result<Option<Batch>> {
        for line in batch.iter().flat_map(|batch| &batch.too_long) {
            self.tally.rejected += 1;
            self.rejects.list_too_long(*line, self.progress)?;
            if !self.settings.is_lenient {
                bail!("line {line} is too long to be an event");
            }
        }
        Ok(batch)
    }

    /// Counts what became of a request.
    fn sent(&mut self, batch: &Batch, outcome: Result<Answered, Unanswered>) -> anyhow::Result<()> {
        let lost_attempts = match &outcome {
            Ok(answered) => answered.lost_attempts,
            Err(unanswered) => unanswered.lost_attempts.saturating_sub(1),
        };
        self.tally.resent += batch_events(batch) * lost_attempts;
        match outcome {
            Ok(Answered { answer, .. }) => {
                let Some(rejected) = self.tally.answered(batch.lines.len(), &answer) else {
                    self.tally.unknown += batch_events(batch);
                    bail!("the answer for {} does not have one result per event", place(batch));
                };
                for result in rejected {
                    if let EventResult::Rejected(rejected) = result {
                        self.rejects
                            .list(batch, rejected.index, &rejected.errors, self.progress)?;
                    }
                }
                Ok(())
            }
            Err(Unanswered {
                error:
                    ClientError::Refused {
                        status: 422,
                        errors,
                        detail,
                    },
                ..
            }) => self.invalid(batch, &errors, &detail),
            Err(Unanswered { error, lost_attempts }) => {
                if lost_attempts > 0 || matches!(error, ClientError::Foreign { .. }) {
                    self.tally.unknown += batch_events(batch);
                }
                Err(error).with_context(|| format!("{} were not published", place(batch)))
            }
        }
    }

    /// Counts a request that was rejected for its lines: in a lenient run every line is invalid, otherwise at least one.
    fn invalid(&mut self, batch: &Batch, errors: &[ValidationError], detail: &str) -> anyhow::Result<()> {
        let Some(errors) = by_line(errors, batch.lines.len()) else {
            bail!(
                "{} were not published: rejected with status 422: {detail}",
                place(batch)
            );
        };
        let is_lenient = self.settings.is_lenient;
        for index in 0..batch.lines.len() {
            let errors = errors.get(&index);
            if is_lenient || errors.is_some() {
                self.tally.rejected += 1;
                let errors = errors.map(Vec::as_slice).unwrap_or_default();
                self.rejects.list(batch, index, errors, self.progress)?;
            }
        }
        if is_lenient {
            return Ok(());
        }
        let (place, invalid) = (place(batch), errors.len());
        match (batch.lines.len(), invalid) {
            (1, _) => bail!("{place} was not stored because it is invalid; --lenient skips invalid lines"),
            (_, 1) => bail!("{place} were not stored because one of them is invalid; --lenient skips invalid lines"),
            _ => bail!("{place} were not stored because {invalid} of them are invalid; --lenient skips invalid lines"),
        }
    }
}

/// Sends a request until it is answered.
async fn request(settings: &Settings, progress: &Progress, batch: Batch) -> (Batch, Result<Answered, Unanswered>) {
    let request = Request {
        body: batch.body.clone(),
        content_type: NDJSON,
        prefer: Some(if settings.is_lenient { LENIENT } else { STRICT }),
    };
    let retrying = |error: &_| progress.retrying(error);
    let outcome = send(&settings.client, &request, &settings.limits, retrying).await;
    (batch, outcome)
}

fn batch_events(batch: &Batch) -> u64 {
    batch.lines.len() as u64
}

/// The lines of a request, as a person would look for them.
fn place(batch: &Batch) -> String {
    match batch.lines.as_slice() {
        [] => "no lines".to_owned(),
        [line] => format!("line {line}"),
        [first, .., last] => format!("lines {first} to {last}"),
    }
}
