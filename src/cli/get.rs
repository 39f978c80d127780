//! `eventsieve get`: prints one event.

use std::io::{Write, stdout};

use anyhow::{Context, Result, anyhow, bail};
use clap::builder::FalseyValueParser;

use super::event_text;
use crate::cli::target::TargetArgs;
use crate::cli::text::printable;
use crate::client::{self, Client};

/// Print one event
///
/// Ends with exit code 1 if there is no such event.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  eventsieve get order.created order-4711\n  eventsieve get order.created order-4711 --json"
)]
pub(crate) struct Args {
    #[command(flatten)]
    target: TargetArgs,
    /// Topic of the event
    topic: String,
    /// Id of the event
    event_id: String,
    /// Print the event as JSON, exactly as the service sends it
    #[arg(long, env = "EVENTSIEVE_GET_JSON", value_parser = FalseyValueParser::new())]
    json: bool,
}

impl Args {
    /// Prints the event on standard output. It is an error if there is none.
    pub(crate) async fn run(self) -> Result<()> {
        let client = Client::new(self.target.target()?, client::CALL_TIMEOUT)?;
        let query = [
            ("topic", self.topic.as_str()),
            ("event_id", self.event_id.as_str()),
            ("limit", "1"),
        ];
        let page = client.page(&query).await;
        let page = page.with_context(|| format!("cannot read from {}", client.target()))?;
        let Some(event) = page.events.first() else {
            bail!(
                "there is no event {} in topic {}",
                printable(&self.event_id),
                printable(&self.topic)
            );
        };
        let text = if self.json {
            format!("{}\n", event.line)
        } else {
            let event = event_text::read(&event.line).ok_or_else(|| anyhow!("the answer is not an event"))?;
            event_text::members(&event)
        };
        stdout().write_all(text.as_bytes()).context("cannot print the event")
    }
}
