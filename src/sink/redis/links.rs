//! The connections that a sink publishes through: one to the server that has the stream, and in a Cluster with sharded channels one to each
//! node that has some of them.

use std::collections::HashMap;

use ::redis::aio::MultiplexedConnection;
use ::redis::{Value, cmd};

use super::cluster::Slots;
use super::commands::{Commands, Prepared, check_role};
use super::error::sink_error;
use super::servers::Servers;
use super::stream_size::StreamSize;
use crate::config::{Host, RedisConfig};
use crate::sink::contract::{SinkError, SinkErrorKind, Undeliverable};

/// How often room is made in a Redis that the stream has filled, before the events wait in the outbox.
const ROOM_ATTEMPTS_MAX: u32 = 4;

/// The connections in use.
pub(super) struct Links {
    main: MultiplexedConnection,
    /// Whether the user has permission to ask for the `ROLE`.
    asks_role: bool,
    size: StreamSize,
    shards: Option<Shards>,
}

/// The nodes that have sharded channels.
struct Shards {
    slots: Slots,
    connections: HashMap<Host, MultiplexedConnection>,
}

impl Links {
    /// Opens a connection, and checks the server.
    pub(super) async fn open(servers: &Servers, config: &RedisConfig) -> Result<Self, SinkError> {
        let key = config.publishing.stream.as_ref().unwrap_or(&config.channel.name);
        let client = servers.find(key).await?;
        let main = servers.connect(&client, "failed to connect to Redis").await?;
        let mut links = Self {
            main,
            asks_role: true,
            size: StreamSize::new(config.publishing.stream_bytes_max),
            shards: None,
        };
        links.check_server(config).await?;
        if config.channel.is_sharded {
            links.shards = Some(Shards {
                slots: servers.slots().await?,
                connections: HashMap::new(),
            });
        }
        Ok(links)
    }

    /// Checks that the server takes writes, and that the key of the stream holds one.
    pub(super) async fn check_server(&mut self, config: &RedisConfig) -> Result<(), SinkError> {
        self.asks_role = match cmd("ROLE").query_async::<Value>(&mut self.main).await {
            Ok(role) => {
                check_role(&role)?;
                true
            }
            Err(error) if error.code() == Some("NOPERM") => false,
            Err(error) => return Err(sink_error("failed to read the role of Redis", &error)),
        };
        if let Some(stream) = &config.publishing.stream {
            match cmd("TYPE").arg(stream).query_async::<String>(&mut self.main).await {
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
        Ok(())
    }

    /// Sends the events in one pipeline, but for messages on sharded channels. Where it was a transaction and Redis rejected some of the
    /// events, nothing was done, and the others are sent again; those that it rejected are gone from `events`.
    pub(super) async fn send(
        &mut self,
        config: &RedisConfig,
        events: &mut Vec<Prepared<'_>>,
    ) -> Result<Vec<Undeliverable>, SinkError> {
        let mut undeliverable: Vec<Undeliverable> = Vec::new();
        let mut room_attempts = 0;
        let stream = config.publishing.stream.as_deref();
        while !events.is_empty() {
            let commands = Commands::new(config, self.asks_role, events);
            let sent = match (commands.send(&mut self.main).await, stream) {
                (Err(error), Some(stream))
                    if error.kind == SinkErrorKind::Full
                        && room_attempts < ROOM_ATTEMPTS_MAX
                        && self.size.make_room(&mut self.main, stream).await =>
                {
                    room_attempts += 1;
                    continue;
                }
                (sent, _) => sent?,
            };
            events.retain(|event| !sent.undeliverable.iter().any(|found| found.index == event.index));
            undeliverable.extend(sent.undeliverable);
            if !sent.is_aborted {
                break;
            }
        }
        if let Some(stream) = stream {
            let sizes = events.iter().map(|event| event.json.len());
            let measured = self.size.appended(&mut self.main, stream, sizes).await;
            // The events are published; the next pipeline finds that the connection has gone.
            measured.unwrap_or_else(|error| tracing::debug!("failed to measure the stream: {error}"));
        }
        Ok(undeliverable)
    }

    /// Publishes the events on their sharded channels, with one pipeline for each node.
    pub(super) async fn send_sharded(
        &mut self,
        servers: &Servers,
        config: &RedisConfig,
        events: &[Prepared<'_>],
    ) -> Result<Vec<Undeliverable>, SinkError> {
        let Some(shards) = &mut self.shards else {
            return Ok(Vec::new());
        };
        let mut by_node: HashMap<Host, Commands> = HashMap::new();
        for event in events {
            for (kind, channel) in event.channels(config) {
                let node = shards.slots.node_of(&channel)?.clone();
                by_node.entry(node).or_default().add_sharded(event, kind, &channel);
            }
        }
        let mut undeliverable = Vec::new();
        for (node, commands) in by_node {
            let connection = match shards.connections.get_mut(&node) {
                Some(connection) => connection,
                None => {
                    let doing = format!("failed to connect to the node {node}");
                    let connection = servers.connect(&servers.client(&node)?, &doing).await?;
                    shards.connections.entry(node).or_insert(connection)
                }
            };
            undeliverable.extend(commands.send(connection).await?.undeliverable);
        }
        Ok(undeliverable)
    }
}
