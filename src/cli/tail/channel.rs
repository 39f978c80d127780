//! A Redis channel: its messages, and when it was away and messages may have been missed.
//!
//! A subscription leads to the server that is right when it is made: the master that the Sentinels name, or a node of the Cluster. On a
//! sharded channel Redis says when its slot moves to another node; elsewhere the connection ends.

use std::time::Duration;

use futures_util::stream::{Stream, StreamExt, unfold};
use redis::aio::{MultiplexedConnection, PubSubSink, PubSubStream};
use redis::{Client, PushInfo, PushKind, RedisError, Value, cmd};
use tokio::{
    select,
    sync::mpsc,
    time::{Instant, sleep, sleep_until, timeout},
};

use crate::config::ChannelConfig;
use crate::sink::{Servers, SinkError, SinkErrorKind, sink_error, with_pushes};
use crate::store::backoff::Backoff;

/// How long Redis may take to open a connection, or to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// How long the channel may be silent before Redis is asked whether it is still there: a network that drops packets closes nothing.
const SILENCE_MAX: Duration = Duration::from_secs(10);

/// How many messages of a sharded channel may wait. When there are more the subscription ends, and cursor reads bring what it missed.
const WAITING_MAX: usize = 10_000;

/// What the channel brings.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum News {
    /// From here on every message is received. Earlier ones may have been missed.
    Here,
    /// A message, empty if it was not text.
    Message(String),
    /// Messages may be missed from here on, for this reason.
    Away(String),
    /// There was no subscription yet, and there can be none, for this reason.
    Failed(String),
}

/// A channel of a Redis.
#[derive(Debug)]
pub(crate) struct Channel {
    servers: Servers,
    name: String,
    is_sharded: bool,
    /// Whether it was there before: then nothing is wrong with the configuration.
    was_here: bool,
}

/// Where the connection is in its life.
enum State {
    Away(Option<Instant>),
    Here(Subscription),
}

enum Subscription {
    Plain {
        sink: PubSubSink,
        messages: PubSubStream,
    },
    Sharded {
        connection: MultiplexedConnection,
        pushes: mpsc::Receiver<PushInfo>,
    },
}

impl Channel {
    /// Opens no connection yet.
    pub(crate) fn new(config: ChannelConfig) -> Self {
        Self {
            servers: Servers::new(config.access, ANSWER_TIMEOUT),
            name: config.name,
            is_sharded: config.is_sharded,
            was_here: false,
        }
    }

    /// Subscribes, again whenever the connection is lost, and gives what is received. It has no end.
    pub(crate) fn news(self) -> impl Stream<Item = News> + Send + Unpin {
        let begin = (self, State::Away(None), Backoff::default());
        unfold(begin, async |(mut channel, state, mut backoff)| {
            let (news, state) = match state {
                State::Here(mut subscription) => match subscription.next().await {
                    Ok(message) => {
                        backoff.reset();
                        (News::Message(message), State::Here(subscription))
                    }
                    Err(reason) => (
                        News::Away(reason),
                        State::Away(Some(Instant::now() + backoff.next_wait())),
                    ),
                },
                State::Away(try_at) => {
                    if let Some(try_at) = try_at {
                        sleep_until(try_at).await;
                    }
                    match channel.subscribe().await {
                        Ok(subscription) => {
                            channel.was_here = true;
                            (News::Here, State::Here(subscription))
                        }
                        Err(error) => {
                            let reason = error.to_string().replace(char::is_control, " ");
                            let is_lasting = error.kind.is_lasting() && !channel.was_here;
                            let news = if is_lasting {
                                News::Failed(reason)
                            } else {
                                News::Away(reason)
                            };
                            (news, State::Away(Some(Instant::now() + backoff.next_wait())))
                        }
                    }
                }
            };
            Some((news, (channel, state, backoff)))
        })
        .boxed()
    }

    async fn subscribe(&self) -> Result<Subscription, SinkError> {
        let subscribed = async {
            let client = self.servers.find(&self.name).await?;
            let subscription = if self.is_sharded {
                self.subscribe_sharded(&client).await
            } else {
                self.subscribe_plain(&client).await
            };
            subscription.map_err(|error| sink_error("cannot subscribe", &error))
        };
        let away = |reason: &str| SinkError::new(SinkErrorKind::Unreachable, reason);
        match timeout(ANSWER_TIMEOUT, subscribed).await {
            Ok(Err(error)) if error.is_moved && self.is_sharded => Err(away("the slot of the channel is being moved")),
            Ok(subscribed) => subscribed,
            Err(_) => Err(away(self.servers.no_answer())),
        }
    }

    async fn subscribe_plain(&self, client: &Client) -> Result<Subscription, RedisError> {
        let (mut sink, messages) = client.get_async_pubsub().await?.split();
        sink.subscribe(&self.name).await?;
        Ok(Subscription::Plain { sink, messages })
    }

    async fn subscribe_sharded(&self, client: &Client) -> Result<Subscription, RedisError> {
        let (sender, pushes) = mpsc::channel(WAITING_MAX);
        let settings = self
            .servers
            .settings()
            .set_push_sender(move |push| sender.try_send(push));
        let client = with_pushes(client)?;
        let mut connection = client.get_multiplexed_async_connection_with_config(&settings).await?;
        let mut subscribe = cmd("SSUBSCRIBE");
        subscribe.arg(&self.name).query_async::<Value>(&mut connection).await?;
        Ok(Subscription::Sharded { connection, pushes })
    }
}

impl Subscription {
    /// The next message.
    async fn next(&mut self) -> Result<String, String> {
        match self {
            Subscription::Plain { sink, messages } => loop {
                select! {
                    biased;
                    message = messages.next() => {
                        let message = message.ok_or("the connection was closed")?;
                        return Ok(text(message.get_payload_bytes()));
                    }
                    () = sleep(SILENCE_MAX) => answer(sink.ping::<Value>()).await.map(drop)?,
                }
            },
            Subscription::Sharded { connection, pushes } => loop {
                select! {
                    biased;
                    push = pushes.recv() => {
                        let push = push.ok_or("the connection was closed")?;
                        if pushes.len() >= WAITING_MAX - 1 {
                            return Err("messages come faster than they are printed".to_owned());
                        }
                        if let Some(message) = message(push)? {
                            return Ok(message);
                        }
                    }
                    () = sleep(SILENCE_MAX) => answer(cmd("PING").query_async::<Value>(connection)).await.map(drop)?,
                }
            },
        }
    }
}

/// The message in a push of a sharded subscription, if there is one.
fn message(push: PushInfo) -> Result<Option<String>, String> {
    match (push.kind, push.data.as_slice()) {
        (PushKind::SMessage, [_, Value::BulkString(message)]) => Ok(Some(text(message))),
        (PushKind::SUnsubscribe, _) => Err("the channel has moved to another node of the Cluster".to_owned()),
        (PushKind::Disconnection, _) => Err("the connection was closed".to_owned()),
        _ => Ok(None),
    }
}

fn text(message: &[u8]) -> String {
    String::from_utf8(message.to_vec()).unwrap_or_default()
}

/// What Redis answers in time. Its errors name no URL.
async fn answer<T>(call: impl Future<Output = redis::RedisResult<T>>) -> Result<T, String> {
    match timeout(ANSWER_TIMEOUT, call).await {
        Ok(answer) => answer.map_err(|error| error.to_string().replace(char::is_control, " ")),
        Err(_) => Err("no answer in time".to_owned()),
    }
}
