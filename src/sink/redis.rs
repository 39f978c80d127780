//! The sink that publishes to Redis: on a Pub/Sub channel, on channels of the topics, and in a stream. These are the only files
//! of the service that name the client libraries.
//!
//! The commands of a call go in one pipeline, through one connection that a deadpool opens. The connection is kept out of the
//! pool: any error discards it, for answers that are still to come could be taken for those to the next commands.
//!
//! With a stream, entries and messages go in one `MULTI`/`EXEC`: a Redis that is full, or a replica, rejects the entry of a
//! stream when it is queued, and with it the whole transaction, so that nothing was published and a channel repeats nothing
//! (a lone `PUBLISH` would succeed in a Redis that is full). Without a stream a replica would take `PUBLISH` too, and deliver
//! only to its own subscribers: therefore `ROLE` goes with each pipeline.
//!
//! An event is at most some 260 KiB, and the least limit that Redis can be given for a string is 1 MiB, so size alone never
//! makes Redis reject one; a service in between may have other limits.

mod commands;
mod error;

use std::time::Duration;

use ::redis::aio::MultiplexedConnection;
use ::redis::{AsyncConnectionConfig, IntoConnectionInfo, Value, cmd};
use async_trait::async_trait;
use deadpool_redis::{Connection, Manager, Pool};
use tokio::sync::Mutex;

use self::commands::{Commands, check_role};
use self::error::{sink_error, without_url};
use super::contract::{Sink, SinkError, SinkErrorKind, Undeliverable};
use crate::config::{ConfigError, RedisConfig};
use crate::event::StoredEvent;

/// How long opening a connection may take at most; less where an answer may take less.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// Publishes to a Redis.
pub struct RedisSink {
    config: RedisConfig,
    pool: Pool,
    link: Mutex<Option<Link>>,
}

/// The connection in use.
struct Link {
    connection: MultiplexedConnection,
    /// Whether the user has permission to ask for the `ROLE`.
    asks_role: bool,
}

impl RedisSink {
    /// Reads the configuration; connects when it is used.
    ///
    /// # Errors
    /// [`ConfigError`] when the URL is invalid. It does not show the URL, which may hold a password.
    pub fn open(config: RedisConfig) -> Result<Self, ConfigError> {
        let invalid = |error: &dyn std::fmt::Display| ConfigError(vec![format!("REDIS_URL is invalid: {error}")]);
        let info = config
            .url
            .expose()
            .into_connection_info()
            .map_err(|error| invalid(&without_url(&error)))?;
        let tcp = info.tcp_settings().clone().set_nodelay(true);
        let settings = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_TIMEOUT.min(config.publishing.timeout)))
            .set_response_timeout(Some(config.publishing.timeout));
        let manager = Manager::new_with_config(info.set_tcp_settings(tcp), settings)
            .map_err(|error| invalid(&without_url(&error)))?;
        let pool = Pool::builder(manager)
            .max_size(1)
            .build()
            .map_err(|error| invalid(&error))?;
        Ok(Self {
            config,
            pool,
            link: Mutex::new(None),
        })
    }

    /// Opens a connection and checks the server.
    async fn open_link(&self) -> Result<Link, SinkError> {
        let opening = async {
            let connection = self.pool.get().await.map_err(|error| match error {
                deadpool_redis::PoolError::Backend(error) => sink_error("failed to connect to Redis", &error),
                error => SinkError::new(
                    SinkErrorKind::Unreachable,
                    format!("failed to connect to Redis: {error}"),
                ),
            })?;
            // Out of the pool: a connection that failed, or was dropped in use, must not come back.
            let mut connection = Connection::take(connection);
            let asks_role = self.check_server(&mut connection).await?;
            Ok(Link { connection, asks_role })
        };
        tokio::time::timeout(self.config.publishing.timeout, opening)
            .await
            .unwrap_or_else(|_| {
                Err(SinkError::new(
                    SinkErrorKind::Unreachable,
                    "failed to connect to Redis: timed out",
                ))
            })
    }

    /// Checks that a server takes writes, and that the key of the stream holds one. Returns whether the user may ask for the role.
    async fn check_server(&self, connection: &mut MultiplexedConnection) -> Result<bool, SinkError> {
        let asks_role = match cmd("ROLE").query_async::<Value>(connection).await {
            Ok(role) => {
                check_role(&role)?;
                true
            }
            Err(error) if error.code() == Some("NOPERM") => false,
            Err(error) => return Err(sink_error("failed to read the role of Redis", &error)),
        };
        if let Some(stream) = &self.config.publishing.stream {
            match cmd("TYPE").arg(stream).query_async::<String>(connection).await {
                Ok(kind) if kind != "none" && kind != "stream" => {
                    let line = format!("the key of REDIS_STREAM holds a {kind}, not a stream");
                    return Err(SinkError::new(SinkErrorKind::Forbidden, line));
                }
                Err(error) if error.code() != Some("NOPERM") => {
                    return Err(sink_error("failed to read the type of the stream's key", &error));
                }
                _ => {}
            }
        }
        Ok(asks_role)
    }

    /// Sends the events in a pipeline. Where it was a transaction and Redis rejected some of the events, nothing was done, and
    /// the others are sent again.
    async fn send(&self, link: &mut Link, events: &[StoredEvent]) -> Result<Vec<Undeliverable>, SinkError> {
        let mut undeliverable: Vec<Undeliverable> = Vec::new();
        let mut left: Vec<(usize, &StoredEvent)> = events.iter().enumerate().collect();
        while !left.is_empty() {
            let commands = Commands::new(&self.config, link.asks_role, &left);
            let error = match commands.pipeline.query_async::<Value>(&mut link.connection).await {
                Ok(answers) => {
                    commands.check_role(&answers)?;
                    break;
                }
                Err(error) => error,
            };
            let was_aborted = error.code() == Some("EXECABORT");
            let Some(errors) = error.clone().into_server_errors().filter(|errors| !errors.is_empty()) else {
                return Err(sink_error("publishing", &error));
            };
            let found = commands.undeliverable(&errors)?;
            left.retain(|(index, _)| !found.iter().any(|event| event.index == *index));
            undeliverable.extend(found);
            if !was_aborted {
                break;
            }
        }
        undeliverable.sort_by_key(|event| event.index);
        undeliverable.dedup_by_key(|event| event.index);
        Ok(undeliverable)
    }
}

#[async_trait]
impl Sink for RedisSink {
    async fn connect(&self) -> Result<(), SinkError> {
        let mut slot = self.link.lock().await;
        if let Some(link) = slot.as_mut() {
            if let Ok(asks_role) = self.check_server(&mut link.connection).await {
                link.asks_role = asks_role;
                return Ok(());
            }
            *slot = None;
        }
        *slot = Some(self.open_link().await?);
        Ok(())
    }

    async fn publish(&self, events: &[StoredEvent]) -> Result<Vec<Undeliverable>, SinkError> {
        let mut slot = self.link.lock().await;
        let link = match slot.as_mut() {
            Some(link) => link,
            None => slot.insert(self.open_link().await?),
        };
        let sent = self.send(link, events).await;
        if sent.is_err() {
            *slot = None;
        }
        sent
    }
}
