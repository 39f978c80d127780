//! `eventsieve stats`: prints the statistics of a running service, once or every second.

pub(crate) mod table;

use std::io::{IsTerminal, Write, stdout};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use clap::builder::FalseyValueParser;
use tokio::select;
use tokio::time::{MissedTickBehavior, interval};

use self::table::table;
use crate::cli::target::TargetArgs;
use crate::client::{self, Client, ClientError};
use crate::lifecycle::Signals;

/// The time between two tables.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);

/// Moves the cursor of a terminal to its upper left corner and clears everything from there on (ECMA-48: CUP, ED).
const CLEAR: &str = "\x1b[H\x1b[J";

/// Print the statistics of a running service as a table
///
/// `received`, `unique`, `duplicates`, `conflicts`, `rows` and the topics describe the store: they are the same on every replica and
/// survive restarts. The other values describe the process that answers.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  eventsieve stats --url http://127.0.0.1:8080\n  eventsieve stats --watch")]
pub(crate) struct Args {
    #[command(flatten)]
    target: TargetArgs,
    /// Print the table every second until Ctrl-C: in place on a terminal, else one after another
    #[arg(long, env = "EVENTSIEVE_STATS_WATCH", value_parser = FalseyValueParser::new())]
    watch: bool,
}

impl Args {
    /// Prints the table on standard output.
    pub(crate) async fn run(self) -> Result<()> {
        let client = Client::new(self.target.target()?, client::CALL_TIMEOUT)?;
        if self.watch {
            return watch(&client).await;
        }
        let stats = client.stats().await.map_err(|error| match error {
            ClientError::Retryable { reason, .. } => anyhow!(
                "cannot reach {}: {reason}; start the service, or name another one with --url",
                client.target()
            ),
            error => error.into(),
        })?;
        print(&table(&stats))
    }
}

/// Prints a table, or why there is none, every second until a signal.
async fn watch(client: &Client) -> Result<()> {
    let mut signals = Signals::listen().context("cannot install signal handlers")?;
    let is_terminal = stdout().is_terminal();
    let mut turns = interval(WATCH_INTERVAL);
    turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let stats = async {
            turns.tick().await;
            client.stats().await
        };
        let shown = select! {
            _ = signals.next() => return Ok(()),
            stats = stats => match stats {
                Ok(stats) => table(&stats),
                Err(ClientError::Retryable { reason, .. }) => {
                    format!("cannot reach {}: {reason}; retrying\n", client.target())
                }
                Err(error) => return Err(error.into()),
            },
        };
        print(&if is_terminal {
            format!("{CLEAR}{shown}")
        } else {
            format!("{shown}\n")
        })?;
    }
}

fn print(text: &str) -> Result<()> {
    let mut out = stdout();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .context("cannot print the table")
}
