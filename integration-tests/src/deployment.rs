//! A deployment that somebody else runs: where it answers, and the Redis that it publishes to. It may be one process or several
//! behind a balancer, on either store, with any data in it and with traffic of others.

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

/// How long anything may take that a healthy deployment does in milliseconds: settling, streaming, publishing on the channel.
pub const PROMPTLY: Duration = Duration::from_secs(10);

/// How many events end what is looked for on the channel. Behind a balancer that many requests meet every replica, and each
/// replica publishes in its own order.
const LAST_EVENTS: usize = 8;

/// Where a deployment is.
#[derive(Debug, Clone)]
pub struct Place {
    /// `http://HOST:PORT`
    pub base_url: String,
    /// The Redis that it publishes to, if it is known.
    pub redis_url: Option<String>,
    /// The channel.
    pub channel: String,
}

/// A deployment, as one check uses it: with connections of its own. It is asked as any [`Api`] is.
#[derive(Debug)]
pub struct Deployment {
    api: Api,
    place: Place,
}

impl Deref for Deployment {
    type Target = Api;

    fn deref(&self) -> &Api {
        &self.api
    }
}

impl Deployment {
    /// The deployment at this place, which is not asked anything yet.
    pub fn at(place: &Place) -> Self {
        Deployment {
            api: Api::at(&place.base_url),
            place: place.clone(),
        }
    }

    /// A topic that nobody has ever used.
    pub fn topic(&self) -> String {
        self.topic_like("tester")
    }

    /// A topic that nobody has ever used, whose name begins so.
    pub fn topic_like(&self, beginning: &str) -> String {
        format!("{beginning}-{}", Uuid::new_v4().simple())
    }

    /// Waits until `/readyz` says 200.
    ///
    /// # Errors
    /// It did not within `patience`: the last thing that happened instead.
    pub async fn ready_within(&self, patience: Duration) -> anyhow::Result<()> {
        within(patience, async || self.probe().await).await
    }

    async fn probe(&self) -> anyhow::Result<()> {
        let answer = try_ask(self.get("/readyz").timeout(Duration::from_secs(5))).await?;
        ensure!(
            answer.status == 200,
            "/readyz says {}: {}",
            answer.status,
            answer.text()
        );
        Ok(())
    }

    /// Whether it publishes to a Redis, by its own account.
    ///
    /// # Errors
    /// `/stats` is not answered, or says neither.
    pub async fn has_redis(&self) -> anyhow::Result<bool> {
        let answer = try_ask(self.get("/stats")).await?;
        ensure!(answer.status == 200, "/stats says {}", answer.status);
        let stats: Value = serde_json::from_slice(&answer.body).context("/stats is no JSON")?;
        match stats["fanout"].as_str() {
            Some("redis") => Ok(true),
            Some("process") => Ok(false),
            _ => anyhow::bail!("/stats names no fan-out that is known here: {}", stats["fanout"]),
        }
    }

    /// The figures of one topic in `/stats`: received, unique, duplicates and conflicts.
    pub async fn counts(&self, topic: &str) -> [u64; 4] {
        let stats = self.json(&format!("/stats?topic={}", encoded(topic))).await;
        ["received", "unique_processed", "duplicate_dropped", "conflicts"].map(|figure| {
            stats[figure]
                .as_u64()
                .unwrap_or_else(|| panic!("/stats?topic= has no {figure}: {stats}"))
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

    /// Subscribes to the channel, and returns once nothing can be missed any more.
    pub async fn subscribe(&self) -> Subscriber {
        let Some(url) = &self.place.redis_url else {
            panic!(
                "REDIS_URL is not set, and /stats says that the deployment publishes to a Redis: set it to that Redis"
            );
        };
        match timeout(PROMPTLY, Subscriber::try_to(url, &[&self.place.channel])).await {
            Ok(Ok(subscriber)) => subscriber,
            Ok(Err(error)) => panic!("the Redis that REDIS_URL names cannot be subscribed to: {error:#}"),
            Err(_) => panic!("the Redis that REDIS_URL names did not answer within {PROMPTLY:?}"),
        }
    }

    /// What came on the channel of one topic, once all has come that was published before this call. It ends the topic with
    /// events of its own, which are left out.
    pub async fn heard(&self, subscriber: &Subscriber, topic: &str) -> Vec<Message> {
        for number in 0..LAST_EVENTS {
            let answer = self.publish(&event(topic, &last_event(number))).await;
            assert_eq!(answer.status, 201, "{}", answer.text());
        }
        let stored = self.listed(topic).await;
        eventually(PROMPTLY, async || {
            let heard: HashSet<String> = subscriber.of_topic(topic).iter().map(Message::event_id).collect();
            let stored_ids = stored.iter().map(|event| text(event, "event_id"));
            let missing: Vec<String> = stored_ids.filter(|id| !heard.contains(id)).collect();
            ensure!(
                missing.is_empty(),
                "{} of {} stored events were not heard on the channel {:?}, such as {:?}",
                missing.len(),
                stored.len(),
                self.place.channel,
                missing[0]
            );
            Ok(())
        })
        .await;
        let last: Vec<String> = (0..LAST_EVENTS).map(last_event).collect();
        let mut heard = subscriber.of_topic(topic);
        heard.retain(|message| !last.contains(&message.event_id()));
        heard
    }
}

fn last_event(number: usize) -> String {
    format!("last-{number}")
}
