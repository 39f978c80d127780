//! Redis: servers of a test's own, which it kills, freezes and fills; channels and streams of its own; and a subscriber.

use std::fs::{self, File};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::ensure;
use futures_util::StreamExt;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, FromRedisValue, Value};
use tempfile::TempDir;
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::environment;
use crate::eventually::{SOON, eventually};
use crate::postgres::free_port;
use crate::proxy::Proxy;
use crate::publish::text;
use crate::service::{Settings, Signal, send};

/// How many entries of a stream are read at once.
const PAGE: usize = 2000;

/// A server in a temporary folder, without persistence unless arguments ask for it. It is killed and removed when this is dropped.
#[derive(Debug)]
pub struct RedisServer {
    folder: TempDir,
    port: u16,
    arguments: Vec<String>,
    process: Option<Child>,
}

impl RedisServer {
    /// Starts a server, and waits until it answers.
    pub async fn new() -> Self {
        Self::with(&[]).await
    }

    /// Starts a server with additional arguments, such as `--appendonly yes`, and waits until it answers.
    pub async fn with(arguments: &[&str]) -> Self {
        let mut server = Self::absent(arguments);
        server.start().await;
        server
    }

    /// A server that does not run yet: [`Self::start`] starts it.
    pub fn absent(arguments: &[&str]) -> Self {
        RedisServer {
            folder: tempfile::tempdir().expect("a temporary folder"),
            port: free_port(),
            arguments: arguments.iter().map(ToString::to_string).collect(),
            process: None,
        }
    }

    /// Starts the server, also after [`Self::kill`], on the same port and with the files in its folder, and waits until it
    /// answers.
    pub async fn start(&mut self) {
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.folder.path().join("log"))
            .expect("a file in a folder of our own");
        let both = log.try_clone().expect("a descriptor more");
        let process = Command::new("redis-server")
            .args(["--port", &self.port.to_string()])
            .args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
            .arg("--dir")
            .arg(self.folder.path())
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(both)
            .spawn()
            .expect("redis-server is installed: deploy/test-services.sh installs it");
        self.process = Some(process);
        eventually(SOON, async || {
            let answer: redis::RedisResult<String> = redis::cmd("PING").query_async(&mut self.connect().await?).await;
            match answer {
                // A server that requires a password is up.
                Err(error) if error.code() == Some("NOAUTH") => Ok(()),
                other => Ok(other.map(drop)?),
            }
        })
        .await;
    }

    /// Kills the server as `kill -9` does, and waits until it is gone.
    pub fn kill(&mut self) {
        let mut process = self.process.take().expect("the server runs");
        process.kill().expect("a process of our own can be killed");
        process.wait().expect("a process of our own can be waited for");
    }

    /// Freezes the server: its connections stay open, and no command is answered.
    pub fn freeze(&self) {
        send(Signal::Stop, self.pid());
    }

    /// Lets a frozen server continue.
    pub fn thaw(&self) {
        send(Signal::Continue, self.pid());
    }

    /// The process's id.
    pub fn pid(&self) -> u32 {
        self.process.as_ref().expect("the server runs").id()
    }

    /// Its URL without a password.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/0", self.port)
    }

    /// Its URL for a user with a password.
    pub fn url_for(&self, user: &str, password: &str) -> String {
        format!("redis://{user}:{password}@127.0.0.1:{}/0", self.port)
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The answer of the server to a command, on a new connection.
    pub async fn command<T: FromRedisValue>(&self, words: &[&str]) -> T {
        command(&self.url(), words).await
    }

    /// Makes the server a replica of another one, and waits until it has all data.
    pub async fn replicate(&self, other: &RedisServer) {
        self.command::<()>(&["REPLICAOF", "127.0.0.1", &other.port.to_string()])
            .await;
        eventually(SOON, async || {
            let info: String = self.command(&["INFO", "replication"]).await;
            ensure!(info.contains("master_link_status:up"), "{info}");
            Ok(())
        })
        .await;
    }

    /// Makes the server a master again.
    pub async fn promote(&self) {
        self.command::<()>(&["REPLICAOF", "NO", "ONE"]).await;
    }

    /// The number of answers with this error, such as `OOM`, since the server was started.
    pub async fn errors(&self, code: &str) -> u64 {
        let info: String = self.command(&["INFO", "errorstats"]).await;
        let counted = format!("errorstat_{code}:count=");
        info.lines()
            .find_map(|line| line.strip_prefix(counted.as_str()))
            .map_or(0, |count| count.trim().parse().expect("Redis counts in numbers"))
    }

    async fn connect(&self) -> anyhow::Result<MultiplexedConnection> {
        connect(&self.url()).await
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = fs::read_to_string(self.folder.path().join("log"));
            eprintln!("--- the log of Redis:\n{}", log.unwrap_or_default());
        }
        if let Some(mut process) = self.process.take() {
            // Killing it fails only if it has ended already.
            drop(process.kill());
            drop(process.wait());
        }
    }
}

