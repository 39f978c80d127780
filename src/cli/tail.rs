//! `eventsieve tail`: follows events like `tail -f`, one line of JSON each.
//!
//! [`stream`] follows the service's own stream; [`merge`] weaves what a Redis channel brings ([`channel`]) together with walks
//! over HTTP, so that the channel may forget what it wants. Both print every event once ([`output`]), wait for whoever is away
//! ([`outage`]), and end only with an [`End`].

#[cfg(feature = "redis")]
pub mod channel;
#[cfg(feature = "redis")]
pub mod merge;
pub mod outage;
pub mod output;
pub mod seen;
pub mod stream;

use std::{convert::Infallible, io::stdout, num::NonZeroU64, os::fd::AsFd};

use anyhow::Context;
use clap::builder::FalseyValueParser;
use tokio::{fs::File, select};

#[cfg(feature = "redis")]
use self::channel::Channel;
use self::output::Output;
use crate::{
    cli::{UsageError, target::TargetArgs},
    client::{self, Client, ClientError},
    config::ChannelOptions,
    lifecycle::Signals,
};

/// Print events as they are stored, like tail -f: one line of JSON each, until Ctrl-C
///
/// Each event is printed once and none is left out, also when the service or Redis goes away and comes back meanwhile: this is told on
/// standard error, and waited for.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  eventsieve tail\n  eventsieve tail --after '' --topic order.created --limit 10\n  eventsieve tail --redis --redis-url redis://127.0.0.1:6379"
)]
pub struct Args {
    #[command(flatten)]
    target: TargetArgs,
    /// Print the events of this topic alone
    #[arg(long, env = "EVENTSIEVE_TAIL_TOPIC", value_name = "NAME")]
    topic: Option<String>,
    /// Begin behind the event with this cursor; empty: with the first event of the log; without it, with what is stored next
    #[arg(long, env = "EVENTSIEVE_TAIL_AFTER", value_name = "CURSOR")]
    after: Option<String>,
    /// End after so many events
    #[arg(long, env = "EVENTSIEVE_TAIL_LIMIT", value_name = "COUNT")]
    limit: Option<NonZeroU64>,
    /// Take the events from Redis; only what Redis does not bring is asked of the service
    #[arg(long, env = "EVENTSIEVE_TAIL_REDIS", value_parser = FalseyValueParser::new())]
    redis: bool,
    #[command(flatten)]
    channel: ChannelOptions,
}

/// Which events to follow, and whom to tell of outages.
#[derive(Debug)]
pub struct Wanted {
    /// The service that has them.
    pub client: Client,
    /// Their topic, if only one is asked for.
    pub topic: Option<String>,
    /// The cursor that they come behind; without one, what is stored from now on.
    pub after: Option<String>,
    /// Is given a line for a person.
    pub tell: fn(&str),
}

/// Why no more is printed.
#[derive(Debug)]
pub enum End {
    /// As much was printed as was asked for, or nobody reads it any more.
    Done,
    /// It cannot go on.
    Failed(anyhow::Error),
}

impl From<ClientError> for End {
    fn from(error: ClientError) -> Self {
        Self::Failed(error.into())
    }
}

impl Args {
    /// Prints events on standard output until the limit, a signal, or the end of its reader.
    ///
    /// # Errors
    /// When `--redis` has no usable URL, when the service refuses what is asked for, and when standard output cannot be written.
    pub async fn run(self) -> anyhow::Result<()> {
        #[cfg(feature = "redis")]
        let channel = if self.redis { Some(self.channel()?) } else { None };
        #[cfg(not(feature = "redis"))]
        if self.redis {
            let reason = "this eventsieve was built without Redis: build it with the feature `redis`";
            return Err(UsageError(reason.to_owned()).into());
        }
        let mut signals = Signals::listen().context("the system refuses signal handlers")?;
        let wanted = Wanted {
            client: Client::new(self.target.target()?, client::CALL_TIMEOUT)?,
            topic: self.topic,
            after: self.after,
            tell: |line| eprintln!("eventsieve: {line}"),
        };
        // A reader that is slow must not keep us from hearing a signal, so another thread writes.
        let out = stdout()
            .as_fd()
            .try_clone_to_owned()
            .context("there is no standard output")?;
        let mut output = Output::new(File::from_std(out.into()), self.limit);
        let end = async {
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

    #[cfg(feature = "redis")]
    fn channel(&self) -> Result<Channel, UsageError> {
        let found = self.channel.check().map_err(|error| UsageError(error.to_string()))?;
        let (url, name) = found.ok_or_else(|| UsageError("--redis needs --redis-url (or REDIS_URL)".to_owned()))?;
        Channel::new(&url, &name)
            .ok_or_else(|| UsageError("REDIS_URL must be like redis://:PASSWORD@HOST:PORT".to_owned()))
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
