//! `eventsieve stats`: prints the statistics of a running service, once or every second.

pub(crate) mod table;

use std::io::{IsTerminal, Write, stdout};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use clap::builder::FalseyValueParser;
use tokio::select;
use tokio::time::{MissedTickBehavior, interval};

use rustix::termios::tcgetwinsize;

use self::table::table;
use crate::api::stats::Stats;
use crate::cli::print::{note, print};
use crate::cli::target::TargetArgs;
use crate::cli::text::cut;
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
#[command(
    after_help = "Examples:\n  eventsieve stats --url http://127.0.0.1:8080\n  eventsieve stats --watch\n  eventsieve stats --json | jq .unique_processed"
)]
pub(crate) struct Args {
    #[command(flatten)]
    target: TargetArgs,
    /// Print the table every second until Ctrl-C: in place on a terminal, else one after another
    #[arg(long, env = "EVENTSIEVE_STATS_WATCH", value_parser = FalseyValueParser::new())]
    watch: bool,
    /// Print what the service answers, as JSON in one line
    #[arg(long, env = "EVENTSIEVE_STATS_JSON", value_parser = FalseyValueParser::new())]
    json: bool,
}

impl Args {
    /// Prints the table on standard output.
    pub(crate) async fn run(self) -> Result<()> {
        let client = Client::new(self.target.target()?, client::CALL_TIMEOUT)?;
        if self.watch {
            return self.watch(&client).await;
        }
        let stats = client.stats().await.map_err(|error| match error {
            ClientError::Retryable { reason, .. } => anyhow!(
                "cannot reach {}: {reason}; start the service, or name another one with --url",
                client.target()
            ),
            error => error.into(),
        })?;
        print(&self.shown(&stats)?, "the table").map(drop)
    }

    fn shown(&self, stats: &Stats) -> Result<String> {
        if self.json {
            return Ok(serde_json::to_string(stats).context("cannot write JSON")? + "\n");
        }
        Ok(table(stats))
    }

    /// Prints the statistics, or why there are none, every second until a signal.
    async fn watch(&self, client: &Client) -> Result<()> {
        let mut signals = Signals::listen().context("cannot install signal handlers")?;
        // Lines of JSON are for a program, also where a person looks on.
        let is_in_place = stdout().is_terminal() && !self.json;
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
                    Ok(stats) => self.shown(&stats)?,
                    Err(ClientError::Retryable { reason, .. }) => {
                        let line = format!("cannot reach {}: {reason}; retrying\n", client.target());
                        if self.json {
                            note(line.trim_end());
                            continue;
                        }
                        line
                    }
                    Err(error) => return Err(error.into()),
                },
            };
            let shown = if is_in_place {
                write!(stdout(), "{CLEAR}").context("cannot clear the terminal")?;
                fitting(&shown)
            } else if self.json {
                shown
            } else {
                shown + "\n"
            };
            if !print(&shown, "the table")? {
                return Ok(());
            }
        }
    }
}

/// As much of a text as the terminal shows at once, with the cursor in the line below it: a line that is too long, or one too many, would
/// move the rest up.
fn fitting(text: &str) -> String {
    let Ok(size) = tcgetwinsize(stdout()) else {
        return text.to_owned();
    };
    fitting_into(text, usize::from(size.ws_row), usize::from(size.ws_col))
}

/// A terminal that does not know its size says 0.
fn fitting_into(text: &str, rows: usize, columns: usize) -> String {
    let unknown = |size: usize| if size == 0 { usize::MAX } else { size };
    let lines = text.lines().take(unknown(rows).saturating_sub(1).max(1));
    lines.map(|line| cut(line, unknown(columns)) + "\n").collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_is_cut_to_the_terminal() {
        let text = "received  1\nunique  2\n  a-very-long-topic  3\n";
        assert_eq!(fitting_into(text, 3, 10), "received …\nunique  2\n");
        assert_eq!(fitting_into(text, 0, 0), text);
        assert_eq!(fitting_into(text, 1, 80), "received  1\n");
    }
}
