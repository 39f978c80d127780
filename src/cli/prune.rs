//! `eventsieve prune`: removes old events.

use std::time::Duration;

use anyhow::{Context, Result};
use tokio::time::Instant;

use crate::cli::UsageError;
use crate::config::StoreOptions;
use crate::event::{Cursor, Timestamp};
use crate::store::backoff::Backoff;
use crate::store::{self, ErrorClass, Maintenance, Prune, Pruned, StoreError};

/// How many events a step looks at: few enough that a flush that waits for it does not notice.
const STEP_EVENTS: u32 = 1000;

/// For how long a step is tried again that met the service's locks.
const STEP_PATIENCE: Duration = Duration::from_secs(60);

/// Delete events that were received longer ago than a time, in small steps, while the service runs or not
///
/// The counters stay exact: what was stored stays counted as unique, and the rows that there are become fewer. Events that the
/// fan-out does not have yet are kept. A pruned identity is forgotten: an event with it is accepted anew.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  eventsieve prune --older-than 30d --dry-run\n  eventsieve prune --older-than 12h --database-url postgres://eventsieve:secret@localhost/eventsieve"
)]
pub struct Args {
    #[command(flatten)]
    store: StoreOptions,
    /// How long ago an event must have been received to be deleted: 90s, 12h, 30d
    #[arg(long, env = "EVENTSIEVE_PRUNE_OLDER_THAN", value_name = "TIME", value_parser = humantime::parse_duration)]
    older_than: Duration,
    /// Delete nothing, only count
    #[arg(long, env = "EVENTSIEVE_PRUNE_DRY_RUN", value_parser = clap::builder::FalseyValueParser::new())]
    dry_run: bool,
}

impl Args {
    /// Prunes, and prints what went and what was kept.
    ///
    /// # Errors
    /// Wrong configuration, as a [`UsageError`], or the store's error: the steps before it stay done.
    pub async fn run(self) -> Result<()> {
        let url = self.store.check().map_err(|error| UsageError(error.to_string()))?;
        let store = store::open(&url)?;
        store.check_schema().await?;
        let now = store.clock().await?;
        let before = earlier(now, self.older_than).ok_or_else(|| {
            UsageError("--older-than reaches back further than there are years: give a shorter time".to_owned())
        })?;
        let (removed, unpublished) = prune(&*store, before, self.dry_run).await?;
        store.close().await;

        let verb = if self.dry_run { "would prune" } else { "pruned" };
        println!("{verb} {removed} event(s) received before {before}");
        if unpublished > 0 {
            println!("kept {unpublished} event(s) as old, which the fan-out does not have yet");
        }
        if removed > 0 && !self.dry_run {
            println!("an event with a pruned identity is accepted anew");
        }
        Ok(())
    }
}

/// The time that was `ago` before `now`.
fn earlier(now: Timestamp, ago: Duration) -> Option<Timestamp> {
    let ago = i64::try_from(ago.as_micros()).ok()?;
    Timestamp::from_micros(now.micros().checked_sub(ago)?)
}

/// Takes one step after the other: how many events went, and how many were kept for the fan-out.
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
            .with_context(|| format!("stopped after {removed} event(s)"))?;
        removed += pruned.removed;
        unpublished += pruned.unpublished;
        let Some(next) = pruned.next else {
            return Ok((removed, unpublished));
        };
        step.after = next;
        // The service has at least half of the time for itself: a lock of SQLite's goes to whoever happens to ask.
        tokio::time::sleep(begun.elapsed()).await;
    }
}

/// Takes a step, again and again while locks of the service are in its way.
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
