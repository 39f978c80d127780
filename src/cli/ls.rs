//! `eventsieve ls`: lists events.

use std::io::{ErrorKind, Write, stdout};
use std::num::NonZeroU64;

use anyhow::{Context, Result};
use clap::ValueEnum;
use clap::builder::FalseyValueParser;

use super::event_text;
use crate::api::events::LIMIT_MAX;
use crate::cli::since::Since;
use crate::cli::table::count;
use crate::cli::target::TargetArgs;
use crate::client::events::EventText;
use crate::client::{self, Client};

/// List stored events, the oldest first
///
/// The filters are those of GET /events. A table shows the beginning of each payload; --json prints whole events, one per line.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  eventsieve ls --reverse --limit 20\n  eventsieve ls --topic order.created --since 10m --json\n  eventsieve ls --since 2025-10-24T00:00:00Z --until 2025-10-25T00:00:00Z"
)]
pub(crate) struct Args {
    #[command(flatten)]
    target: TargetArgs,
    /// List only events of this topic
    #[arg(long, env = "EVENTSIEVE_LS_TOPIC", value_name = "NAME")]
    topic: Option<String>,
    /// List only events of this source
    #[arg(long, env = "EVENTSIEVE_LS_SOURCE", value_name = "NAME")]
    source: Option<String>,
    /// List only events with this id
    #[arg(long, env = "EVENTSIEVE_LS_EVENT_ID", value_name = "ID")]
    event_id: Option<String>,
    /// List only events whose timestamp is not before this time: RFC 3339, or a duration before now, such as 10m
    #[arg(long, env = "EVENTSIEVE_LS_SINCE", value_name = "TIME")]
    since: Option<Since>,
    /// List only events whose timestamp is before this time: RFC 3339, or a duration before now, such as 10m
    #[arg(long, env = "EVENTSIEVE_LS_UNTIL", value_name = "TIME")]
    until: Option<Since>,
    /// Order of the log: the oldest event first, or the newest
    #[arg(long, env = "EVENTSIEVE_LS_ORDER", value_enum, default_value_t = Order::Asc)]
    order: Order,
    /// List the newest event first, as --order desc does
    #[arg(long, env = "EVENTSIEVE_LS_REVERSE", value_parser = FalseyValueParser::new())]
    reverse: bool,
    /// Maximum number of events
    #[arg(long, env = "EVENTSIEVE_LS_LIMIT", value_name = "COUNT", default_value_t = NonZeroU64::new(100).expect("100 is not 0"))]
    limit: NonZeroU64,
    /// Print whole events as JSON, one per line, exactly as the service sends them
    #[arg(long, env = "EVENTSIEVE_LS_JSON", value_parser = FalseyValueParser::new())]
    json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Order {
    /// The oldest event first
    Asc,
    /// The newest event first
    Desc,
}

impl Args {
    /// Prints the events on standard output.
    pub(crate) async fn run(self) -> Result<()> {
        let client = Client::new(self.target.target()?, client::CALL_TIMEOUT)?;
        let mut listed: Vec<EventText> = Vec::new();
        let mut offset = 0;
        let mut left = self.limit.get();
        // A page may end early, so only an empty one is the last.
        while left > 0 {
            let page = self.page(&client, offset, left.min(u64::from(LIMIT_MAX))).await?;
            if page.is_empty() {
                break;
            }
            offset += page.len() as u64;
            left = left.saturating_sub(page.len() as u64);
            if !self.json {
                listed.extend(page);
            } else if !print_lines(&page)? {
                return Ok(());
            }
        }
        if !self.json {
            let events: Vec<_> = listed
                .iter()
                .filter_map(|event| event_text::read(&event.line))
                .collect();
            print(&event_text::table(&events))?;
        }
        if left == 0 {
            eprintln!("the list ends at --limit {}; there may be more events", count(offset));
        }
        Ok(())
    }

    async fn page(&self, client: &Client, offset: u64, limit: u64) -> Result<Vec<EventText>> {
        let is_reverse = self.reverse || self.order == Order::Desc;
        let parameters = [
            ("topic", self.topic.clone()),
            ("source", self.source.clone()),
            ("event_id", self.event_id.clone()),
            ("since", self.since.map(|time| time.to_string())),
            ("until", self.until.map(|time| time.to_string())),
            ("order", is_reverse.then(|| "desc".to_owned())),
            ("offset", Some(offset.to_string())),
            ("limit", Some(limit.to_string())),
        ];
        let query: Vec<(&str, &str)> = parameters
            .iter()
            .filter_map(|(name, value)| Some((*name, value.as_deref()?)))
            .collect();
        let page = client.page(&query).await;
        let page = page.with_context(|| format!("cannot read from {}", client.target()))?;
        Ok(page.events)
    }
}

/// Prints whole events. False when the reader of the output has gone.
fn print_lines(events: &[EventText]) -> Result<bool> {
    let lines: String = events.iter().map(|event| format!("{}\n", event.line)).collect();
    print(&lines)
}

fn print(text: &str) -> Result<bool> {
    match stdout().write_all(text.as_bytes()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(error).context("cannot print the events"),
    }
}
