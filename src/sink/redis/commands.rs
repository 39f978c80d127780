//! The commands of one pipeline, and what their answers mean.

use ::redis::{Cmd, Pipeline, ServerError, Value, cmd};

use super::error::{is_about_size, kind_of, line, server_error};
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
enum Kind {
    Role,
    Entry,
    Channel,
    TopicChannel,
}

/// A pipeline, and for each command the index of its event and what it is for.
#[derive(Default)]
pub(super) struct Commands {
    pub(super) pipeline: Pipeline,
    purposes: Vec<(usize, Kind)>,
}

impl Commands {
    /// The commands for these events. With a stream they are one transaction; without one, `asks_role` adds `ROLE`.
    pub(super) fn new(config: &RedisConfig, asks_role: bool, events: &[(usize, &StoredEvent)]) -> Self {
        let mut commands = Self::default();
        let json: Vec<Vec<u8>> = events
            .iter()
            .map(|(_, event)| {
                let mut json = Vec::with_capacity(event.event.payload.as_str().len() + 256);
                events::StoredEvent::of(event, Form::AsSent).write_json(&mut json);
                json
            })
            .collect();
        match &config.publishing.stream {
            Some(stream) => {
                commands.pipeline.atomic();
                for ((index, event), json) in events.iter().zip(&json) {
                    commands.add(
                        *index,
                        Kind::Entry,
                        entry(stream, config.publishing.stream_length_max, event, json),
                    );
                }
            }
            None if asks_role => commands.add(usize::MAX, Kind::Role, cmd("ROLE")),
            None => {}
        }
        for ((index, event), json) in events.iter().zip(&json) {
            commands.add(*index, Kind::Channel, publish(&config.channel, json));
            if config.publishing.has_topic_channels {
                let channel = format!("{}{TOPIC_SEPARATOR}{}", config.channel, event.event.topic);
                commands.add(*index, Kind::TopicChannel, publish(&channel, json));
            }
        }
        commands
    }

    fn add(&mut self, index: usize, kind: Kind, command: Cmd) {
        self.pipeline.add_command(command);
        self.purposes.push((index, kind));
    }

    /// Whether the server that took the pipeline is still a master, where `ROLE` asked.
    pub(super) fn check_role(&self, answers: &Value) -> Result<(), SinkError> {
        match (self.purposes.first(), answers) {
            (Some((_, Kind::Role)), Value::Array(answers)) => answers.first().map_or(Ok(()), check_role),
            _ => Ok(()),
        }
    }

    /// The events that these errors are about, if each is about one event; otherwise what is wrong with the server.
    pub(super) fn undeliverable(&self, errors: &[(usize, ServerError)]) -> Result<Vec<Undeliverable>, SinkError> {
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
    Err(SinkError::new(SinkErrorKind::ReadOnly, "this Redis is a replica"))
}

fn publish(channel: &str, json: &[u8]) -> Cmd {
    let mut publish = cmd("PUBLISH");
    publish.arg(channel).arg(json);
    publish
}

fn entry(stream: &str, length_max: u64, event: &StoredEvent, json: &[u8]) -> Cmd {
    let mut entry = cmd("XADD");
    entry.arg(stream).arg("MAXLEN").arg("~").arg(length_max).arg("*");
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
