//! `eventsieve ls`: lists events.

use std::num::NonZeroU64;

use anyhow::{Context, Result};
use clap::ValueEnum;
use clap::builder::FalseyValueParser;

use super::event_text;
use crate::cli::print::{note, print};
use crate::cli::since::Since;
use crate::cli::table::count;
use crate::cli::target::TargetArgs;
use crate::client::events::EventLines;
use crate::client::{self, Client, ClientError};

const EVENTS: &str = "the events";

/// How much is printed at a time.
const PRINTED_BYTES: usize = 64 << 10;

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
        let reading = || format!("cannot read from {}", client.target());
        let mut lines = self.lines(&client).await.with_context(reading)?;
        let (mut found, mut text) = (Vec::new(), String::new());
        let mut listed = 0;
        while let Some(event) = lines.next().await.with_context(reading)? {
            listed += 1;
            if !self.json {
                found.push(event);
                continue;
            }
            text.push_str(&event.line);
            text.push('\n');
            if text.len() > PRINTED_BYTES && !print(&std::mem::take(&mut text), EVENTS)? {
                return Ok(());
            }
        }
        if !self.json {
            let events: Vec<_> = found.iter().filter_map(|event| event_text::read(&event.line)).collect();
            text = event_text::table(&events);
        }
        print(&text, EVENTS)?;
        if listed == self.limit.get() {
            note(&format!(
                "the list ends at --limit {}; there may be more events",
                count(listed)
            ));
        }
        Ok(())
    }

    async fn lines(&self, client: &Client) -> Result<EventLines, ClientError> {
        let is_reverse = self.reverse || self.order == Order::Desc;
        let parameters = [
            ("topic", self.topic.clone()),
            ("source", self.source.clone()),
            ("event_id", self.event_id.clone()),
            ("since", self.since.map(|time| time.to_string())),
            ("until", self.until.map(|time| time.to_string())),
            ("order", is_reverse.then(|| "desc".to_owned())),
            ("limit", Some(self.limit.to_string())),
        ];
        let query: Vec<(&str, &str)> = parameters
            .iter()
            .filter_map(|(name, value)| Some((*name, value.as_deref()?)))
            .collect();
        client.lines(&query).await
    }
}
