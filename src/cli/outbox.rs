//! `eventsieve outbox`: batches that are not yet published, and dead letters.

use anyhow::{Context, Result, bail};
use clap::builder::FalseyValueParser;
use serde_json::json;

use crate::cli::error::UsageError;
use crate::cli::print::print;
use crate::cli::table::{count, signed, values};
use crate::cli::text::printable;
use crate::config::{RedisOptions, StoreOptions};
use crate::event::Cursor;
use crate::sink::{self, Sink, SinkErrorKind};
use crate::store::{self, DeadLetter, NewDeadLetter, Outbox, Store};

const OUTBOX: &str = "the outbox";

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
    /// Print the backlog as JSON in one line, and then each dead letter in one
    #[arg(long, env = "EVENTSIEVE_OUTBOX_JSON", value_parser = FalseyValueParser::new())]
    json: bool,
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
            Some(sink) => self.retry(&*store, &**sink).await?,
            None => 0,
        };
        self.show(&*store).await?;
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

    /// Publishes every dead letter again, and gives back how many are rejected again.
    async fn retry(&self, store: &dyn Outbox, sink: &dyn Sink) -> Result<u64> {
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
                    // One that ends the connection must not stand in the way of the others either.
                    Err(error) if error.kind == SinkErrorKind::Unexpected || error.is_cut => Some(error.to_string()),
                    Err(error) => {
                        return Err(error).context("cannot publish to Redis; the remaining dead letters stay");
                    }
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
        let shown = if self.json {
            format!(
                "{}\n",
                json!({"published_again": published, "rejected_again": rejected})
            )
        } else {
            values([
                ("published again", count(published)),
                ("rejected again", count(rejected)),
            ])
        };
        print(&shown, OUTBOX)?;
        Ok(rejected)
    }

    /// Prints the backlog, and one line for each dead letter.
    async fn show(&self, store: &dyn Store) -> Result<()> {
        let stats = store.stats().await?;
        let backlog = &stats.backlog;
        let shown = if self.json {
            let object = json!({
                "unpublished_batches": backlog.batches,
                "oldest_seconds": backlog.oldest_seconds,
                "dead_letters": backlog.dead_letters,
            });
            format!("{object}\n")
        } else {
            values([
                ("unpublished batches", signed(backlog.batches)),
                ("age of the oldest", format!("{:.1} s", backlog.oldest_seconds)),
                ("dead letters", signed(backlog.dead_letters)),
            ])
        };
        print(&shown, OUTBOX)?;
        let mut after = Cursor::BEGINNING;
        loop {
            let page = store.dead_letters(after, PAGE).await?;
            let Some(last) = page.last() else { return Ok(()) };
            after = last.event.cursor;
            for letter in &page {
                let line = if self.json { json_line(letter) } else { line(letter) };
                print(&line, OUTBOX)?;
            }
        }
    }
}

fn json_line(letter: &DeadLetter) -> String {
    let event = &letter.event;
    let object = json!({
        "cursor": event.cursor.to_string(),
        "topic": event.event.topic.as_str(),
        "event_id": event.event.event_id.as_str(),
        "parked_at": letter.dead_lettered_at,
        "reason": letter.reason,
    });
    format!("{object}\n")
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
