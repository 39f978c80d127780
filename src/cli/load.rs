//! `eventsieve load`: the load generator, and a loader for files.
//!
//! A plan or a file becomes requests ([`batch`]); each is sent until it is answered ([`send`]), several at a time; the answers are added up and held against
//! the plan ([`tally`]); [`run`] is all of that. The service may be killed and started again at any moment meanwhile.

pub mod batch;
pub mod latency;
pub mod plan;
pub mod progress;
pub mod run;
pub mod sample;
pub mod send;
pub mod span;
pub mod tally;

use std::{io::Write, num::NonZeroU64, time::Duration};

use anyhow::{Context, bail};
use clap::value_parser;
use tokio::{
    select,
    signal::unix::{SignalKind, signal},
};

use self::{
    batch::{Generator, Lines, Source},
    plan::Plan,
    run::{Run, paced},
};
use crate::{
    cli::UsageError,
    client::{self, Client, target::Target},
};

/// Publish made-up events, a part of them duplicates, or the lines of a file, and check that the answers add up
///
/// Waits for the service to come up, and sends a request again until it is answered, so that the service may be stopped, killed or
/// restarted meanwhile. The table at the end counts each event once under `sent`, `unique` and `duplicates`. `resent` are the events
/// that were sent again because an attempt got no answer; `resent after stored` are those of them that the service got all the
/// same, so that it counts them as received, and as duplicates, once more: as far as the answers tell, for an attempt without an
/// answer may still be on its way.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  eventsieve load --events 100000 --batch-size 500\n  eventsieve load --file events.ndjson"
)]
pub struct Args {
    /// Base URL of the service
    #[arg(long, env = "TARGET_URL", default_value = "http://127.0.0.1:8080")]
    url: Target,
    /// How many events to publish, duplicates included
    #[arg(long, env = "TOTAL_EVENTS", value_name = "COUNT", default_value_t = 20_000)]
    events: u64,
    /// Which part of the events are duplicates of earlier ones: at least 0, below 1
    #[arg(long, env = "DUPLICATE_RATE", value_name = "PART", default_value_t = 0.3, value_parser = duplicate_rate)]
    duplicate_rate: f64,
    /// How many events to send in one request; 1 sends single events
    #[arg(long, env = "BATCH_SIZE", value_name = "COUNT", default_value_t = 50, value_parser = value_parser!(u64).range(1..=100_000))]
    batch_size: u64,
    /// How many requests to have on their way at a time
    #[arg(long, env = "CONCURRENCY", value_name = "COUNT", default_value_t = 8, value_parser = value_parser!(u16).range(1..=4096))]
    concurrency: u16,
    /// How many topics to spread the events over
    #[arg(long, env = "EVENTSIEVE_LOAD_TOPICS", value_name = "COUNT", default_value_t = NonZeroU64::new(4).expect("4 is not 0"))]
    topics: NonZeroU64,
    /// How many events to publish a second, at most; without it, as many as the service takes
    #[arg(long, env = "EVENTSIEVE_LOAD_RATE", value_name = "COUNT")]
    rate: Option<NonZeroU64>,
    /// Number that all events follow from: the same seed sends the same events again; without it, other events are sent each time
    #[arg(long, env = "EVENTSIEVE_LOAD_SEED", value_name = "NUMBER")]
    seed: Option<u64>,
    /// Publish the lines of this NDJSON file instead of made-up events; - reads standard input
    #[arg(long, env = "EVENTSIEVE_LOAD_FILE", value_name = "NAME")]
    file: Option<String>,
    /// How long to try to get one request answered (such as 90s or 5m) before giving up; without it, for ever
    #[arg(long, env = "EVENTSIEVE_LOAD_WAIT", value_name = "TIME", value_parser = humantime::parse_duration)]
    wait: Option<Duration>,
}

fn duplicate_rate(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(rate) if (0.0..1.0).contains(&rate) => Ok(rate),
        _ => Err("give a number that is at least 0 and below 1".to_owned()),
    }
}

impl Args {
    /// Publishes everything, and prints the table on standard output.
    ///
    /// # Errors
    /// When the answers do not add up, when a request is refused for good, when a request is not answered for too long, and when a signal ended the run; the table
    /// is printed in these cases, too.
    pub async fn run(self) -> anyhow::Result<()> {
        let plan = if self.file.is_none() { Some(self.plan()?) } else { None };
        let client = Client::new(self.url.clone(), client::CALL_TIMEOUT)?;
        let source = self.source(plan).await?;
        eprintln!("{}", self.headline(plan));
        let run = Run::new(client, plan.map(|plan| plan.events), self.wait);
        let requests = paced(source, self.rate);
        let outcome = select! {
            biased;
            signal = stopped() => signal.map_err(Into::into).and_then(|signal| bail!("{signal}, with {} events on their way", run.events_in_flight())),
            outcome = run.drive(requests, usize::from(self.concurrency)) => outcome,
        };
        let tally = run.end();
        write!(std::io::stdout(), "{}", tally.table(plan.as_ref())).context("cannot print the table")?;
        outcome?;
        plan.map_or(Ok(()), |plan| tally.verify(&plan)).map_err(Into::into)
    }

    fn plan(&self) -> Result<Plan, UsageError> {
        let duplicates = plan::duplicates(self.events, self.duplicate_rate)?;
        let seed = self.seed.unwrap_or_else(rand::random);
        Ok(Plan {
            events: self.events,
            duplicates,
            topics: self.topics,
            seed,
        })
    }

    async fn source(&self, plan: Option<Plan>) -> anyhow::Result<Source> {
        match (plan, &self.file) {
            (Some(plan), _) => Ok(Source::Plan(Generator::new(plan, self.batch_size))),
            (None, Some(name)) => Ok(Source::File(Lines::open(name, self.batch_size).await?)),
            (None, None) => bail!("there is nothing to publish"),
        }
    }

    fn headline(&self, plan: Option<Plan>) -> String {
        let what = match (plan, &self.file) {
            (Some(plan), _) => {
                format!(
                    "{} events, {} of them duplicates, seed {},",
                    plan.events, plan.duplicates, plan.seed
                )
            }
            (None, name) => name
                .as_deref()
                .filter(|name| *name != "-")
                .unwrap_or("standard input")
                .to_owned(),
        };
        format!(
            "publishing {what} to {}, {} a request, {} requests at a time",
            self.url, self.batch_size, self.concurrency
        )
    }
}

/// Waits for a signal to end, and names it.
async fn stopped() -> std::io::Result<&'static str> {
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    select! {
        _ = interrupt.recv() => Ok("interrupted"),
        _ = terminate.recv() => Ok("terminated"),
    }
}

#[cfg(test)]
mod tests;
