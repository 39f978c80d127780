//! `eventsieve prune`: removes old events.

use std::time::Duration;

use anyhow::{Context, Result};
use tokio::time::Instant;

use crate::cli::error::UsageError;
use crate::config::StoreOptions;
use crate::event::{Cursor, Timestamp};
use crate::store::backoff::Backoff;
use crate::store::{self, ErrorClass, Maintenance, Prune, Pruned, StoreError};

/// How many events a step reads: few enough that it hardly delays a group commit.
const STEP_EVENTS: u32 = 1000;

/// For how long a step is retried that ran into locks of the service.
const STEP_PATIENCE: Duration = Duration::from_secs(60);

/// Delete events that are older than a given age, in small steps; the service may keep running
///
/// The counters stay exact: pruned events stay counted as unique, and only the number of rows decreases. Events that are not yet
/// published are kept. The identity of a pruned event is forgotten: an event with the same topic and id is stored again.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  eventsieve prune --older-than 30d --dry-run\n  eventsieve prune --older-than 12h --database-url postgres://eventsieve:secret@localhost/eventsieve"
)]
pub(crate) struct Args {
    #[command(flatten)]
    store: StoreOptions,
    /// Minimum age of an event to be deleted, by the time it was received: 90s, 12h, 30d
    #[arg(long, env = "EVENTSIEVE_PRUNE_OLDER_THAN", value_name = "TIME", value_parser = humantime::parse_duration)]
    older_than: Duration,
    /// Only count, and delete nothing
    #[arg(long, env = "EVENTSIEVE_PRUNE_DRY_RUN", value_parser = clap::builder::FalseyValueParser::new())]
    dry_run: bool,
}

impl Args {
    /// Prunes, and prints how many events were deleted and kept. After an error the steps before it stay done.
    pub(crate) async fn run(self) -> Result<()> {
        let url = self.store.check().map_err(UsageError::from)?;
        let store = store::open(&url)?;
        store.check_schema().await?;
        let now = store.clock().await?;
        let before = earlier(now, self.older_than).ok_or_else(|| {
            UsageError("--older-than reaches back further than the year 1: give a shorter time".to_owned())
        })?;
        let (removed, unpublished) = prune(&*store, before, self.dry_run).await?;
        store.close().await;

        let verb = if self.dry_run { "would prune" } else { "pruned" };
        println!("{verb} {} received before {before}", events(removed));
        if unpublished > 0 {
            println!(
                "kept {} of that age, because they are not yet published",
                events(unpublished)
            );
        }
        if removed > 0 && !self.dry_run {
            println!("an event with the topic and id of a pruned one is stored again");
        }
        Ok(())
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

/// Takes one step after the other. Gives back how many events were deleted, and how many were kept because they are not published.
async fn prune(store: &dyn Maintenance, before: Timestamp, dry_run: bool) -> Result<(u64, u64)> {
    let mut step = Prune {
        before,
        after: Cursor::BEGINNING,
        limit: STEP_EVENTS,
        dry_run,
    };
    let (mut removed, mut unpublished) = (0, 0);
    loop {
        let begun = Instant::now();
        let pruned = patiently(store, &step)
            .await
            .with_context(|| format!("stopped after {}", events(removed)))?;
        removed += pruned.removed;
        unpublished += pruned.unpublished;
        let Some(next) = pruned.next else {
            return Ok((removed, unpublished));
        };
        step.after = next;
        // The service has at least half of the time for itself, because SQLite grants its lock in no particular order.
        tokio::time::sleep(begun.elapsed()).await;
    }
}

/// Takes a step, and retries it while it runs into locks of the service.
async fn patiently(store: &dyn Maintenance, step: &Prune) -> Result<Pruned, StoreError> {
    let (mut backoff, deadline) = (Backoff::default(), Instant::now() + STEP_PATIENCE);
    loop {
        match store.prune(step).await {
            Err(error) if error.class == ErrorClass::Contention && Instant::now() < deadline => {
                tokio::time::sleep(backoff.next_wait()).await;
            }
            result => return result,
        }
    }
}
