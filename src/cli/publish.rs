//! `eventsieve publish`: sends the caller's events.
//!
//! Either one event from the arguments ([`event`]), or lines of NDJSON: these are read ([`lines`]), sent until they are answered, and
//! counted ([`run`], [`tally`]); invalid lines are listed ([`rejects`]).

pub(crate) mod event;
pub(crate) mod lines;
pub(crate) mod rejects;
pub(crate) mod run;
pub(crate) mod tally;

use std::fs;
use std::io::{IsTerminal, stdin};
use std::time::Duration;

use anyhow::Context;
use clap::builder::FalseyValueParser;
use clap::value_parser;

use self::event::Given;
use self::lines::Lines;
use self::rejects::Rejects;
use self::run::{Run, Settings};
use crate::cli::error::UsageError;
use crate::cli::print::print;
use crate::cli::progress::Progress;
use crate::cli::send::RetryLimits;
use crate::client::{self, Client, target::Target};
use crate::lifecycle::Signals;

/// Publish events: one from the arguments, or NDJSON from a file or standard input
///
/// Waits for the service to come up, and sends a request again until it is answered; nothing is stored twice. For one event, prints
/// its id if the command generated it. For NDJSON, which has one event per line, ends with a table: each event is `stored`,
/// `duplicate` (its topic and id were already stored), `conflicting` (a duplicate with another payload), `rejected` (invalid), or
/// `not sent`. An invalid line fails its whole request, whose other lines count as not sent, and no further request is sent; with
/// --lenient only the invalid lines are skipped. `resent` counts events that were sent again because an attempt received no
/// response; these may count as duplicates of themselves.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  eventsieve publish order.created '{\"total\": 44.8}'\n  eventsieve publish order.created '{\"total\": 44.8}' --id order-4711 --source shop\n  eventsieve publish --file events.ndjson.gz --lenient --rejects rejected.ndjson\n  tail -F events.ndjson | eventsieve publish"
)]
pub(crate) struct Args {
    /// Topic of the event
    #[arg(requires = "payload")]
    topic: Option<String>,
    /// Payload of the event: a JSON object
    payload: Option<String>,
    /// Id of the event, unique within its topic; without it, a new UUIDv7, which is printed
    #[arg(long, env = "EVENTSIEVE_PUBLISH_ID", value_name = "ID")]
    id: Option<String>,
    /// System that the event comes from [default: eventsieve]
    #[arg(long, env = "EVENTSIEVE_PUBLISH_SOURCE", value_name = "NAME")]
    source: Option<String>,
    /// Time at which the event happened (RFC 3339); without it, now
    #[arg(long, env = "EVENTSIEVE_PUBLISH_TIMESTAMP", value_name = "TIME")]
    timestamp: Option<String>,
    /// Header of the event, delivered with it; may be given several times
    #[arg(long = "header", env = "EVENTSIEVE_PUBLISH_HEADER", value_name = "NAME=VALUE", value_parser = event::header)]
    headers: Vec<(String, String)>,
    /// File of NDJSON to publish, decompressed if its name ends with .gz or .zst; - is standard input
    #[arg(long, env = "EVENTSIEVE_PUBLISH_FILE", value_name = "NAME")]
    file: Option<String>,
    /// Report and skip invalid lines instead of stopping at the first one
    #[arg(long, env = "EVENTSIEVE_PUBLISH_LENIENT", value_parser = FalseyValueParser::new())]
    lenient: bool,
    /// File to write rejected lines to, as NDJSON: the line's number, its errors and its text
    #[arg(long, env = "EVENTSIEVE_PUBLISH_REJECTS", value_name = "FILE")]
    rejects: Option<String>,
    /// Maximum number of events in one request; a smaller one is sent 100 ms after its first line was read
    #[arg(long, env = "EVENTSIEVE_PUBLISH_BATCH_SIZE", value_name = "COUNT", default_value_t = 500, value_parser = value_parser!(u16).range(1..))]
    batch_size: u16,
    /// Number of requests in flight at a time; more than 1 may store events in another order than that of the file
    #[arg(long, env = "EVENTSIEVE_PUBLISH_CONCURRENCY", value_name = "COUNT", default_value_t = 1, value_parser = value_parser!(u16).range(1..=1024))]
    concurrency: u16,
    /// How long to retry one request (such as 90s or 5m) before giving up; without it, for ever
    #[arg(long, env = "EVENTSIEVE_PUBLISH_WAIT", value_name = "TIME", value_parser = humantime::parse_duration)]
    wait: Option<Duration>,
    /// Base URL of the service
    #[arg(long, env = "TARGET_URL", default_value = "http://127.0.0.1:8080")]
    url: Target,
}

