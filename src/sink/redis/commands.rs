//! The commands of one pipeline, and what their answers mean.

use ::redis::aio::MultiplexedConnection;
use ::redis::{Cmd, Pipeline, ServerError, Value, cmd};

use super::error::{is_about_size, kind_of, line, server_error, sink_error};
use crate::api::events::{self, Form};
use crate::config::RedisConfig;
use crate::event::StoredEvent;
use crate::sink::contract::{SinkError, SinkErrorKind, Undeliverable};

/// Between the name of the channel of all events and a topic, in the name of the topic's channel.
const TOPIC_SEPARATOR: &str = ":";

/// The fields of a stream's entry, in their order; that of a traced event has one more.
const FIELDS: [&str; 4] = ["topic", "event_id", "cursor", "event"];
const TRACE_FIELD: &str = "traceparent";

/// What a command of a pipeline is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Role,
    Entry,
    Channel,
    TopicChannel,
}

/// An event to publish: its index among those to be published, and its JSON.
pub(super) struct Prepared<'a> {
    pub(super) index: usize,
    event: &'a StoredEvent,
    pub(super) json: Vec<u8>,
}

impl<'a> Prepared<'a> {
    pub(super) fn new(index: usize, event: &'a StoredEvent) -> Self {
        let mut json = Vec::with_capacity(event.event.payload.as_str().len() + 256);
        events::StoredEvent::of(event, Form::AsSent).write_json(&mut json);
        Self { index, event, json }
    }

    /// The channels that it is published on.
    pub(super) fn channels(&self, config: &RedisConfig) -> impl Iterator<Item = (Kind, String)> {
        let name = &config.channel.name;
        let of_topic = config.publishing.has_topic_channels;
        let of_topic = of_topic.then(|| format!("{name}{TOPIC_SEPARATOR}{}", self.event.event.topic));
        let of_topic = of_topic.map(|channel| (Kind::TopicChannel, channel));
        std::iter::once((Kind::Channel, name.clone())).chain(of_topic)
    }
}

/// A pipeline, and for each command the index of its event and what it is for.
#[derive(Default)]
pub(super) struct Commands {
    pipeline: Pipeline,
    purposes: Vec<(usize, Kind)>,
}

/// What became of a pipeline.
#[derive(Default)]
pub(super) struct Sent {
    /// The events that Redis rejected.
    pub(super) undeliverable: Vec<Undeliverable>,
    /// Whether that ended the transaction, so that nothing was done.
    pub(super) is_aborted: bool,
}

