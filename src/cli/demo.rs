//! `eventsieve demo`: the whole service in this process, on a store that is thrown away, with events to look at.

mod folder;
pub mod statistics;

use std::future::pending;
use std::io::{self, ErrorKind, Write, stdout};
use std::num::NonZeroU64;
use std::pin::pin;

use anyhow::{Context, Result, bail};
use clap::builder::FalseyValueParser;
use tokio::select;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::folder::Folder;
use crate::cli::load::batch::{Generator, Source};
use crate::cli::load::plan::Plan;
use crate::cli::load::run::{Run, paced};
use crate::cli::stats::table::{grouped, table};
use crate::cli::{UsageError, target};
use crate::client::{self, Client, target::Target};
use crate::config::Config;
use crate::http::Phase;
use crate::lifecycle::Signals;
use crate::serve::Service;
use crate::telemetry;

/// What is logged without `RUST_LOG`: the demonstration tells itself what goes well.
const LOG_FILTER: &str = "warn";

/// The port where none is asked for, unless it is taken.
const PORT: u16 = 8080;

/// How many events are published.
const EVENTS: u64 = 20_000;

/// How many of them are duplicates.
const DUPLICATES: u64 = 6_000;

/// How many topics they are spread over.
const TOPICS: NonZeroU64 = NonZeroU64::new(4).expect("4 is not 0");

/// How many events a request has.
const BATCH_SIZE: u64 = 50;

/// How many requests are on their way at a time.
const CONCURRENCY: usize = 8;

/// Try it: start a service on a fresh embedded store, publish to it, and check the figures
///
/// It publishes 20 000 events of which 30 % are duplicates, and goes on serving until Ctrl-C. The store is a new folder in data/ of the current
/// folder, and is removed at the end. Nothing else is touched; of the environment only HOST, PORT, RUST_LOG and LOG_FORMAT are read.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  eventsieve demo\n  eventsieve demo --port 9000 --exit")]
pub struct Args {
    /// The address to listen on
    #[arg(long, env = "HOST", default_value = "127.0.0.1")]
    host: String,
    /// The port to listen on; 0 takes a free one; without it, 8080, or a free one if that is taken
    #[arg(long, env = "PORT")]
    port: Option<u16>,
    /// End when the figures are checked instead of at Ctrl-C
    #[arg(long, env = "EVENTSIEVE_DEMO_EXIT", value_parser = FalseyValueParser::new())]
    exit: bool,
}

impl Args {
    /// Runs the demonstration, and tells on standard output what it shows.
    ///
    /// # Errors
    /// When a figure is off, when the service cannot run (a port that was asked for is taken, a folder that cannot be written to), and when it is
    /// interrupted before the check that `--exit` ends with.
    pub async fn run(self) -> Result<()> {
        telemetry::start(LOG_FILTER).map_err(UsageError)?;
        let mut signals = Signals::listen().context("the system refuses signal handlers")?;
        // Who closes the terminal leaves no folder behind either.
        let mut hangup = signal(SignalKind::hangup()).context("the system refuses signal handlers")?;
        say("starting eventsieve on a fresh SQLite store\n")?;
        let folder = Folder::new().context("cannot make a folder in data, where the store is to be")?;
        let service = self.bind(&folder).await?;
        let target = target::reached_at(&service.address().ip().to_string(), service.address().port())?;
        say(&format!(
            "the store is in {folder}, the dashboard at {target}/dashboard\n"
        ))?;
        let phase = service.phase();
        let stop = CancellationToken::new();
        let mut running = pin!(service.run(stop.clone()));
        let outcome = select! {
            ended = &mut running => return ended,
            shown = self.show(target, phase) => shown,
            _ = signals.next() => self.interrupted(),
            _ = hangup.recv() => self.interrupted(),
        };
        stop.cancel();
        select! {
            ended = running => ended?,
            signal = signals.next() => bail!("ended at once by a second signal, {signal}"),
        }
        let removed = format!("stopped, and {folder} is removed\n");
        folder.remove().context("cannot remove the folder of the store")?;
        outcome.and_then(|()| say(&removed))
    }

    /// The service, listening where it was asked to, or where it may.
    async fn bind(&self, folder: &Folder) -> Result<Service> {
        let config = |port| {
            Config::with_defaults(&folder.database_url(), &self.host, port)
                .map_err(|error| UsageError(error.to_string()))
        };
        let bound = Service::bind(config(self.port.unwrap_or(PORT))?).await;
        match bound {
            Err(error) if self.port.is_none() && is_taken(&error) => {
                say(&format!("port {PORT} is taken, so it listens on another one\n"))?;
                Service::bind(config(0)?).await
            }
            bound => bound,
        }
    }

    /// Publishes, shows the figures and checks them, once the service serves; then waits for ever, unless it is to end.
    async fn show(&self, target: Target, mut phase: watch::Receiver<Phase>) -> Result<()> {
        phase.wait_for(|phase| *phase == Phase::Serving).await?;
        let client = Client::new(target, client::CALL_TIMEOUT)?;
        let plan = Plan {
            events: EVENTS,
            duplicates: DUPLICATES,
            topics: TOPICS,
            seed: rand::random(),
        };
        say(&format!(
            "publishing {} events, {} of them duplicates\n",
            grouped(EVENTS),
            grouped(DUPLICATES)
        ))?;
        let run = Run::new(client.clone(), Some(EVENTS), None);
        let requests = paced(Source::Plan(Generator::new(plan, BATCH_SIZE)), None);
        let begun = Instant::now();
        let outcome = run.drive(requests, CONCURRENCY).await;
        let tally = run.end();
        outcome?;
        say(&format!("published in {:.1} s\n", begun.elapsed().as_secs_f64()))?;
        let stats = client.stats().await?;
        let fault = statistics::fault(&stats, &plan, tally.resent_after_stored());
        say(&format!(
            "\n{}\n{}\n",
            table(&stats),
            statistics::sum(&stats, fault.is_none())
        ))?;
        if let Some(fault) = fault {
            bail!("the figures are off: {fault}");
        }
        tally.verify(&plan)?;
        if !self.exit {
            say(&format!(
                "{0}/stats and {0}/events stay up until Ctrl-C\n",
                client.target()
            ))?;
            pending::<()>().await;
        }
        Ok(())
    }

    /// What a signal means: with `--exit`, that the check has not been made.
    fn interrupted(&self) -> Result<()> {
        if self.exit {
            bail!("interrupted before the figures were checked");
        }
        Ok(())
    }
}

fn is_taken(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<io::Error>()
        .is_some_and(|error| error.kind() == ErrorKind::AddrInUse)
}

fn say(text: &str) -> Result<()> {
    stdout()
        .write_all(text.as_bytes())
        .context("cannot write to standard output")
}
