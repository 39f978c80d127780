//! `eventsieve outbox`: what is stored and not yet published.

use std::io::{Write, stdout};

use anyhow::{Context, Result, bail};
use clap::builder::FalseyValueParser;

use crate::cli::UsageError;
use crate::config::{RedisOptions, StoreOptions};
use crate::event::Cursor;
use crate::sink::{self, Sink, SinkErrorKind};
use crate::store::{self, DeadLetter, NewDeadLetter, Outbox, Store};

/// How many parked events are read at a time.
const PAGE: u32 = 100;

/// Show what is stored and not yet published, and send again what Redis has refused
///
/// A service publishes its outbox by itself, whatever has failed, for as long as that takes. An event that Redis refuses for
/// itself (its topic's channel is forbidden, for example) is parked, so that it keeps no other waiting: it is listed here, and
/// `--retry` sends it again once the cause is mended. This may run beside services, with their DATABASE_URL and REDIS_URL.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  eventsieve outbox --database-url postgres://me@host/events\n  eventsieve outbox --retry --redis-url redis://host"
)]
pub struct Args {
    #[command(flatten)]
    store: StoreOptions,
    #[command(flatten)]
    redis: RedisOptions,
    /// Send parked events again
    #[arg(long, env = "EVENTSIEVE_OUTBOX_RETRY", value_parser = FalseyValueParser::new())]
    retry: bool,
}

impl Args {
    /// Prints the outbox on standard output.
    ///
    /// # Errors
    /// The store cannot be read, or with `--retry`: Redis cannot be reached, or refuses an event again.
    pub async fn run(self) -> Result<()> {
        let url = self.store.check().map_err(|error| UsageError(error.to_string()))?;
        let redis = self.redis.check().map_err(|error| UsageError(error.to_string()))?;
        let fanout = match (self.retry, redis) {
            (false, _) => None,
            (true, Some(redis)) => Some(sink::open(redis)?),
            (true, None) => bail!(UsageError("--retry needs a Redis: set REDIS_URL".to_owned())),
        };
        let store = store::open(&url)?;
        store.check_schema().await?;
        let refused = match &fanout {
            Some(fanout) => retry(&*store, &**fanout).await?,
            None => 0,
        };
        show(&*store).await?;
        store.close().await;
        match refused {
            0 => Ok(()),
            refused => bail!("Redis refuses {refused} of the events again: see what it says of each"),
        }
    }
}

/// Sends every parked event again, and answers with how many are refused again.
async fn retry(store: &dyn Outbox, fanout: &dyn Sink) -> Result<u64> {
    let (mut sent, mut refused) = (0, 0);
    let mut after = Cursor::BEGINNING;
    loop {
        let page = store.dead_letters(after, PAGE).await?;
        let Some(last) = page.last() else { break };
        after = last.event.cursor;
        for DeadLetter { event, .. } in page {
            let cursor = event.cursor;
            let reason = match fanout.publish(&[event]).await {
                Ok(refusals) => refusals.into_iter().next().map(|refusal| refusal.reason),
                Err(error) if error.kind == SinkErrorKind::Unexpected => Some(error.to_string()),
                Err(error) => return Err(error).context("Redis did not take the events: those left stay parked"),
            };
            match reason {
                None => {
                    store.remove_dead_letters(&[cursor]).await?;
                    sent += 1;
                }
                Some(reason) => {
                    store.dead_letter(&[NewDeadLetter { cursor, reason }]).await?;
                    refused += 1;
                }
            }
        }
    }
    print(&format!("sent again     {sent}\nrefused again  {refused}\n"))?;
    Ok(refused)
}

/// Prints what waits, and one line for each parked event.
async fn show(store: &dyn Store) -> Result<()> {
    let stats = store.stats().await?;
    let age = match stats.backlog.batches {
        0 => String::new(),
        _ => format!(", the oldest {:.1} s old", stats.backlog.oldest_seconds),
    };
    print(&format!(
        "unpublished    {} batches{age}\nparked         {} events\n",
        stats.backlog.batches, stats.backlog.dead_letters
    ))?;
    let mut after = Cursor::BEGINNING;
    loop {
        let page = store.dead_letters(after, PAGE).await?;
        let Some(last) = page.last() else { return Ok(()) };
        after = last.event.cursor;
        for parked in &page {
            print(&line(parked))?;
        }
    }
}

fn line(parked: &DeadLetter) -> String {
    let event = &parked.event;
    format!(
        "{}  {}  {}  {}  {}\n",
        event.cursor,
        event.event.topic,
        event.event.event_id,
        parked.dead_lettered_at,
        parked.reason.replace(char::is_control, " ")
    )
}

fn print(text: &str) -> Result<()> {
    stdout().write_all(text.as_bytes()).context("cannot print the outbox")
}