/// A connection whose time-outs suit a busy machine.
pub async fn connect(url: &str) -> anyhow::Result<MultiplexedConnection> {
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(SOON))
        .set_response_timeout(Some(SOON));
    Ok(Client::open(url)?
        .get_multiplexed_async_connection_with_config(&config)
        .await?)
}

/// The answer of the server at a URL to a command, on a new connection.
pub async fn command<T: FromRedisValue>(url: &str, words: &[&str]) -> T {
    let mut command = redis::Cmd::new();
    for word in words {
        command.arg(word);
    }
    let answer = async { Ok::<T, anyhow::Error>(command.query_async(&mut connect(url).await?).await?) };
    answer
        .await
        .unwrap_or_else(|error| panic!("Redis rejects {words:?}: {error:#}"))
}

/// Where the services of a test publish: a channel and a stream of its own on a Redis.
#[derive(Debug, Clone)]
pub struct RedisTarget {
    url: String,
    channel: String,
    stream: String,
}

impl RedisTarget {
    /// On the Redis that `REDIS_URL` names.
    pub fn shared() -> Self {
        let url = environment("REDIS_URL")
            .expect("REDIS_URL is not set: it names a throwaway Redis, and `make test` starts one");
        Self::at(&url)
    }

    /// On a server of the test's own.
    pub fn on(server: &RedisServer) -> Self {
        Self::at(&server.url())
    }

    /// On the Redis with this URL.
    pub fn at(url: &str) -> Self {
        let name = Uuid::new_v4().simple();
        RedisTarget {
            url: url.to_owned(),
            channel: format!("channel-{name}"),
            stream: format!("stream-{name}"),
        }
    }

    /// The same channel and stream at another URL.
    #[must_use]
    pub fn by(&self, url: &str) -> Self {
        RedisTarget {
            url: url.to_owned(),
            ..self.clone()
        }
    }

    /// The same through a proxy.
    #[must_use]
    pub fn through(&self, proxy: &Proxy) -> Self {
        self.by(&proxy.through(&self.url))
    }

    /// The URL of the Redis.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The channel.
    pub fn channel(&self) -> &str {
        &self.channel
    }

    /// The channel of a topic.
    pub fn channel_of(&self, topic: &str) -> String {
        format!("{}:{topic}", self.channel)
    }

    /// The stream.
    pub fn stream(&self) -> &str {
        &self.stream
    }

    /// Subscribes to the channel.
    pub async fn subscribe(&self) -> Subscriber {
        Subscriber::to(&self.url, &[&self.channel]).await
    }

    /// The number of subscribers of the channel.
    pub async fn subscribers(&self) -> i64 {
        let (_, count): (String, i64) = command(&self.url, &["PUBSUB", "NUMSUB", &self.channel]).await;
        count
    }

    /// All entries of the stream, in its order.
    pub async fn entries(&self) -> Vec<Entry> {
        stream(&self.url, &self.stream).await
    }

    /// The number of entries of the stream.
    pub async fn length(&self) -> usize {
        command(&self.url, &["XLEN", &self.stream]).await
    }

    /// Removes the stream from a shared Redis.
    pub async fn clean_up(&self) {
        command::<i64>(&self.url, &["DEL", &self.stream]).await;
    }
}

impl Settings {
    /// The same with publishing to this channel and this stream.
    #[must_use]
    pub fn with_redis(self, target: &RedisTarget) -> Self {
        self.with("REDIS_URL", &target.url)
            .with("REDIS_CHANNEL", &target.channel)
            .with("REDIS_STREAM", &target.stream)
    }
}

/// An entry of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The field `topic`.
    pub topic: String,
    /// The field `event_id`.
    pub event_id: String,
    /// The field `cursor`.
    pub cursor: String,
    /// The field `event`, byte for byte.
    pub event: String,
    /// The field `traceparent`, which only events of traced requests have.
    pub traceparent: Option<String>,
}

impl Entry {
    fn new(mut fields: Vec<(String, String)>) -> Self {
        let traceparent = fields.pop_if(|(name, _)| name == "traceparent").map(|(_, value)| value);
        let names: Vec<&str> = fields.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(
            names,
            ["topic", "event_id", "cursor", "event"],
            "the fields of an entry"
        );
        let values: Vec<String> = fields.into_iter().map(|(_, value)| value).collect();
        let [topic, event_id, cursor, event] = values.try_into().expect("there are four names");
        Entry {
            topic,
            event_id,
            cursor,
            event,
            traceparent,
        }
    }

