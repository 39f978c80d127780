//! `eventsieve conflicts`: lists conflicts.

use std::num::NonZeroU64;

use anyhow::{Context, Result, anyhow};
use clap::builder::FalseyValueParser;

use crate::api::topics::{CONFLICTS_MAX, Conflict, Conflicts};
use crate::cli::print::print;
use crate::cli::table::columns;
use crate::cli::target::TargetArgs;
use crate::cli::text::{cut, printable};
use crate::client::{self, Client};

/// How many characters of a payload the table shows.
const PAYLOAD_CHARS_MAX: usize = 80;

/// List events that were dropped because another payload is stored under their identity, the newest last
///
/// A table shows the beginning of each payload; --json prints all that is kept, one conflict per line.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  eventsieve conflicts\n  eventsieve conflicts --topic order.created --json")]
pub(crate) struct Args {
    #[command(flatten)]
    target: TargetArgs,
    /// List only conflicts of this topic
    #[arg(long, env = "EVENTSIEVE_CONFLICTS_TOPIC", value_name = "NAME")]
    topic: Option<String>,
    /// List only conflicts behind this place
    #[arg(
        long,
        env = "EVENTSIEVE_CONFLICTS_AFTER",
        value_name = "CURSOR",
        default_value = "",
        hide_default_value = true
    )]
    after: String,
    /// Maximum number of conflicts
    #[arg(long, env = "EVENTSIEVE_CONFLICTS_LIMIT", value_name = "COUNT", default_value_t = NonZeroU64::new(100).expect("100 is not 0"))]
    limit: NonZeroU64,
    /// Print conflicts as JSON, one per line
    #[arg(long, env = "EVENTSIEVE_CONFLICTS_JSON", value_parser = FalseyValueParser::new())]
    json: bool,
}

impl Args {
    /// Prints the conflicts on standard output.
    pub(crate) async fn run(self) -> Result<()> {
        let client = Client::new(self.target.target()?, client::CALL_TIMEOUT)?;
        let (mut text, mut rows, mut left) = (String::new(), Vec::new(), self.limit.get());
        let mut after = self.after.clone();
        while left > 0 {
            let limit = left.min(u64::from(CONFLICTS_MAX));
            let size = limit.to_string();
            let topic = self.topic.as_deref().map(|topic| ("topic", topic));
            let query: Vec<_> = [("after", after.as_str()), ("limit", &size)]
                .into_iter()
                .chain(topic)
                .collect();
            let page = client.json_page("conflicts", &query).await;
            let page = page.with_context(|| format!("cannot read from {}", client.target()))?;
            let page: Conflicts<'_> =
                serde_json::from_slice(&page).map_err(|_| anyhow!("the answer is not a list of conflicts"))?;
            for conflict in &page.conflicts {
                if self.json {
                    text.push_str(&serde_json::to_string(conflict).context("cannot write a conflict as JSON")?);
                    text.push('\n');
                } else {
                    rows.push(row(conflict));
                }
            }
            if (page.conflicts.len() as u64) < limit {
                break;
            }
            left -= limit;
            after = page.next.to_string();
        }
        if !self.json {
            text = columns(
                ["RECEIVED_AT", "TOPIC", "EVENT_ID", "SOURCE", "STORED_AT", "PAYLOAD"],
                rows,
            );
        }
        print(&text, "the conflicts").map(drop)
    }
}

fn row(conflict: &Conflict<'_>) -> [String; 6] {
    let payload = conflict.payload.as_ref();
    [
        conflict.received_at.to_string(),
        printable(&conflict.topic),
        printable(&conflict.event_id),
        printable(&conflict.source),
        conflict.cursor.to_string(),
        payload.map_or_else(
            || "(too large)".to_owned(),
            |payload| printable(&cut(&payload.0, PAYLOAD_CHARS_MAX)),
        ),
    ]
}
