//! Subscribers that read and count: each stored event must arrive at each of them.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

/// The beginning of a line that is once in the frame of each event of `/events/stream`, with the end of the line before it.
const FRAME: &[u8] = b"\ndata: ";

const READ_BYTES: usize = 256 << 10;

/// Subscribes to a channel of the Redis at a `HOST:PORT`. The receiver gets the time at which this many messages had arrived.
pub fn subscribe(address: &str, channel: &str, messages: usize) -> Result<oneshot::Receiver<Result<Instant>>> {
    let mut stream = TcpStream::connect(address)?;
    let length = channel.len();
    stream.write_all(format!("*2\r\n$9\r\nSUBSCRIBE\r\n${length}\r\n{channel}\r\n").as_bytes())?;
    let mut buffer = vec![0; READ_BYTES];
    let mut filled = 0;
    // The first message confirms the subscription.
    while after_array(&buffer[..filled])?.is_none() {
        let read = stream.read(&mut buffer[filled..])?;
        ensure!(read > 0, "Redis has closed the connection");
        filled += read;
    }
    let (done, end) = oneshot::channel();
    std::thread::spawn(move || {
        // The receiver is gone only when the benchmark has failed already.
        done.send(count(stream, messages)).ok();
    });
    Ok(end)
}

fn count(mut stream: TcpStream, messages: usize) -> Result<Instant> {
    let (mut buffer, mut filled, mut seen) = (vec![0; READ_BYTES], 0, 0);
    while seen < messages {
        if filled == buffer.len() {
            buffer.resize(buffer.len() * 2, 0);
        }
        let read = stream.read(&mut buffer[filled..])?;
        ensure!(read > 0, "Redis has closed the subscription after {seen} messages");
        filled += read;
        let mut at = 0;
        while let Some(length) = after_array(&buffer[at..filled])? {
            at += length;
            seen += 1;
        }
        buffer.copy_within(at..filled, 0);
        filled -= at;
    }
    Ok(Instant::now())
}

/// The length of the array at the beginning of `read`, if it is complete. Redis pushes arrays of strings and a number.
fn after_array(read: &[u8]) -> Result<Option<usize>> {
    let Some((items, mut at)) = line(read, 0)? else {
        return Ok(None);
    };
    for _ in 0..items {
        let Some((length, next)) = line(read, at)? else {
            return Ok(None);
        };
        let is_string = read[at] == b'$';
        at = if is_string { next + length + 2 } else { next };
    }
    Ok((at <= read.len()).then_some(at))
}

/// The number in the line that begins at `at`, and the beginning of the next line.
fn line(read: &[u8], at: usize) -> Result<Option<(usize, usize)>> {
    let rest = read.get(at..).unwrap_or_default();
    let Some(end) = rest.iter().position(|byte| *byte == b'\n') else {
        return Ok(None);
    };
    let digits = str::from_utf8(&rest[1..end])?.trim_end();
    Ok(Some((digits.parse().context("what Redis pushes")?, at + end + 1)))
}

/// Opens this many streams at a `HOST:PORT`, each of which must get this many events.
pub async fn subscribe_to_stream(address: &str, count: usize, events: usize) -> Result<JoinSet<Result<()>>> {
    let mut subscribers = JoinSet::new();
    for _ in 0..count {
        let mut stream = tokio::net::TcpStream::connect(address).await?;
        let request = format!("GET /events/stream HTTP/1.1\r\nhost: {address}\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        // The head comes once the stream's position in the log is fixed.
        stream.readable().await?;
        subscribers.spawn(read_frames(stream, events));
    }
    Ok(subscribers)
}

/// Reads until this many events have arrived.
async fn read_frames(mut stream: tokio::net::TcpStream, events: usize) -> Result<()> {
    let mut buffer = vec![0; 1 << 16];
    let (mut kept, mut seen) = (0, 0);
    while seen < events {
        let read = stream.read(&mut buffer[kept..]).await?;
        ensure!(read > 0, "the stream ended after {seen} of {events} events");
        let read = &buffer[..kept + read];
        seen += read.windows(FRAME.len()).filter(|window| window == &FRAME).count();
        // The line may arrive in two pieces.
        let end = read.len() - (FRAME.len() - 1).min(read.len());
        kept = read.len() - end;
        buffer.copy_within(end..end + kept, 0);
    }
    Ok(())
}
