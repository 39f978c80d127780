//! The sink that publishes to Redis: on a Pub/Sub channel, on channels of the topics, and in a stream. These are the only files
//! of the service that name the client library.
//!
//! The commands of a call go in one pipeline, through one connection. Any error discards it, for answers that are still to come could be
//! taken for those to the next commands; the next one leads to the server that is right by then ([`servers`]).
//!
//! With a stream, entries and messages go in one `MULTI`/`EXEC`: a Redis that is full, or a replica, rejects the entry of a
//! stream when it is queued, and with it the whole transaction, so that nothing was published and a channel repeats nothing
//! (a lone `PUBLISH` would succeed in a Redis that is full). Without a stream a replica would take `PUBLISH` too, and deliver
//! only to its own subscribers: therefore `ROLE` goes with each pipeline.
//!
//! In a Cluster that pipeline goes to the node that has the stream's key: from there `PUBLISH` reaches the subscribers of every node.
//! Messages on sharded channels follow it in a pipeline for each node that has some of them.
//!
//! An event is at most some 260 KiB, and the least limit that Redis can be given for a string is 1 MiB, so size alone never
//! makes Redis reject one; a service in between may have other limits.

mod cluster;
mod commands;
pub(super) mod error;
mod links;
pub(super) mod servers;
mod stream_size;

use async_trait::async_trait;
use tokio::sync::Mutex;

use self::commands::Prepared;
use self::links::Links;
use self::servers::Servers;
use super::contract::{Sink, SinkError, SinkErrorKind, Undeliverable};
use crate::config::RedisConfig;
use crate::event::StoredEvent;

/// For how many answers a call waits at most: that to a new connection, and that to its commands. A lease on a batch is longer.
const ANSWERS_MAX: u32 = 2;

/// Publishes to a Redis.
pub struct RedisSink {
    config: RedisConfig,
    servers: Servers,
    links: Mutex<Option<Links>>,
}

/// How much of a call is done.
#[derive(Default)]
struct Progress {
    undeliverable: Vec<Undeliverable>,
    /// Whether only messages on sharded channels are left.
    is_sent: bool,
}

impl RedisSink {
    /// Connects when it is used.
    pub fn new(config: RedisConfig) -> Self {
        Self {
            servers: Servers::new(config.channel.access.clone(), config.publishing.timeout),
            links: Mutex::new(None),
            config,
        }
    }

    async fn open(&self) -> Result<Links, SinkError> {
        let opening = Links::open(&self.servers, &self.config);
        let opened = tokio::time::timeout(self.config.publishing.timeout, opening).await;
        let opened = opened.unwrap_or_else(|_| {
            Err(SinkError::new(
                SinkErrorKind::Unreachable,
                format!("failed to connect to Redis: {}", self.servers.no_answer()),
            ))
        });
        opened.map_err(|error| self.in_cluster(error))
    }

    /// The same error, or what it means in a Cluster: `MOVED` is a slot that is on its way.
    fn in_cluster(&self, error: SinkError) -> SinkError {
        if self.is_moved(&error) {
            let line = "a slot of the Cluster has moved, or is being moved";
            return SinkError::new(SinkErrorKind::Starting, line);
        }
        error
    }

    fn is_moved(&self, error: &SinkError) -> bool {
        error.is_moved && self.servers.is_cluster()
    }

    async fn send(
        &self,
        links: &mut Links,
        left: &mut Vec<Prepared<'_>>,
        progress: &mut Progress,
    ) -> Result<(), SinkError> {
        if !progress.is_sent {
            progress.undeliverable.extend(links.send(&self.config, left).await?);
            progress.is_sent = true;
        }
        let rejected = links.send_sharded(&self.servers, &self.config, left).await?;
        progress.undeliverable.extend(rejected);
        Ok(())
    }

    async fn publish_through(
        &self,
        slot: &mut Option<Links>,
        events: &[StoredEvent],
    ) -> Result<Vec<Undeliverable>, SinkError> {
        let events = events.iter().enumerate();
        let mut left: Vec<_> = events.map(|(index, event)| Prepared::new(index, event)).collect();
        let mut progress = Progress::default();
        let links = match slot.as_mut() {
            Some(links) => links,
            None => slot.insert(self.open().await?),
        };
        let mut sent = self.send(links, &mut left, &mut progress).await;
        if sent.as_ref().is_err_and(|error| self.is_moved(error)) {
            // Another node has the slot: it is asked for once. If it is still on its way, the events wait in the outbox.
            let links = slot.insert(self.open().await?);
            sent = self.send(links, &mut left, &mut progress).await;
        }
        sent.map_err(|error| self.in_cluster(error))?;
        let mut undeliverable = progress.undeliverable;
        undeliverable.sort_by_key(|event| event.index);
        undeliverable.dedup_by_key(|event| event.index);
        Ok(undeliverable)
    }
}

#[async_trait]
impl Sink for RedisSink {
    async fn connect(&self) -> Result<(), SinkError> {
        let mut slot = self.links.lock().await;
        if let Some(links) = slot.as_mut() {
            if links.check_server(&self.config).await.is_ok() {
                return Ok(());
            }
            *slot = None;
        }
        *slot = Some(self.open().await?);
        Ok(())
    }

    async fn publish(&self, events: &[StoredEvent]) -> Result<Vec<Undeliverable>, SinkError> {
        let mut slot = self.links.lock().await;
        let limit = self.config.publishing.timeout * ANSWERS_MAX;
        let published = tokio::time::timeout(limit, self.publish_through(&mut slot, events)).await;
        let published = published.unwrap_or_else(|_| {
            Err(SinkError::new(
                SinkErrorKind::Unreachable,
                "publishing: Redis does not answer in time",
            ))
        });
        if published.is_err() {
            *slot = None;
        }
        published
    }
}
