//! HTTP/1.1 as the load side speaks it: requests are built before the clock starts, and only the needed parts of an answer are read.

use anyhow::{Context, Result, ensure};

use crate::events::{Event, write_json};

/// A request to publish events: one event as an object, several as an array.
pub fn publish(events: &[Event]) -> Vec<u8> {
    let mut body = String::new();
    match events {
        [event] => write_json(event, &mut body),
        events => {
            for (index, event) in events.iter().enumerate() {
                body.push(if index == 0 { '[' } else { ',' });
                write_json(event, &mut body);
            }
            body.push(']');
        }
    }
    let head = format!(
        "POST /publish HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    [head.into_bytes(), body.into_bytes()].concat()
}

/// The needed parts of an answer.
#[derive(Debug, Clone, Copy, Default)]
pub struct Answer {
    /// Its status.
    pub status: u16,
    /// Events that were stored.
    pub stored: usize,
    /// Events that were duplicates.
    pub duplicates: usize,
    /// Whether it has a `Retry-After`.
    pub has_retry_after: bool,
    /// Whether it ends the connection.
    pub closes: bool,
}

/// The answer at the beginning of `read`, if it is complete.
pub fn answer(read: &[u8]) -> Result<Option<Answer>> {
    let Some(head_length) = read.windows(4).position(|four| four == b"\r\n\r\n") else {
        return Ok(None);
    };
    let head = str::from_utf8(&read[..head_length])?;
    let header = |name: &str| {
        head.lines().find_map(|line| {
            let (this, value) = line.split_once(':')?;
            this.eq_ignore_ascii_case(name).then_some(value.trim())
        })
    };
    let body_length: usize = header("content-length").context("every answer has a length")?.parse()?;
    let length = head_length + 4 + body_length;
    if read.len() < length {
        return Ok(None);
    }
    let body = str::from_utf8(&read[head_length + 4..length])?;
    let status = head.get(9..12).context("an answer begins with its status")?.parse()?;
    let number = |name: &str| -> Option<usize> {
        let rest = body.split_once(name)?.1;
        rest[..rest.find(|c: char| !c.is_ascii_digit())?].parse().ok()
    };
    let mut answer = Answer {
        status,
        closes: header("connection") == Some("close"),
        has_retry_after: header("retry-after").is_some(),
        ..Answer::default()
    };
    if status < 300 {
        answer.stored = number("\"unique_processed\":").context("an answer counts the stored events")?;
        answer.duplicates = number("\"duplicate_dropped\":").context("an answer counts the duplicates")?;
    } else {
        ensure!(status == 503, "{}", str::from_utf8(&read[..length])?);
    }
    Ok(Some(answer))
}
