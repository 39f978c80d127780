//! The fan-out to Redis: a Pub/Sub channel, channels of the topics, and a stream. The only file of the service that names the
//! client libraries.
//!
//! Commands go in one pipeline for each call, through one connection that a deadpool opens. It is kept out of the pool: any
//! failure discards it, for what it still has to say could be taken for the answer to what comes next.
//!
//! With a stream, entries and messages go in one `MULTI`/`EXEC`: a Redis that is full or a replica refuses a stream's entry
//! when it is queued, and with it the whole transaction, so that nothing was published and a channel does not repeat itself
//! (a lone `PUBLISH` would succeed in a Redis that is full). Without a stream a replica would take `PUBLISH` too, and tell
//! only its own subscribers: there `ROLE` goes with each pipeline.
//!
//! An event is at most some 260 KiB, and the least limit that Redis can be given for a string is 1 MiB, so size alone never
//! makes Redis refuse one; a service in between may have other limits.

use std::time::Duration;

use ::redis::aio::MultiplexedConnection;
use ::redis::{AsyncConnectionConfig, Cmd, IntoConnectionInfo, Pipeline, RedisError, ServerError, Value, cmd};
use async_trait::async_trait;
use deadpool_redis::{Connection, Manager, Pool};
use tokio::sync::Mutex;

use super::{Sink, SinkError, SinkErrorKind, Undeliverable};
use crate::api::events::{self, Form};
use crate::config::{ConfigError, RedisConfig};
use crate::event::StoredEvent;

/// How long opening a connection may take, at most: less than an answer where that may take long.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// Between the name of the channel of all events and a topic, in the name of the topic's channel.
const TOPIC_SEPARATOR: &str = ":";

/// The fields of a stream's entry, in their order; that of a traced event has one more.
const FIELDS: [&str; 4] = ["topic", "event_id", "cursor", "event"];
const TRACE_FIELD: &str = "traceparent";

/// The fan-out to a Redis.
pub struct Redis {
    config: RedisConfig,
    pool: Pool,
    /// The connection in use, and whether it may ask for its `ROLE`.
    connection: Mutex<Option<Link>>,
}

struct Link {
    connection: MultiplexedConnection,
    asks_role: bool,
}

