//! `eventsieve tail`: follows events like `tail -f`.
//!
//! [`start`] prints events that are in the log already, if some are asked for. Then [`stream`] follows the stream of the service, or
//! [`merge`] merges the messages of a Redis channel ([`channel`]) with cursor reads over HTTP, because a channel may miss some. Each
//! prints every event once ([`output`], [`mod@format`]), waits while a peer is away ([`outage`]), and stops only at an [`end::End`].

#[cfg(feature = "redis")]
pub(crate) mod channel;
pub(crate) mod end;
pub(crate) mod format;
#[cfg(feature = "redis")]
pub(crate) mod merge;
pub(crate) mod outage;
pub(crate) mod output;
#[cfg(feature = "redis")]
pub(crate) mod seen;
pub(crate) mod start;
pub(crate) mod stream;
pub(crate) mod wanted;

use std::{
    convert::Infallible,
    io::{IsTerminal, stdout},
    num::NonZeroU64,
    os::fd::AsFd,
};

use anyhow::Context;
use clap::builder::FalseyValueParser;
use tokio::{fs::File, select};

#[cfg(feature = "redis")]
use self::channel::Channel;
use self::{
    end::End,
    format::Format,
    output::Output,
    start::{Filter, Start},
    wanted::Wanted,
};
use crate::cli::print::note;
use crate::{
    cli::{error::UsageError, since::Since, target::TargetArgs},
    client::{self, Client},
    config::ChannelOptions,
    lifecycle::Signals,
};

/// Print events as they are stored, like tail -f, until Ctrl-C
///
/// Each event is printed once and none is left out, even if the service or Redis is unavailable for a while: the command
/// reports this on standard error and waits.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  eventsieve tail\n  eventsieve tail -n 20 --topic order.created --format text\n  eventsieve tail --since 10m --format '{topic} {event_id} {payload./total}'\n  eventsieve tail --after '' --limit 10\n  eventsieve tail --redis --redis-url redis://127.0.0.1:6379"
)]
pub(crate) struct Args {
    #[command(flatten)]
    target: TargetArgs,
    /// Print only events of this topic
    #[arg(long, env = "EVENTSIEVE_TAIL_TOPIC", value_name = "NAME")]
    topic: Option<String>,
    /// Print only events of this source
    #[arg(long, env = "EVENTSIEVE_TAIL_SOURCE", value_name = "NAME")]
    source: Option<String>,
    /// Start with the last COUNT events of the log; without -n, --since or --after, start with the next event that is stored
    #[arg(
        short = 'n',
        long,
        env = "EVENTSIEVE_TAIL_LINES",
        value_name = "COUNT",
        group = "start"
    )]
    lines: Option<u64>,
    /// Start with the events of the log whose timestamp is not before this time: RFC 3339, or a duration before now, such as 10m
    #[arg(long, env = "EVENTSIEVE_TAIL_SINCE", value_name = "TIME", group = "start")]
    since: Option<Since>,
    /// Start after the event with this cursor; an empty value starts at the first event of the log
    #[arg(long, env = "EVENTSIEVE_TAIL_AFTER", value_name = "CURSOR", group = "start")]
    after: Option<String>,
    /// Exit after this many events
    #[arg(long, env = "EVENTSIEVE_TAIL_LIMIT", value_name = "COUNT")]
    limit: Option<NonZeroU64>,
    /// How to print an event, on one line: json, text, or a template of members such as '{topic} {event_id} {payload./total}'
    #[arg(long, env = "EVENTSIEVE_TAIL_FORMAT", value_name = "FORMAT", default_value = "json")]
    format: Format,
    /// Read events from Redis, and request from the service only those that Redis did not deliver
    #[arg(long, env = "EVENTSIEVE_TAIL_REDIS", value_parser = FalseyValueParser::new())]
    redis: bool,
    #[command(flatten)]
    channel: ChannelOptions,
}

impl Args {
    /// Prints events on standard output until the limit, a signal, or the end of its reader.
    pub(crate) async fn run(self) -> anyhow::Result<()> {
        #[cfg(feature = "redis")]
        let channel = if self.redis { Some(self.channel()?) } else { None };
        #[cfg(not(feature = "redis"))]
        if self.redis {
            let reason = "this eventsieve was built without Redis; build it with the feature `redis`";
            return Err(UsageError(reason.to_owned()).into());
        }
        let mut signals = Signals::listen().context("cannot install signal handlers")?;
        let start = self.start();
        let filter = Filter {
            topic: self.topic.clone(),
            source: self.source.clone(),
        };
        let mut wanted = Wanted {
            client: Client::new(self.target.target()?, client::CALL_TIMEOUT)?,
            topic: self.topic,
            after: None,
            report: |line| note(&format!("eventsieve: {line}")),
        };
        // Another thread writes, so that a signal is noticed while a slow reader keeps a write waiting.
        let out = stdout()
            .as_fd()
            .try_clone_to_owned()
            .context("there is no standard output")?;
        let is_terminal = out.is_terminal();
        let output = Output::new(File::from_std(out.into()), self.limit).with(self.format, self.source);
        let mut output = output.on_terminal(is_terminal);
        let end = async {
            wanted.after = start::begin(start, &filter, &wanted, &mut output).await?;
            #[cfg(feature = "redis")]
            if let Some(channel) = channel {
                return merge::follow(wanted, channel.news(), &mut output).await;
            }
            stream::follow(wanted, &mut output).await
        };
        select! {
            _ = signals.next() => Ok(()),
            end = end => outcome(end),
        }
    }

    fn start(&self) -> Start {
        match (self.lines, self.since, &self.after) {
            (Some(count), ..) => Start::Last(count),
            (_, Some(time), _) => Start::Since(time),
            (_, _, Some(cursor)) => Start::After(cursor.clone()),
            _ => Start::Next,
        }
    }

    #[cfg(feature = "redis")]
    fn channel(&self) -> Result<Channel, UsageError> {
        let found = self.channel.check().map_err(|error| UsageError(error.to_string()))?;
        let config = found.ok_or_else(|| UsageError("--redis needs --redis-url (or REDIS_URL)".to_owned()))?;
        Ok(Channel::new(config))
    }
}

fn outcome(end: Result<Infallible, End>) -> anyhow::Result<()> {
    match end {
        Err(End::Done) => Ok(()),
        Err(End::Failed(error)) => Err(error),
        Ok(never) => match never {},
    }
}

#[cfg(test)]
mod tests;
