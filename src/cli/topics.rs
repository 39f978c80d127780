//! `eventsieve topics`: lists topics.

use std::num::NonZeroU64;

use anyhow::{Context, Result, anyhow};
use clap::builder::FalseyValueParser;
use serde_json::json;

use crate::api::events::LIMIT_MAX;
use crate::api::topics::{TopicSummary, Topics};
use crate::cli::print::print;
use crate::cli::table::{columns, count};
use crate::cli::target::TargetArgs;
use crate::cli::text::printable;
use crate::client::{self, Client};

/// List topics with their counters, by name
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  eventsieve topics\n  eventsieve topics --prefix order. --json")]
pub(crate) struct Args {
    #[command(flatten)]
    target: TargetArgs,
    /// List only topics whose names begin with this
    #[arg(long, env = "EVENTSIEVE_TOPICS_PREFIX", value_name = "TEXT")]
    prefix: Option<String>,
    /// Maximum number of topics
    #[arg(long, env = "EVENTSIEVE_TOPICS_LIMIT", value_name = "COUNT", default_value_t = NonZeroU64::new(1000).expect("1000 is not 0"))]
    limit: NonZeroU64,
    /// Print topics as JSON, one per line
    #[arg(long, env = "EVENTSIEVE_TOPICS_JSON", value_parser = FalseyValueParser::new())]
    json: bool,
}

impl Args {
    /// Prints the topics on standard output.
    pub(crate) async fn run(self) -> Result<()> {
        let client = Client::new(self.target.target()?, client::CALL_TIMEOUT)?;
        let (mut text, mut rows, mut left) = (String::new(), Vec::new(), self.limit.get());
        let mut after = String::new();
        while left > 0 {
            let limit = left.min(u64::from(LIMIT_MAX)).to_string();
            let prefix = self.prefix.as_deref().map(|prefix| ("prefix", prefix));
            let query: Vec<_> = [("after", after.as_str()), ("limit", &limit)]
                .into_iter()
                .chain(prefix)
                .collect();
            let page = client.json_page("topics", &query).await;
            let page = page.with_context(|| format!("cannot read from {}", client.target()))?;
            let page: Topics<'_> =
                serde_json::from_slice(&page).map_err(|_| anyhow!("the answer is not a list of topics"))?;
            left = left.saturating_sub(page.topics.len() as u64);
            for topic in &page.topics {
                if self.json {
                    text.push_str(&format!("{}\n", json!(topic)));
                } else {
                    rows.push(row(topic));
                }
            }
            match page.next {
                Some(next) => after = next.into_owned(),
                None => break,
            }
        }
        if !self.json {
            text = columns(
                [
                    "TOPIC",
                    "RECEIVED",
                    "UNIQUE",
                    "DUPLICATES",
                    "CONFLICTS",
                    "FIRST",
                    "LAST",
                ],
                rows,
            );
        }
        print(&text, "the topics").map(drop)
    }
}

fn row(topic: &TopicSummary<'_>) -> [String; 7] {
    let time = |time: Option<crate::event::Timestamp>| time.map_or_else(|| "-".to_owned(), |time| time.to_string());
    [
        printable(&topic.topic),
        count(topic.received),
        count(topic.unique_processed),
        count(topic.duplicate_dropped),
        count(topic.conflicts),
        time(topic.first_received_at),
        time(topic.last_received_at),
    ]
}