/// What is published.
enum Input {
    Event(Given),
    /// A file's name, or `-`.
    Lines(String),
}

impl Args {
    /// Publishes. The table of NDJSON is printed on standard output, also after a failure.
    pub(crate) async fn run(self) -> anyhow::Result<()> {
        let input = self.input(stdin().is_terminal())?;
        let client = Client::new(self.url.clone(), client::CALL_TIMEOUT)?;
        let limits = RetryLimits {
            patience: self.wait,
            ..RetryLimits::default()
        };
        match input {
            Input::Event(given) => event::publish(given, &client, &limits).await,
            Input::Lines(name) => {
                let settings = Settings {
                    client,
                    limits,
                    concurrency: usize::from(self.concurrency),
                    is_lenient: self.lenient,
                };
                self.lines(&name, &settings).await
            }
        }
    }

    async fn lines(&self, name: &str, settings: &Settings) -> anyhow::Result<()> {
        let mut lines = Lines::open(name, usize::from(self.batch_size)).await?;
        if self
            .rejects
            .as_deref()
            .is_some_and(|rejects| is_same_file(name, rejects))
        {
            return Err(
                UsageError("--rejects would overwrite the file that is read: name another one".to_owned()).into(),
            );
        }
        let rejects = Rejects::open(self.rejects.as_deref())?;
        let mut signals = Signals::listen().context("cannot install signal handlers")?;
        let progress = Progress::new(self.url.clone(), None);
        let mut run = Run::new(settings, &progress, rejects);
        let outcome = run.drive(&mut lines, &mut signals).await;
        progress.end();
        let events = lines.count_events().await;
        print(&run.tally().table(events).to_string(), "the table")?;
        outcome
    }

    fn input(&self, is_terminal: bool) -> Result<Input, UsageError> {
        let (event, file) = (self.topic.clone().zip(self.payload.clone()), self.file.clone());
        let event_flags =
            self.id.is_some() || self.source.is_some() || self.timestamp.is_some() || !self.headers.is_empty();
        let error = match (event, file) {
            (Some(_), Some(_)) => "give either TOPIC and PAYLOAD or --file, not both",
            (Some(_), None) if self.lenient || self.rejects.is_some() => {
                "--lenient and --rejects are for NDJSON: leave out TOPIC and PAYLOAD"
            }
            (Some((topic, payload)), None) => {
                return Ok(Input::Event(Given {
                    topic,
                    payload,
                    id: self.id.clone(),
                    source: self.source.clone(),
                    timestamp: self.timestamp.clone(),
                    headers: self.headers.clone(),
                }));
            }
            (None, _) if event_flags => {
                "--id, --source, --timestamp and --header describe one event: give TOPIC and PAYLOAD"
            }
            (None, Some(name)) => return Ok(Input::Lines(name)),
            (None, None) if is_terminal => {
                "there is nothing to publish: give TOPIC and PAYLOAD, or --file, or pipe NDJSON to standard input"
            }
            (None, None) => return Ok(Input::Lines("-".to_owned())),
        };
        Err(UsageError(error.to_owned()))
    }
}

fn is_same_file(one: &str, other: &str) -> bool {
    match (fs::canonicalize(one), fs::canonicalize(other)) {
        (Ok(one), Ok(other)) => one == other,
        _ => false,
    }
}

#[cfg(test)]
mod tests;
