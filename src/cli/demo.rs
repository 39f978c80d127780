//! `eventsieve demo`: the whole service in this process, on a temporary store, with events to look at.

mod folder;
mod statistics;
mod trickle;

use std::io::{self, ErrorKind};
use std::num::NonZeroU64;
use std::pin::pin;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use chrono::Utc;
use clap::builder::FalseyValueParser;
use tokio::select;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use self::folder::Folder;
use crate::cli::error::UsageError;
use crate::cli::load::generator::Generator;
use crate::cli::load::plan::{Plan, Times};
use crate::cli::load::run::{Run, paced};
use crate::cli::print::print;
use crate::cli::stats::table::table;
use crate::cli::table::count;
use crate::cli::target;
use crate::client::{self, Client, target::Target};
use crate::config::Config;
use crate::http::Phase;
use crate::lifecycle::Signals;
use crate::serve::Service;
use crate::telemetry;

/// The log filter where `RUST_LOG` is not set. The command itself prints what goes well.
const LOG_FILTER: &str = "warn";

/// The default port, unless it is taken.
const PORT: u16 = 8080;

/// How many events are published.
const EVENTS: u64 = 20_000;

/// How many of them are duplicates.
const DUPLICATES: u64 = 6_000;

/// How many topics they are spread over.
const TOPICS: NonZeroU64 = NonZeroU64::new(4).expect("4 is not 0");

/// How many events a request has.
const BATCH_SIZE: u64 = 50;

/// How many requests are in flight at a time.
const CONCURRENCY: usize = 8;

/// How long an interrupted demo waits until its store is open; a disk that hangs must not keep it.
const OPENING_MAX: Duration = Duration::from_secs(5);

/// Try eventsieve: start a service on a temporary store, publish to it, and check the statistics
///
/// Publishes 20 000 events, of which 30 % are duplicates, checks that every event was stored and counted exactly once, and then serves
/// the dashboard and publishes a few events a second until Ctrl-C. The store is a new directory in data/ of the current directory, and
/// is removed at the end. Of the environment, only HOST, PORT, EVENTSIEVE_DEMO_EXIT, RUST_LOG and LOG_FORMAT are read.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  eventsieve demo\n  eventsieve demo --port 9000 --exit")]
pub(crate) struct Args {
    /// Address to listen on
    #[arg(long, env = "HOST", default_value = "127.0.0.1")]
    host: String,
    /// Port to listen on; 0 chooses a free port; without it, 8080, or a free port if 8080 is taken
    #[arg(long, env = "PORT")]
    port: Option<u16>,
    /// Exit after checking the statistics, with exit code 1 if any is wrong
    #[arg(long, env = "EVENTSIEVE_DEMO_EXIT", value_parser = FalseyValueParser::new())]
    exit: bool,
}

impl Args {
    /// Runs the demonstration, and prints on standard output what it shows. With `--exit` it is an error when it is interrupted before
    /// the check.
    pub(crate) async fn run(self) -> Result<()> {
        telemetry::start(LOG_FILTER).map_err(UsageError)?;
        let mut signals = Signals::listen().context("cannot install signal handlers")?;
        // The directory is removed also when the terminal is closed.
        let mut hangup = signal(SignalKind::hangup()).context("cannot install signal handlers")?;
        say("starting eventsieve on a fresh SQLite store\n")?;
        let folder = Folder::new().context("cannot create a directory for the store in data")?;
        let service = self.bind(&folder).await?;
        let target = target::reached_at(&service.address().ip().to_string(), service.address().port())?;
        say(&format!(
            "the store is in {folder}, the dashboard at {target}/dashboard\n"
        ))?;
        let phase = service.phase();
        let mut opening = service.phase();
        let stop = CancellationToken::new();
        let mut running = pin!(service.run(stop.clone()));
        let outcome = select! {
            ended = &mut running => return ended,
            shown = self.show(target, phase) => shown,
            _ = signals.next() => self.interrupted(),
            _ = hangup.recv() => self.interrupted(),
        };
        // A thread that opens the store cannot be interrupted, and would create the removed directory again.
        let opened = timeout(OPENING_MAX, opening.wait_for(|phase| *phase == Phase::Serving));
        select! {
            ended = &mut running => return ended,
            _ = opened => {}
        }
        stop.cancel();
        select! {
            ended = running => ended?,
            signal = signals.next() => bail!("stopped immediately by a second signal ({signal})"),
        }
        let removed = format!("stopped, and {folder} is removed\n");
        folder.remove().context("cannot remove the directory of the store")?;
        outcome.and_then(|()| say(&removed))
    }

    /// The service, listening where it was asked to, or where it may.
    async fn bind(&self, folder: &Folder) -> Result<Service> {
        let config = |port| Config::with_defaults(&folder.database_url(), &self.host, port).map_err(UsageError::from);
        let bound = Service::bind(config(self.port.unwrap_or(PORT))?).await;
        match bound {
            Err(error) if self.port.is_none() && is_taken(&error) => {
                say(&format!(
                    "port {PORT} is taken, so the service listens on another one\n"
                ))?;
                Service::bind(config(0)?).await
            }
            bound => bound,
        }
    }

    /// Publishes, prints the statistics and checks them, once the service serves. Then goes on publishing, unless it is to end.
    async fn show(&self, target: Target, mut phase: watch::Receiver<Phase>) -> Result<()> {
        phase.wait_for(|phase| *phase == Phase::Serving).await?;
        let client = Client::new(target, client::CALL_TIMEOUT)?;
        let plan = plan();
        say(&format!(
            "publishing {} events, {} of them duplicates\n",
            count(EVENTS),
            count(DUPLICATES)
        ))?;
        let run = Run::new(client.clone(), EVENTS, None);
        let begun = Instant::now();
        let outcome = run
            .drive(paced(Generator::new(plan, BATCH_SIZE), None), CONCURRENCY)
            .await;
        let tally = run.end();
        outcome?;
        say(&format!("published in {:.1} s\n", begun.elapsed().as_secs_f64()))?;
        let stats = client.stats().await?;
        let error = statistics::error(&stats, &plan, tally.resent());
        say(&format!(
            "\n{}\n{}\n",
            table(&stats),
            statistics::sum(&stats, error.is_none())
        ))?;
        if let Some(error) = error {
            bail!("the statistics are wrong: {error}");
        }
        tally.verify(&plan)?;
        if self.exit {
            return Ok(());
        }
        say(&format!(
            "\na few events a second go on until Ctrl-C\nsee them on the dashboard: {}/dashboard\n",
            client.target()
        ))?;
        trickle::publish(&client, plan, now_ms).await.map_err(Into::into)
    }

    /// What a signal means: with `--exit`, that the check has not been made.
    fn interrupted(&self) -> Result<()> {
        if self.exit {
            bail!("interrupted before the statistics were checked");
        }
        Ok(())
    }
}

/// Events of the last seconds.
fn plan() -> Plan {
    Plan {
        events: EVENTS,
        duplicates: DUPLICATES,
        topics: TOPICS,
        seed: rand::random(),
        times: Times::with(EVENTS - DUPLICATES, now_ms()),
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the client's clock makes the timestamps of events, as a client's own would"
)]
fn now_ms() -> i64 {
    Utc::now().timestamp_millis()
}

fn is_taken(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<io::Error>()
        .is_some_and(|error| error.kind() == ErrorKind::AddrInUse)
}

fn say(text: &str) -> Result<()> {
    print(text, "what happens").map(drop)
}
