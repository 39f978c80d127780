//! A client of eventsieve in Rust: it publishes events, resends each request until the events are stored, and reads them back
//! from the stream with resume.
//!
//! ```sh
//! cargo run --example client -- http://127.0.0.1:8080 30
//! ```
//!
//! It uses the HTTP API alone, as a program of your own would: `reqwest`, `serde_json` and `tokio` are all that it needs.

use std::collections::HashSet;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use reqwest::{Client, StatusCode, header};
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

const TOPIC: &str = "example.rust";

/// How many events to send in one request.
const BATCH: usize = 10;

/// How often a request is sent before the client gives up.
const ATTEMPTS_MAX: u32 = 100;

/// The service sends a comment after 15 seconds of silence. A stream that is silent for longer is dead.
const SILENCE_MAX: Duration = Duration::from_secs(45);

#[tokio::main]
async fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let url = arguments.next().unwrap_or_else(|| "http://127.0.0.1:8080".to_owned());
    let count: usize = arguments.next().map_or(Ok(30), |text| text.parse())?;

    // Only for `https`, and only because this workspace builds reqwest without a TLS provider of its own.
    drop(rustls::crypto::ring::default_provider().install_default());
    let client = Client::builder().no_proxy().build()?;

    // The ids come from the data, not from the attempt: that is what makes a resent event a duplicate.
    let ids: Vec<String> = (0..count).map(|number| format!("order-{number:06}")).collect();
    let (mut stored, mut duplicates) = (0, 0);
    for ids in ids.chunks(BATCH) {
        let events: Vec<Value> = ids.iter().map(|id| event(id)).collect();
        let response = publish(&client, &url, &json!(events)).await?;
        stored += response["unique_processed"].as_u64().unwrap_or(0);
        duplicates += response["duplicate_dropped"].as_u64().unwrap_or(0);
    }
    println!("stored {stored}, duplicates {duplicates}");

    let mut missing: HashSet<String> = ids.into_iter().collect();
    let mut cursor = String::new();
    while !missing.is_empty() {
        // A long-running program stores the cursor with its results, and starts from there.
        if let Err(error) = follow(&client, &url, &mut cursor, &mut missing).await {
            println!("{error:#}; connecting again in 1 s");
            sleep(Duration::from_secs(1)).await;
        }
    }
    println!("read back {count} events");
    Ok(())
}

fn event(id: &str) -> Value {
    json!({
        "topic": TOPIC, "event_id": id, "timestamp": "2025-10-24T10:30:00Z", "source": "client.rs", "payload": {"order": id},
    })
}

/// Sends the events until they are stored, and returns the response. Resending is safe after any failure: the service stores each
/// event once.
async fn publish(client: &Client, url: &str, events: &Value) -> Result<Value> {
    for attempt in 0..ATTEMPTS_MAX {
        let sent = client
            .post(format!("{url}/publish"))
            .header(header::CONTENT_TYPE, "application/json")
            .body(events.to_string())
            .timeout(Duration::from_secs(30))
            .send()
            .await;
        let (reason, retry_after) = match sent {
            Ok(response) if response.status().is_success() => match response.text().await {
                Ok(text) => return serde_json::from_str(&text).context("the response is not JSON"),
                // The connection was lost on the way: the outcome is unknown.
                Err(error) => (error.to_string(), Duration::ZERO),
            },
            // 429 and 503: nothing was stored. Other server errors: the outcome is unknown.
            Ok(response) if is_temporary(response.status()) => {
                (format!("status {}", response.status()), retry_after(response.headers()))
            }
            // Anything else does not go away by itself.
            Ok(response) => bail!("status {}: {}", response.status(), response.text().await?),
            Err(error) => (error.to_string(), Duration::ZERO),
        };
        // At least as long as the service asks for, and longer after each failure. A real producer adds some randomness, so that many
        // of them do not come back at the same time.
        let backoff = Duration::from_millis(100 << attempt.min(6));
        let wait = backoff.max(retry_after);
        println!("{reason}; sending again in {wait:?}");
        sleep(wait).await;
    }
    bail!("not stored after {ATTEMPTS_MAX} attempts")
}

fn is_temporary(status: StatusCode) -> bool {
    status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error()
}

fn retry_after(headers: &header::HeaderMap) -> Duration {
    let seconds = headers
        .get(header::RETRY_AFTER)
        .and_then(|value| value.to_str().ok()?.parse().ok());
    Duration::from_secs(seconds.unwrap_or(0))
}

/// Reads the stream after `cursor`, and moves `cursor` with each event, until nothing is missing or the connection is lost.
async fn follow(client: &Client, url: &str, cursor: &mut String, missing: &mut HashSet<String>) -> Result<()> {
    // `after=` empty is the beginning of the log; `Last-Event-ID` takes precedence if there is a cursor.
    let request = client
        .get(format!("{url}/events/stream?topic={TOPIC}&after="))
        .header("last-event-id", cursor.as_str());
    let mut response = request.send().await?;
    ensure!(response.status().is_success(), "status {}", response.status());
    let mut unread = Vec::new();
    while let Some(chunk) = timeout(SILENCE_MAX, response.chunk()).await?? {
        unread.extend_from_slice(&chunk);
        // Only whole lines: the last one may go on in the next chunk.
        while let Some(end) = unread.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = unread.drain(..=end).collect();
            let Some(data) = line.strip_prefix(b"data: ") else {
                continue;
            };
            let event: Value = serde_json::from_slice(data)?;
            // A notice has no cursor: it says that some events are gone, for example.
            let Some(position) = event["cursor"].as_str() else {
                eprintln!("{event}");
                continue;
            };
            position.clone_into(cursor);
            missing.remove(event["event_id"].as_str().unwrap_or_default());
            if missing.is_empty() {
                return Ok(());
            }
        }
    }
    bail!("the stream ended")
}
