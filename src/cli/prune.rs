//! `eventsieve prune`: removes old events.

use std::time::Duration;

use anyhow::{Context, Result};

use crate::cli::error::UsageError;
use crate::cli::print::print;
use crate::config::{ArchiveOptions, StoreOptions};
use crate::event::{Timestamp, TopicGlob};
use crate::retention::{Archive, Prune, prune};
use crate::store;

/// Delete events that are older than a given age; the service may keep running
///
/// Beside EVENTSIEVE_RETAIN, by which the service does so by itself. The identities stay: a deleted event that is published again is
/// still a duplicate. The counters stay exact: deleted events stay counted as unique, and only the number of rows decreases. Events
/// that are not yet published are kept. If an archive is given, events are written to it first.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  eventsieve prune --older-than 30d --dry-run\n  eventsieve prune --older-than 3d --topic 'debug.*'\n  eventsieve prune --older-than 12h --database-url postgres://eventsieve:secret@localhost/eventsieve"
)]
pub(crate) struct Args {
    #[command(flatten)]
    store: StoreOptions,
    #[command(flatten)]
    archive: ArchiveOptions,
    /// Minimum age of an event to be deleted, by the time it was received: 90s, 12h, 30d
    #[arg(long, env = "EVENTSIEVE_PRUNE_OLDER_THAN", value_name = "TIME", value_parser = humantime::parse_duration)]
    older_than: Duration,
    /// Delete only events of topics that match this pattern, in which * stands for any characters
    #[arg(long, env = "EVENTSIEVE_PRUNE_TOPIC", value_name = "PATTERN", value_parser = topics)]
    topic: Option<TopicGlob>,
    /// Only count, and delete nothing
    #[arg(long, env = "EVENTSIEVE_PRUNE_DRY_RUN", value_parser = clap::builder::FalseyValueParser::new())]
    dry_run: bool,
}

fn topics(text: &str) -> Result<TopicGlob, String> {
    TopicGlob::parse(text).ok_or_else(|| "no topic is empty, or has white space or control characters".to_owned())
}

impl Args {
    /// Prunes, and prints how many events were deleted and kept. After an error what was done before stays done.
    pub(crate) async fn run(self) -> Result<()> {
        let url = self.store.check().map_err(UsageError::from)?;
        let archive = Archive::open(&self.archive).map_err(UsageError)?;
        let store = store::open(&url)?;
        store.check_schema().await?;
        let now = store.clock().await?;
        let before = earlier(now, self.older_than).ok_or_else(|| {
            UsageError("--older-than reaches back further than the year 1: give a shorter time".to_owned())
        })?;
        let wanted = Prune {
            before,
            topics: self.topic,
            dry_run: self.dry_run,
        };
        let mut removed = 0;
        let pruned = prune(&*store, archive.as_ref(), &wanted, |pruned| removed = pruned.removed).await;
        let pruned = pruned.with_context(|| format!("stopped after {}", events(removed)))?;
        store.close().await;

        let verb = if self.dry_run { "would prune" } else { "pruned" };
        let mut text = format!("{verb} {} received before {before}\n", events(pruned.removed));
        if pruned.held_back > 0 {
            let kept = events(pruned.held_back);
            text.push_str(&format!(
                "kept {kept} of that age, because they are not yet published\n"
            ));
        }
        print(&text, "the result").map(drop)
    }
}

/// `1 event`, `2 events`.
fn events(number: u64) -> String {
    format!("{number} {}", if number == 1 { "event" } else { "events" })
}

/// The time that was `ago` before `now`.
fn earlier(now: Timestamp, ago: Duration) -> Option<Timestamp> {
    let ago = i64::try_from(ago.as_micros()).ok()?;
    Timestamp::from_micros(now.micros().checked_sub(ago)?)
}