impl Redis {
    /// Understands the configuration; connects to nothing yet.
    ///
    /// # Errors
    /// [`ConfigError`] when the URL is not understood. It is not shown: it may hold a password.
    pub fn open(config: RedisConfig) -> Result<Self, ConfigError> {
        let misunderstood =
            |error: &dyn std::fmt::Display| ConfigError(vec![format!("REDIS_URL is not understood: {error}")]);
        let info = config
            .url
            .expose()
            .into_connection_info()
            .map_err(|error| misunderstood(&error.kind_text()))?;
        let tcp = info.tcp_settings().clone().set_nodelay(true);
        let settings = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_TIMEOUT.min(config.timeout)))
            .set_response_timeout(Some(config.timeout));
        let manager = Manager::new_with_config(info.set_tcp_settings(tcp), settings)
            .map_err(|error| misunderstood(&error.kind_text()))?;
        let pool = Pool::builder(manager)
            .max_size(1)
            .build()
            .map_err(|error| misunderstood(&error))?;
        Ok(Self {
            config,
            pool,
            connection: Mutex::new(None),
        })
    }

    /// A connection that was looked at.
    async fn link(&self) -> Result<Link, SinkError> {
        let opening = async {
            let connection = self.pool.get().await.map_err(|error| match error {
                deadpool_redis::PoolError::Backend(error) => failure("connecting", &error),
                error => SinkError::new(SinkErrorKind::Unreachable, format!("connecting to Redis: {error}")),
            })?;
            // Out of the pool: what fails, or is given up, must not come back.
            let mut connection = Connection::take(connection);
            let asks_role = self.look(&mut connection).await?;
            Ok(Link { connection, asks_role })
        };
        tokio::time::timeout(self.config.timeout, opening)
            .await
            .unwrap_or_else(|_| {
                Err(SinkError::new(
                    SinkErrorKind::Unreachable,
                    "connecting to Redis took too long",
                ))
            })
    }

    /// Looks at a server: whether it takes writes, and whether our stream is one. Answers whether it may be asked for its role.
    async fn look(&self, connection: &mut MultiplexedConnection) -> Result<bool, SinkError> {
        let asks_role = match cmd("ROLE").query_async::<Value>(connection).await {
            Ok(role) => {
                check_role(&role)?;
                true
            }
            Err(error) if error.code() == Some("NOPERM") => false,
            Err(error) => return Err(failure("asking for the role", &error)),
        };
        if let Some(stream) = &self.config.stream {
            match cmd("TYPE").arg(stream).query_async::<String>(connection).await {
                Ok(kind) if kind != "none" && kind != "stream" => {
                    let line = format!("what lies under REDIS_STREAM is no stream but a {kind}");
                    return Err(SinkError::new(SinkErrorKind::Forbidden, line));
                }
                Err(error) if error.code() != Some("NOPERM") => return Err(failure("looking at the stream", &error)),
                _ => {}
            }
        }
        Ok(asks_role)
    }

    /// The commands for these events. With a stream they are one transaction.
    fn commands(&self, link: &Link, events: &[(usize, &StoredEvent)]) -> Commands {
        let mut commands = Commands::default();
        let json: Vec<Vec<u8>> = events
            .iter()
            .map(|(_, event)| {
                let mut json = Vec::with_capacity(event.event.payload.as_str().len() + 256);
                events::StoredEvent::of(event, Form::AsSent).write_json(&mut json);
                json
            })
            .collect();
        match &self.config.stream {
            Some(stream) => {
                commands.pipeline.atomic();
                for ((index, event), json) in events.iter().zip(&json) {
                    commands.add(*index, Kind::Entry, self.entry(stream, event, json));
                }
            }
            None if link.asks_role => commands.add(usize::MAX, Kind::Role, cmd("ROLE")),
            None => {}
        }
        for ((index, event), json) in events.iter().zip(&json) {
            commands.add(*index, Kind::Channel, publish(&self.config.channel, json));
            if self.config.has_topic_channels {
                let channel = format!("{}{TOPIC_SEPARATOR}{}", self.config.channel, event.event.topic);
                commands.add(*index, Kind::TopicChannel, publish(&channel, json));
            }
        }
        commands
    }

    fn entry(&self, stream: &str, event: &StoredEvent, json: &[u8]) -> Cmd {
        let mut entry = cmd("XADD");
        entry
            .arg(stream)
            .arg("MAXLEN")
            .arg("~")
            .arg(self.config.stream_length_max)
            .arg("*");
        let cursor = event.cursor.to_string();
        let values = [
            event.event.topic.as_str().as_bytes(),
            event.event.event_id.as_str().as_bytes(),
            cursor.as_bytes(),
            json,
        ];
        for (field, value) in FIELDS.iter().zip(values) {
            entry.arg(field).arg(value);
        }
        if let Some(trace) = &event.trace {
            entry.arg(TRACE_FIELD).arg(trace.as_str());
        }
        entry
    }

    /// Sends the pipeline, again without those that Redis refuses for themselves where it was a transaction: nothing of that
    /// was done.
    async fn send(&self, link: &mut Link, events: &[StoredEvent]) -> Result<Vec<Undeliverable>, SinkError> {
        let mut refusals: Vec<Undeliverable> = Vec::new();
        let mut left: Vec<(usize, &StoredEvent)> = events.iter().enumerate().collect();
        while !left.is_empty() {
            let commands = self.commands(link, &left);
            let error = match commands.pipeline.query_async::<Value>(&mut link.connection).await {
                Ok(answers) => {
                    commands.check_role(&answers)?;
                    break;
                }
                Err(error) => error,
            };
            let was_aborted = error.code() == Some("EXECABORT");
            let Some(errors) = error.clone().into_server_errors().filter(|errors| !errors.is_empty()) else {
                return Err(failure("publishing", &error));
            };
            let found = commands.culprits(&errors)?;
            left.retain(|(index, _)| !found.iter().any(|refusal| refusal.index == *index));
            refusals.extend(found);
            if !was_aborted {
                break;
            }
        }
        refusals.sort_by_key(|refusal| refusal.index);
        refusals.dedup_by_key(|refusal| refusal.index);
        Ok(refusals)
    }
}

#[async_trait]
impl Sink for Redis {
    async fn connect(&self) -> Result<(), SinkError> {
        let mut slot = self.connection.lock().await;
        if let Some(link) = slot.as_mut() {
            if let Ok(asks_role) = self.look(&mut link.connection).await {
                link.asks_role = asks_role;
                return Ok(());
            }
            *slot = None;
        }
        *slot = Some(self.link().await?);
        Ok(())
    }

    async fn publish(&self, events: &[StoredEvent]) -> Result<Vec<Undeliverable>, SinkError> {
        let mut slot = self.connection.lock().await;
        let link = match slot.as_mut() {
            Some(link) => link,
            None => slot.insert(self.link().await?),
        };
        let sent = self.send(link, events).await;
        if sent.is_err() {
            *slot = None;
        }
        sent
    }
}

fn publish(channel: &str, json: &[u8]) -> Cmd {
    let mut publish = cmd("PUBLISH");
    publish.arg(channel).arg(json);
    publish
}

/// What a command of a pipeline is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Role,
    Entry,
    Channel,
    TopicChannel,
}