impl Commands {
    /// The commands for these events, but those for sharded channels. With a stream they are one transaction; without one, `asks_role` adds
    /// `ROLE`.
    pub(super) fn new(config: &RedisConfig, asks_role: bool, events: &[Prepared<'_>]) -> Self {
        let mut commands = Self::default();
        if let Some(stream) = &config.publishing.stream {
            commands.pipeline.atomic();
            for event in events {
                let entry = entry(stream, config.publishing.stream_length_max, event);
                commands.add(event.index, Kind::Entry, entry);
            }
        }
        if config.channel.is_sharded {
            return commands;
        }
        if config.publishing.stream.is_none() && asks_role {
            commands.add(usize::MAX, Kind::Role, cmd("ROLE"));
        }
        for event in events {
            for (kind, channel) in event.channels(config) {
                commands.add(event.index, kind, publish("PUBLISH", &channel, &event.json));
            }
        }
        commands
    }

    /// Adds a message for a sharded channel.
    pub(super) fn add_sharded(&mut self, event: &Prepared<'_>, kind: Kind, channel: &str) {
        self.add(event.index, kind, publish("SPUBLISH", channel, &event.json));
    }

    /// Sends them.
    pub(super) async fn send(&self, connection: &mut MultiplexedConnection) -> Result<Sent, SinkError> {
        if self.purposes.is_empty() {
            return Ok(Sent::default());
        }
        let error = match self.pipeline.query_async::<Value>(connection).await {
            Ok(answers) => {
                self.check_role(&answers)?;
                return Ok(Sent::default());
            }
            Err(error) => error,
        };
        let is_aborted = error.code() == Some("EXECABORT");
        let Some(errors) = error.clone().into_server_errors().filter(|errors| !errors.is_empty()) else {
            let is_timeout = error.is_timeout();
            let error = sink_error("publishing", &error);
            // A Redis that is slow, or paused, has not ended the connection: that is no sign of too much.
            let is_cut = error.kind == SinkErrorKind::Unreachable && !is_timeout;
            return Err(if is_cut { error.cut() } else { error });
        };
        Ok(Sent {
            undeliverable: self.undeliverable(&errors)?,
            is_aborted,
        })
    }

    fn add(&mut self, index: usize, kind: Kind, command: Cmd) {
        self.pipeline.add_command(command);
        self.purposes.push((index, kind));
    }

    /// Whether the server that took the pipeline is still a master, where `ROLE` asked.
    fn check_role(&self, answers: &Value) -> Result<(), SinkError> {
        match (self.purposes.first(), answers) {
            (Some((_, Kind::Role)), Value::Array(answers)) => answers.first().map_or(Ok(()), check_role),
            _ => Ok(()),
        }
    }

    /// The events that these errors are about, if each is about one event; otherwise what is wrong with the server.
    fn undeliverable(&self, errors: &[(usize, ServerError)]) -> Result<Vec<Undeliverable>, SinkError> {
        let mut undeliverable = Vec::with_capacity(errors.len());
        for (number, error) in errors {
            let purpose = self.purposes.get(*number).copied();
            let (index, kind) = purpose.ok_or_else(|| server_error("publishing", error))?;
            let is_same_kind = |(_, other): &&(usize, Kind)| *other == kind;
            let all_failed = || {
                let failed = errors
                    .iter()
                    .filter_map(|(number, _)| self.purposes.get(*number))
                    .filter(is_same_kind);
                failed.count() == self.purposes.iter().filter(is_same_kind).count()
            };
            let is_about_event = match kind_of(error) {
                // An access rule on the names of channels: that of the topic comes from the event.
                SinkErrorKind::Forbidden => kind == Kind::TopicChannel && error.code() == "NOPERM",
                // Where other commands of the kind succeeded, the error is not about the server.
                SinkErrorKind::Unexpected => is_about_size(error) || !all_failed(),
                _ => false,
            };
            if !is_about_event {
                return Err(server_error("publishing", error));
            }
            undeliverable.push(Undeliverable {
                index,
                reason: line(error),
            });
        }
        Ok(undeliverable)
    }
}

/// Fails for a server that is no master.
pub(super) fn check_role(role: &Value) -> Result<(), SinkError> {
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
    if matches!(name, Some(Value::BulkString(name)) if name == b"sentinel") {
        return Err(SinkError::new(
            SinkErrorKind::WrongScheme,
            "this is a Sentinel: REDIS_URL must begin with redis+sentinel:// or rediss+sentinel://, and name the service",
        ));
    }
    Err(SinkError::new(SinkErrorKind::ReadOnly, "this Redis is a replica"))
}

fn publish(command: &str, channel: &str, json: &[u8]) -> Cmd {
    let mut publish = cmd(command);
    publish.arg(channel).arg(json);
    publish
}

fn entry(stream: &str, length_max: u64, prepared: &Prepared<'_>) -> Cmd {
    let event = prepared.event;
    let mut entry = cmd("XADD");
    entry.arg(stream).arg("MAXLEN").arg("~").arg(length_max).arg("*");
    let cursor = event.cursor.to_string();
    let values = [
        event.event.topic.as_str().as_bytes(),
        event.event.event_id.as_str().as_bytes(),
        cursor.as_bytes(),
        &prepared.json,
    ];
    for (field, value) in FIELDS.iter().zip(values) {
        entry.arg(field).arg(value);
    }
    if let Some(trace) = &event.trace {
        entry.arg(TRACE_FIELD).arg(trace.as_str());
    }
    entry
}
