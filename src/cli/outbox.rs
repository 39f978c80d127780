//! `eventsieve outbox`: batches that are not yet published, and dead letters.

use std::io::{Write, stdout};

use anyhow::{Context, Result, bail};
use clap::builder::FalseyValueParser;

use crate::cli::error::UsageError;
use crate::cli::table::{count, signed, values};
use crate::cli::text::printable;
use crate::config::{RedisOptions, StoreOptions};
use crate::event::Cursor;
use crate::sink::{self, Sink, SinkErrorKind};
use crate::store::{self, DeadLetter, NewDeadLetter, Outbox, Store};

/// How many dead letters are read at a time.
const PAGE: u32 = 100;

/// Show batches that are not yet published, and publish dead letters again
///
/// The service publishes its outbox by itself, and retries for as long as necessary. An event that Redis rejects because of the event
/// itself (it may not publish to that topic's channel, for example) becomes a dead letter, so that it does not delay other events. Dead
/// letters are listed here; --retry publishes them again once the cause is fixed. The command may run beside the service, with the same
/// DATABASE_URL and REDIS_URL.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  eventsieve outbox --database-url postgres://me@host/events\n  eventsieve outbox --retry --redis-url redis://host"
)]
pub(crate) struct Args {
    #[command(flatten)]
    store: StoreOptions,
    #[command(flatten)]
    redis: RedisOptions,
    /// Publish dead letters again
    #[arg(long, env = "EVENTSIEVE_OUTBOX_RETRY", value_parser = FalseyValueParser::new())]
    retry: bool,
}

impl Args {
    /// Prints the outbox on standard output. With `--retry` it is an error when Redis cannot be reached or rejects an event again.
    pub(crate) async fn run(self) -> Result<()> {
        let url = self.store.check().map_err(UsageError::from)?;
        let redis = self.redis.check().map_err(UsageError::from)?;
        let sink = match (self.retry, redis) {
            (false, _) => None,
            (true, Some(redis)) => Some(sink::open(redis)?),
            (true, None) => bail!(UsageError("--retry needs Redis: set REDIS_URL".to_owned())),
        };
        let store = store::open(&url)?;
        store.check_schema().await?;
        let rejected = match &sink {
            Some(sink) => retry(&*store, &**sink).await?,
            None => 0,
        };
        show(&*store).await?;
        store.close().await;
        match rejected {
            0 => Ok(()),
            1 => bail!("Redis rejected one event again, for the reason listed with it"),
            rejected => bail!(
                "Redis rejected {} events again, for the reasons listed with them",
                count(rejected)
            ),
        }
    }
}

/// Publishes every dead letter again, and gives back how many are rejected again.
async fn retry(store: &dyn Outbox, sink: &dyn Sink) -> Result<u64> {
    let (mut published, mut rejected) = (0, 0);
    let mut after = Cursor::BEGINNING;
    loop {
        let page = store.dead_letters(after, PAGE).await?;
        let Some(last) = page.last() else { break };
        after = last.event.cursor;
        for DeadLetter { event, .. } in page {
            let cursor = event.cursor;
            let reason = match sink.publish(&[event]).await {
                Ok(refusals) => refusals.into_iter().next().map(|refusal| refusal.reason),
                Err(error) if error.kind == SinkErrorKind::Unexpected => Some(error.to_string()),
                Err(error) => return Err(error).context("cannot publish to Redis; the remaining dead letters stay"),
            };
            match reason {
                None => {
                    store.remove_dead_letters(&[cursor]).await?;
                    published += 1;
                }
                Some(reason) => {
                    store.dead_letter(&[NewDeadLetter { cursor, reason }]).await?;
                    rejected += 1;
                }
            }
        }
    }
    print(&values([
        ("published again", count(published)),
        ("rejected again", count(rejected)),
    ]))?;
    Ok(rejected)
}

/// Prints the backlog, and one line for each dead letter.
async fn show(store: &dyn Store) -> Result<()> {
    let stats = store.stats().await?;
    let backlog = &stats.backlog;
    print(&values([
        ("unpublished batches", signed(backlog.batches)),
        ("age of the oldest", format!("{:.1} s", backlog.oldest_seconds)),
        ("dead letters", signed(backlog.dead_letters)),
    ]))?;
    let mut after = Cursor::BEGINNING;
    loop {
        let page = store.dead_letters(after, PAGE).await?;
        let Some(last) = page.last() else { return Ok(()) };
        after = last.event.cursor;
        for letter in &page {
            print(&line(letter))?;
        }
    }
}

fn line(letter: &DeadLetter) -> String {
    let event = &letter.event;
    format!(
        "{}  {}  {}  {}  {}\n",
        event.cursor,
        printable(event.event.topic.as_str()),
        printable(event.event.event_id.as_str()),
        letter.dead_lettered_at,
        printable(&letter.reason)
    )
}

fn print(text: &str) -> Result<()> {
    stdout().write_all(text.as_bytes()).context("cannot print the outbox")
}