    /// The event.
    pub fn json(&self) -> serde_json::Value {
        parsed(&self.event)
    }
}

/// All entries of a stream, in its order.
pub async fn stream(url: &str, key: &str) -> Vec<Entry> {
    let mut entries = Vec::new();
    let mut from = "-".to_owned();
    loop {
        let answer: Vec<Value> = command(url, &["XRANGE", key, &from, "+", "COUNT", &PAGE.to_string()]).await;
        let count = answer.len();
        for entry in answer {
            let (id, fields): (String, Vec<(String, String)>) =
                redis::from_redis_value(entry).expect("an entry is an id and its fields");
            from = format!("({id}");
            entries.push(Entry::new(fields));
        }
        if count < PAGE {
            return entries;
        }
    }
}

/// A message that a subscriber received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Its channel.
    pub channel: String,
    /// The message, byte for byte.
    pub event: String,
}

impl Message {
    /// The event.
    pub fn json(&self) -> serde_json::Value {
        parsed(&self.event)
    }

    /// The cursor of the event.
    pub fn cursor(&self) -> String {
        text(&self.json(), "cursor")
    }

    /// The id of the event.
    pub fn event_id(&self) -> String {
        text(&self.json(), "event_id")
    }
}

fn parsed(event: &str) -> serde_json::Value {
    serde_json::from_str(event).unwrap_or_else(|error| panic!("no JSON: {error}: {event}"))
}

/// A subscriber with a connection of its own, which keeps all messages. It does not reconnect.
#[derive(Debug)]
pub struct Subscriber {
    messages: Arc<Mutex<Vec<Message>>>,
    _task: JoinSet<()>,
}

impl Subscriber {
    /// Subscribes to channels, and returns once the subscription is active.
    pub async fn to(url: &str, channels: &[&str]) -> Self {
        Self::try_to(url, channels).await.expect("a Redis that answers")
    }

    /// The same for a Redis that may not exist.
    ///
    /// # Errors
    /// The URL is invalid, or no Redis answers there.
    pub async fn try_to(url: &str, channels: &[&str]) -> anyhow::Result<Self> {
        let mut connection = Client::open(url)?.get_async_pubsub().await?;
        connection.subscribe(channels).await?;
        let messages = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&messages);
        let mut task = JoinSet::new();
        task.spawn(async move {
            let mut arriving = connection.into_on_message();
            while let Some(message) = arriving.next().await {
                let event = message.get_payload().expect("messages are UTF-8");
                let channel = message.get_channel_name().to_owned();
                lock(&kept).push(Message { channel, event });
            }
        });
        Ok(Subscriber { messages, _task: task })
    }

    /// The messages received so far, in order.
    pub fn messages(&self) -> Vec<Message> {
        lock(&self.messages).clone()
    }

    /// The messages of one topic received so far, in order.
    pub fn of_topic(&self, topic: &str) -> Vec<Message> {
        lock(&self.messages)
            .iter()
            // Most messages may be of other tests, and parsing all of them would take long.
            .filter(|message| message.event.contains(topic) && message.json()["topic"] == topic)
            .cloned()
            .collect()
    }

    /// The number of messages received so far.
    pub fn count(&self) -> usize {
        lock(&self.messages).len()
    }

    /// The cursors of the messages received so far, in order.
    pub fn cursors(&self) -> Vec<String> {
        self.messages().iter().map(Message::cursor).collect()
    }

    /// The event ids of the messages received so far, in order.
    pub fn event_ids(&self) -> Vec<String> {
        self.messages().iter().map(Message::event_id).collect()
    }

    /// Waits until `count` messages were received, and returns all of them.
    pub async fn wait_for(&self, count: usize, deadline: Duration) -> Vec<Message> {
        eventually(deadline, async || {
            ensure!(self.count() >= count, "{} messages of {count}", self.count());
            Ok(())
        })
        .await;
        self.messages()
    }

    /// Waits until the event with this id was received, and returns all messages: those that a service published before it are
    /// among them.
    pub async fn wait_for_event(&self, event_id: &str, deadline: Duration) -> Vec<Message> {
        let mut looked_at = 0;
        eventually(deadline, async || {
            let messages = lock(&self.messages);
            let found = messages[looked_at..]
                .iter()
                .any(|message| message.event_id() == event_id);
            looked_at = messages.len();
            ensure!(found, "{event_id} is not among {looked_at} messages");
            Ok(())
        })
        .await;
        self.messages()
    }
}

fn lock(messages: &Mutex<Vec<Message>>) -> MutexGuard<'_, Vec<Message>> {
    messages.lock().unwrap_or_else(PoisonError::into_inner)
}
