//! `eventsieve get`: prints one event.

use anyhow::{Context, Result, anyhow, bail};
use clap::builder::FalseyValueParser;

use super::event_text;
use crate::cli::print::print;
use crate::cli::target::TargetArgs;
use crate::cli::text::printable;
use crate::client::{self, Client, ClientError};

/// Print one event
///
/// Ends with exit code 1 if there is no such event, or if it has expired.
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
        let event = match client.event(&self.topic, &self.event_id).await {
            Ok(event) => event,
            Err(ClientError::Refused { status: 404, .. }) => bail!(
                "there is no event {} in topic {}",
                printable(&self.event_id),
                printable(&self.topic)
            ),
            Err(ClientError::Refused { status: 410, .. }) => bail!(
                "the event {} in topic {} has expired; its identity is kept, so publishing it again is a duplicate",
                printable(&self.event_id),
                printable(&self.topic)
            ),
            Err(error) => return Err(error).with_context(|| format!("cannot read from {}", client.target())),
        };
        let text = if self.json {
            format!("{}\n", event.line)
        } else {
            let event = event_text::read(&event.line).ok_or_else(|| anyhow!("the answer is not an event"))?;
            event_text::members(&event)
        };
        print(&text, "the event").map(drop)
    }
}
