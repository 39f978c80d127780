//! A running deployment: its base URL, and the Redis that it publishes to. It may be one process or several behind a balancer, on
//! either store, with any data in it and with traffic of other clients.

use std::collections::HashSet;
use std::ops::Deref;
use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::Value;
use tokio::time::timeout;
use uuid::Uuid;

use crate::api::Api;
use crate::eventually::{eventually, within};
use crate::http::{encoded, try_ask};
use crate::publish::{Publish, event, text};
use crate::redis::{Message, Subscriber};

/// How long anything may take that a healthy deployment does in milliseconds: becoming stable, streaming, publishing on the channel.
pub const PROMPTLY: Duration = Duration::from_secs(10);

/// The number of events that mark the end of a topic on the channel. Behind a balancer this many requests reach every replica, and
/// each replica publishes in its own order.
const LAST_EVENTS: usize = 8;

/// The addresses of a deployment.
#[derive(Debug, Clone)]
pub struct Endpoints {
    /// `http://HOST:PORT`
    pub base_url: String,
    /// The Redis that it publishes to, if known.
    pub redis_url: Option<String>,
    /// The channel.
    pub channel: String,
}

/// A deployment, with the methods of an [`Api`] and with connections of its own.
#[derive(Debug)]
pub struct Deployment {
    api: Api,
    endpoints: Endpoints,
}

impl Deref for Deployment {
    type Target = Api;

    fn deref(&self) -> &Api {
        &self.api
    }
}

impl Deployment {
    /// The deployment at these endpoints. No request is sent yet.
    pub fn at(endpoints: &Endpoints) -> Self {
        Deployment {
            api: Api::at(&endpoints.base_url),
            endpoints: endpoints.clone(),
        }
    }

    /// A topic that was never used before.
    pub fn topic(&self) -> String {
        self.topic_like("tester")
    }

    /// The same with this prefix.
    pub fn topic_like(&self, prefix: &str) -> String {
        format!("{prefix}-{}", Uuid::new_v4().simple())
    }

    /// Waits until `/readyz` answers 200.
    ///
    /// # Errors
    /// The last error, when `patience` is over.
    pub async fn ready_within(&self, patience: Duration) -> anyhow::Result<()> {
        within(patience, async || self.probe().await).await
    }

    async fn probe(&self) -> anyhow::Result<()> {
        let answer = try_ask(self.get("/readyz").timeout(Duration::from_secs(5))).await?;
        ensure!(
            answer.status == 200,
            "/readyz answers {}: {}",
            answer.status,
            answer.text()
        );
        Ok(())
    }

    /// Whether `/stats` reports a Redis.
    ///
    /// # Errors
    /// `/stats` is not answered, or names another sink.
    pub async fn has_redis(&self) -> anyhow::Result<bool> {
        let answer = try_ask(self.get("/stats")).await?;
        ensure!(answer.status == 200, "/stats answers {}", answer.status);
        let stats: Value = serde_json::from_slice(&answer.body).context("/stats is no JSON")?;
        match stats["fanout"].as_str() {
            Some("redis") => Ok(true),
            Some("process") => Ok(false),
            _ => anyhow::bail!("/stats names an unknown fanout: {}", stats["fanout"]),
        }
    }

    /// The counters of one topic in `/stats`: received, unique, duplicates and conflicts.
    pub async fn counts(&self, topic: &str) -> [u64; 4] {
        let stats = self.json(&format!("/stats?topic={}", encoded(topic))).await;
        ["received", "unique_processed", "duplicate_dropped", "conflicts"].map(|member| {
            stats[member]
                .as_u64()
                .unwrap_or_else(|| panic!("/stats?topic= has no {member}: {stats}"))
        })
    }

    /// All events of one topic (at most 1000) as a list shows them.
    pub async fn listed(&self, topic: &str) -> Vec<Value> {
        let body = self.json(&format!("/events?topic={}&limit=1000", encoded(topic))).await;
        body["events"]
            .as_array()
            .unwrap_or_else(|| panic!("no list of events: {body}"))
            .clone()
    }

    /// Subscribes to the channel, and returns once the subscription is active.
    pub async fn subscribe(&self) -> Subscriber {
        let Some(url) = &self.endpoints.redis_url else {
            panic!(
                "REDIS_URL is not set, and /stats reports that the deployment publishes to a Redis: set it to that Redis"
            );
        };
        match timeout(PROMPTLY, Subscriber::try_to(url, &[&self.endpoints.channel])).await {
            Ok(Ok(subscriber)) => subscriber,
            Ok(Err(error)) => panic!("the Redis that REDIS_URL names cannot be subscribed to: {error:#}"),
            Err(_) => panic!("the Redis that REDIS_URL names did not answer within {PROMPTLY:?}"),
        }
    }

    /// The messages of one topic, once all have arrived that were published before this call. Events that mark the end are
    /// published to the topic, and left out of the result.
    pub async fn messages(&self, subscriber: &Subscriber, topic: &str) -> Vec<Message> {
        for number in 0..LAST_EVENTS {
            let answer = self.publish(&event(topic, &last_event(number))).await;
            assert_eq!(answer.status, 201, "{}", answer.text());
        }
        let stored = self.listed(topic).await;
        eventually(PROMPTLY, async || {
            let received: HashSet<String> = subscriber.of_topic(topic).iter().map(Message::event_id).collect();
            let stored_ids = stored.iter().map(|event| text(event, "event_id"));
            let missing: Vec<String> = stored_ids.filter(|id| !received.contains(id)).collect();
            ensure!(
                missing.is_empty(),
                "{} of {} stored events have no message on the channel {:?}, such as {:?}",
                missing.len(),
                stored.len(),
                self.endpoints.channel,
                missing[0]
            );
            Ok(())
        })
        .await;
        let last: Vec<String> = (0..LAST_EVENTS).map(last_event).collect();
        let mut messages = subscriber.of_topic(topic);
        messages.retain(|message| !last.contains(&message.event_id()));
        messages
    }
}

fn last_event(number: usize) -> String {
    format!("last-{number}")
}
