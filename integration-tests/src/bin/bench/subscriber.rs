//! One subscriber of the Redis channel, that reads and counts: each event that was stored must come to it.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use tokio::sync::oneshot;

const READ_BYTES: usize = 256 << 10;

/// Subscribes to a channel of the Redis at a `HOST:PORT`. The answer comes when so many messages have come, and says when the
/// last one did.
pub fn subscribe(address: &str, channel: &str, messages: usize) -> Result<oneshot::Receiver<Result<Instant>>> {
    let mut stream = TcpStream::connect(address)?;
    let length = channel.len();
    stream.write_all(format!("*2\r\n$9\r\nSUBSCRIBE\r\n${length}\r\n{channel}\r\n").as_bytes())?;
    let mut buffer = vec![0; READ_BYTES];
    let mut filled = 0;
    // The first thing that comes is that it has subscribed.
    while after_array(&buffer[..filled])?.is_none() {
        let read = stream.read(&mut buffer[filled..])?;
        ensure!(read > 0, "Redis has closed the connection");
        filled += read;
    }
    let (done, end) = oneshot::channel();
    std::thread::spawn(move || {
        // Nobody waits any more only when the bench has failed already.
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

/// The length of the array that `read` begins with, if it is whole: in what Redis pushes, arrays of strings, and of a number.
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

/// The number in the line that begins at `at`, and where the next line begins.
fn line(read: &[u8], at: usize) -> Result<Option<(usize, usize)>> {
    let rest = read.get(at..).unwrap_or_default();
    let Some(end) = rest.iter().position(|byte| *byte == b'\n') else {
        return Ok(None);
    };
    let digits = str::from_utf8(&rest[1..end])?.trim_end();
    Ok(Some((digits.parse().context("what Redis pushes")?, at + end + 1)))
}
