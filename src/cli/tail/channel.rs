//! A Redis channel: its messages, and when it was away and messages may have been missed.

use std::time::Duration;

use futures_util::stream::{Stream, StreamExt, unfold};
use redis::aio::{PubSubSink, PubSubStream};
use tokio::{
    select,
    time::{Instant, sleep, sleep_until, timeout},
};

use crate::config::RedisUrl;
use crate::store::backoff::Backoff;

/// How long Redis may take to open a connection, or to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// How long the channel may be silent before Redis is asked whether it is still there: a network that drops packets closes nothing.
const SILENCE_MAX: Duration = Duration::from_secs(10);

/// What the channel brings.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum News {
    /// From here on every message is received. Earlier ones may have been missed.
    Here,
    /// A message, empty if it was not text.
    Message(String),
    /// Messages may be missed from here on, for this reason.
    Away(String),
}

/// A channel of a Redis.
#[derive(Debug)]
pub(crate) struct Channel {
    client: redis::Client,
    name: String,
}

/// Where the connection is in its life.
enum State {
    Away(Option<Instant>),
    Here(Subscription),
}

struct Subscription {
    sink: PubSubSink,
    messages: PubSubStream,
}

impl Channel {
    /// The channel `name` at `url`, or nothing if that is not the URL of a Redis. It opens no connection yet.
    pub(crate) fn new(url: &RedisUrl, name: &str) -> Option<Self> {
        let client = redis::Client::open(url.expose()).ok()?;
        Some(Self {
            client,
            name: name.to_owned(),
        })
    }

    /// Subscribes, again whenever the connection is lost, and gives what is received. It has no end.
    pub(crate) fn news(self) -> impl Stream<Item = News> + Send + Unpin {
        let begin = (self, State::Away(None), Backoff::default());
        unfold(begin, async |(channel, state, mut backoff)| {
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
                        Ok(subscription) => (News::Here, State::Here(subscription)),
                        Err(reason) => (
                            News::Away(reason),
                            State::Away(Some(Instant::now() + backoff.next_wait())),
                        ),
                    }
                }
            };
            Some((news, (channel, state, backoff)))
        })
        .boxed()
    }

    async fn subscribe(&self) -> Result<Subscription, String> {
        let subscribed = async {
            let (mut sink, messages) = self.client.get_async_pubsub().await?.split();
            sink.subscribe(&self.name).await?;
            Ok(Subscription { sink, messages })
        };
        answer(subscribed).await
    }
}

impl Subscription {
    /// The next message.
    async fn next(&mut self) -> Result<String, String> {
        loop {
            select! {
                biased;
                message = self.messages.next() => {
                    let message = message.ok_or("the connection was closed")?;
                    return Ok(String::from_utf8(message.get_payload_bytes().to_vec()).unwrap_or_default());
                }
                () = sleep(SILENCE_MAX) => answer(self.sink.ping::<redis::Value>()).await.map(drop)?,
            }
        }
    }
}

/// What Redis answers in time. Its errors name no URL.
async fn answer<T>(call: impl Future<Output = redis::RedisResult<T>>) -> Result<T, String> {
    match timeout(ANSWER_TIMEOUT, call).await {
        Ok(answer) => answer.map_err(|error| error.to_string().replace(char::is_control, " ")),
        Err(_) => Err("no answer in time".to_owned()),
    }
}
