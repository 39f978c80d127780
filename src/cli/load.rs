//! `eventsieve load`: the load generator.
//!
//! A plan ([`plan`]) becomes requests ([`generator`]); each is sent until it is answered ([`crate::cli::send`]), several at a time;
//! the answers are added up and compared with the plan ([`tally`]); [`run`] does all of that. The service may be killed and started
//! again at any moment meanwhile.

pub(crate) mod generator;
pub(crate) mod plan;
pub(crate) mod run;
pub(crate) mod sample;
pub(crate) mod tally;

use std::{num::NonZeroU64, time::Duration};

use anyhow::Context;
use clap::value_parser;
use tokio::select;

use self::{
    generator::Generator,
    plan::{Plan, Times},
    run::{Run, paced},
};
use crate::cli::print::{note, print};
use crate::{
    cli::{error::UsageError, table::count},
    client::{self, Client, target::Target},
    lifecycle::Signals,
};

/// Publish generated events, some of them duplicates, and check that the responses add up
///
/// Waits for the service to come up, and sends a request again until it is answered, so the service may be stopped, killed or
/// restarted meanwhile. The table at the end counts each event once under `sent`, `unique` and `duplicates`. `resent` counts
/// events that were sent again because an attempt received no response. The service may have received them all the same; it then
/// counts them as received, and as duplicates, once more.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  eventsieve load --events 100000 --batch-size 500\n  eventsieve load --rate 200 --duplicate-rate 0.5 --url http://127.0.0.1:8080"
)]
pub(crate) struct Args {
    /// Base URL of the service
    #[arg(long, env = "TARGET_URL", default_value = "http://127.0.0.1:8080")]
    url: Target,
    /// Number of events to publish, duplicates included
    #[arg(long, env = "TOTAL_EVENTS", value_name = "COUNT", default_value_t = 20_000)]
    events: u64,
    /// Fraction of the events that are duplicates of earlier ones: at least 0, below 1
    #[arg(long, env = "DUPLICATE_RATE", value_name = "FRACTION", default_value_t = 0.3, value_parser = duplicate_rate)]
    duplicate_rate: f64,
    /// Number of events in one request; 1 sends single events
    #[arg(long, env = "BATCH_SIZE", value_name = "COUNT", default_value_t = 50, value_parser = value_parser!(u64).range(1..=100_000))]
    batch_size: u64,
    /// Number of requests in flight at a time
    #[arg(long, env = "CONCURRENCY", value_name = "COUNT", default_value_t = 8, value_parser = value_parser!(u16).range(1..=4096))]
    concurrency: u16,
    /// Number of topics to spread the events over
    #[arg(long, env = "EVENTSIEVE_LOAD_TOPICS", value_name = "COUNT", default_value_t = NonZeroU64::new(4).expect("4 is not 0"))]
    topics: NonZeroU64,
    /// Maximum number of events per second; without it, as many as the service accepts
    #[arg(long, env = "EVENTSIEVE_LOAD_RATE", value_name = "COUNT")]
    rate: Option<NonZeroU64>,
    /// Seed of the generated events: the same seed sends the same events; without it, each run sends different ones
    #[arg(long, env = "EVENTSIEVE_LOAD_SEED", value_name = "NUMBER")]
    seed: Option<u64>,
    /// How long to retry one request (such as 90s or 5m) before giving up; without it, for ever
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
    /// Publishes everything, and prints the table on standard output, also when the run fails: when the answers do not add up, when
    /// a request is rejected or not answered in time, and when a signal ends the run.
    pub(crate) async fn run(self) -> anyhow::Result<()> {
        let plan = self.plan()?;
        let client = Client::new(self.url.clone(), client::CALL_TIMEOUT)?;
        let mut signals = Signals::listen().context("cannot install signal handlers")?;
        note(&self.headline(&plan));
        let run = Run::new(client, plan.events, self.wait);
        let requests = paced(Generator::new(plan, self.batch_size), self.rate);
        let outcome = select! {
            biased;
            signal = signals.next() => Err(interrupted(signal, run.events_in_flight())),
            outcome = run.drive(requests, usize::from(self.concurrency)) => outcome,
        };
        let tally = run.end();
        print(&tally.table(&plan).to_string(), "the table")?;
        outcome?;
        tally.verify(&plan).map_err(Into::into)
    }

    fn plan(&self) -> Result<Plan, UsageError> {
        let duplicates = plan::duplicates(self.events, self.duplicate_rate)?;
        let seed = self.seed.unwrap_or_else(rand::random);
        Ok(Plan {
            events: self.events,
            duplicates,
            topics: self.topics,
            seed,
            times: Times::FIXED,
        })
    }

    fn headline(&self, plan: &Plan) -> String {
        format!(
            "publishing {} events, {} of them duplicates, seed {}, to {}: {} per request, {} requests in flight",
            count(plan.events),
            count(plan.duplicates),
            plan.seed,
            self.url,
            self.batch_size,
            self.concurrency
        )
    }
}

fn interrupted(signal: &str, in_flight: u64) -> anyhow::Error {
    anyhow::anyhow!(
        "ended by {signal}; the outcome of {} events in flight is unknown",
        count(in_flight)
    )
}

#[cfg(test)]
mod tests;