/// A pipeline, and for each command what it is for and the index of its event.
#[derive(Default)]
struct Commands {
    pipeline: Pipeline,
    places: Vec<(usize, Kind)>,
}

impl Commands {
    fn add(&mut self, index: usize, kind: Kind, command: Cmd) {
        self.pipeline.add_command(command);
        self.places.push((index, kind));
    }

    /// Whether the server that took the pipeline is still a master, where it was asked.
    fn check_role(&self, answers: &Value) -> Result<(), SinkError> {
        match (self.places.first(), answers) {
            (Some((_, Kind::Role)), Value::Array(answers)) => answers.first().map_or(Ok(()), check_role),
            _ => Ok(()),
        }
    }

    /// The events that these errors are about, if each is about one event; else what is wrong with the server.
    fn culprits(&self, errors: &[(usize, ServerError)]) -> Result<Vec<Undeliverable>, SinkError> {
        let mut refusals = Vec::with_capacity(errors.len());
        for (number, error) in errors {
            let place = self.places.get(*number).copied();
            let (index, kind) = place.ok_or_else(|| refused("publishing", error))?;
            let of_its_kind = |(_, other): &&(usize, Kind)| *other == kind;
            let all_failed = || {
                let failed = errors
                    .iter()
                    .filter_map(|(number, _)| self.places.get(*number))
                    .filter(of_its_kind);
                failed.count() == self.places.iter().filter(of_its_kind).count()
            };
            let is_of_the_event = match error_kind(error) {
                // A rule on the names of channels: that of the topic is the event's own.
                SinkErrorKind::Forbidden => kind == Kind::TopicChannel && error.code() == "NOPERM",
                // Where others of its kind went well it is not the server.
                SinkErrorKind::Odd => is_about_size(error) || !all_failed(),
                _ => false,
            };
            if !is_of_the_event {
                return Err(refused("publishing", error));
            }
            refusals.push(Undeliverable {
                index,
                reason: line(error),
            });
        }
        Ok(refusals)
    }
}

/// Refuses a server that is no master.
fn check_role(role: &Value) -> Result<(), SinkError> {
    let name = match role {
        Value::Array(parts) => parts.first(),
        _ => None,
    };
    let is_master = match name {
        Some(Value::BulkString(name)) => name == b"master",
        Some(Value::SimpleString(name)) => name == "master",
        _ => true,
    };
    if is_master {
        return Ok(());
    }
    Err(SinkError::new(SinkErrorKind::ReadOnly, "this Redis is a replica"))
}

/// What Redis says of a string that is too large.
fn is_about_size(error: &ServerError) -> bool {
    let details = error.details().unwrap_or_default();
    ["maximum allowed size", "too large", "too big"]
        .iter()
        .any(|words| details.contains(words))
}

/// What an answer that is an error says about the server.
fn error_kind(error: &ServerError) -> SinkErrorKind {
    match error.code() {
        "OOM" => SinkErrorKind::Full,
        "READONLY" | "NOREPLICAS" => SinkErrorKind::ReadOnly,
        "LOADING" | "BUSY" | "MASTERDOWN" | "CLUSTERDOWN" | "TRYAGAIN" | "MISCONF" | "UNKILLABLE" => {
            SinkErrorKind::Starting
        }
        "NOPERM" | "NOAUTH" | "WRONGPASS" | "WRONGTYPE" | "MOVED" | "ASK" | "CROSSSLOT" => SinkErrorKind::Forbidden,
        _ => SinkErrorKind::Odd,
    }
}

fn line(error: &ServerError) -> String {
    format!("{} {}", error.code(), error.details().unwrap_or_default())
        .trim()
        .to_owned()
}

fn refused(doing: &str, error: &ServerError) -> SinkError {
    SinkError::new(error_kind(error), format!("{doing}: Redis says {}", line(error)))
}

/// A failure of the client, or an error that the server answered with.
fn failure(doing: &str, error: &RedisError) -> SinkError {
    match error.clone().into_server_errors().as_deref() {
        Some([(_, error), ..]) => refused(doing, error),
        _ if error.kind() == ::redis::ErrorKind::AuthenticationFailed => SinkError::new(
            SinkErrorKind::Forbidden,
            format!("{doing}: Redis refuses the password or the user"),
        ),
        _ => SinkError::new(SinkErrorKind::Unreachable, format!("{doing}: {}", error.kind_text())),
    }
}

/// What an error of the client is, without what it may quote of a URL.
trait KindText {
    fn kind_text(&self) -> String;
}

impl KindText for RedisError {
    fn kind_text(&self) -> String {
        match std::error::Error::source(self) {
            Some(source) => source.to_string(),
            None => self.category().to_owned(),
        }
    }
}
