//! `eventsieve publish TOPIC PAYLOAD`: one event from the command line.

use anyhow::{Context, anyhow};
use chrono::{SecondsFormat, Utc};
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::api::events::{Event, JsonText};
use crate::api::publish::{EventResult, EventStatus};
use crate::cli::error::UsageError;
use crate::cli::print::{note, print};
use crate::cli::progress::Progress;
use crate::cli::send::{Answered, Request, RetryLimits, send};
use crate::client::Client;

const JSON: &str = "application/json";

/// The source of events that are given none.
const SOURCE: &str = "eventsieve";

/// What the command line says of the event.
#[derive(Debug, Clone)]
pub(crate) struct Given {
    pub(crate) topic: String,
    pub(crate) payload: String,
    pub(crate) id: Option<String>,
    pub(crate) source: Option<String>,
    pub(crate) timestamp: Option<String>,
    pub(crate) headers: Vec<(String, String)>,
}

/// Reads `NAME=VALUE`.
pub(crate) fn header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("give NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

/// Publishes the event. Prints its id on standard output if it was made up here, and what became of it on standard error.
pub(crate) async fn publish(given: Given, client: &Client, limits: &RetryLimits) -> anyhow::Result<()> {
    let is_new_id = given.id.is_none();
    let id = given.id.clone().unwrap_or_else(|| Uuid::now_v7().to_string());
    let request = Request {
        body: body(&given, &id)?.into(),
        content_type: JSON,
        prefer: None,
    };
    let progress = Progress::new(client.target().clone(), Some(1));
    let answered = send(client, &request, limits, |error| progress.retrying(error)).await;
    progress.end();
    let answered = answered
        .map_err(|unanswered| unanswered.error)
        .context("the event was not published")?;
    let outcome = outcome(&answered).ok_or_else(|| anyhow!("the response has no result for the event"))?;
    if is_new_id {
        print(&format!("{id}\n"), "the event's id")?;
    }
    note(&outcome);
    Ok(())
}

fn body(given: &Given, id: &str) -> Result<Vec<u8>, UsageError> {
    let payload = given.payload.trim();
    serde_json::from_str::<&RawValue>(payload).map_err(|error| UsageError(format!("PAYLOAD is not JSON: {error}")))?;
    if !payload.starts_with('{') {
        return Err(UsageError(
            "PAYLOAD must be a JSON object, such as '{\"total\": 44.8}'".to_owned(),
        ));
    }
    let timestamp = given.timestamp.clone().unwrap_or_else(now);
    let event = Event {
        topic: given.topic.as_str().into(),
        event_id: id.into(),
        timestamp: timestamp.into(),
        source: given.source.as_deref().unwrap_or(SOURCE).into(),
        payload: JsonText(payload.into()),
        headers: headers(&given.headers)?,
    };
    serde_json::to_vec(&event).map_err(|error| UsageError(format!("PAYLOAD is not JSON: {error}")))
}

/// The headers as JSON. A name that is given twice is sent twice, and the service explains that.
fn headers(given: &[(String, String)]) -> Result<Option<JsonText<'static>>, UsageError> {
    if given.is_empty() {
        return Ok(None);
    }
    let json = |text: &String| serde_json::to_string(text).map_err(|error| UsageError(error.to_string()));
    let members: Result<Vec<String>, UsageError> = given
        .iter()
        .map(|(name, value)| Ok(format!("{}:{}", json(name)?, json(value)?)))
        .collect();
    Ok(Some(JsonText(format!("{{{}}}", members?.join(",")).into())))
}

#[expect(
    clippy::disallowed_methods,
    reason = "the client's clock makes the timestamp of an event, as a client's own would"
)]
fn now() -> String {
    Utc::now().to_rfc3339_opts(SecondsFormat::Micros, true)
}

/// What became of the event, in a sentence; nothing if the answer does not say so.
fn outcome(answered: &Answered) -> Option<String> {
    let [EventResult::Received(received)] = answered.answer.results.as_deref()? else {
        return None;
    };
    let cursor = format!(" at {}", received.cursor);
    Some(match received.status {
        EventStatus::Stored => format!("stored{cursor}"),
        EventStatus::Duplicate if answered.lost_attempts > 0 => {
            format!("stored{cursor}, by this command or before: an earlier attempt received no response")
        }
        EventStatus::Duplicate => format!("duplicate: it was already stored{cursor}"),
        EventStatus::Conflict => {
            format!("conflict: the event was dropped, because another payload is stored under its id{cursor}")
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(payload: &str) -> Given {
        Given {
            topic: "t \"1\"".to_owned(),
            payload: payload.to_owned(),
            headers: Vec::new(),
            id: None,
            source: None,
            timestamp: Some("2025-10-24T10:30:00Z".to_owned()),
        }
    }

    #[test]
    fn the_payload_is_sent_as_it_is() {
        let body = body(&given(r#" {"b": 9007199254740993, "a":1.0} "#), "evt-1").unwrap();
        let expected = r#"{"topic":"t \"1\"","event_id":"evt-1","timestamp":"2025-10-24T10:30:00Z","source":"eventsieve","payload":{"b": 9007199254740993, "a":1.0}}"#;
        assert_eq!(String::from_utf8(body).unwrap(), expected);
    }

    #[test]
    fn headers_are_sent_in_their_order() {
        let given = Given {
            headers: vec![header("b=1=2").unwrap(), header("a=\"").unwrap()],
            ..given("{}")
        };
        let body = String::from_utf8(body(&given, "evt-1").unwrap()).unwrap();
        assert!(
            body.ends_with(r#""payload":{},"headers":{"b":"1=2","a":"\""}}"#),
            "{body}"
        );
        assert!(header("a").is_err());
    }

    #[test]
    fn a_payload_that_is_not_an_object_is_wrong_usage() {
        for (payload, reason) in [
            ("", "is not JSON"),
            ("{} {}", "is not JSON"),
            (r#"{}, "topic": {}"#, "is not JSON"),
            ("[1]", "must be a JSON object"),
            ("hello", "is not JSON"),
        ] {
            let error = body(&given(payload), "1").unwrap_err().to_string();
            assert!(error.contains(reason), "{payload}: {error}");
        }
    }
}
