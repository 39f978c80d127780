//! The log's way to standard error: a bounded queue and a thread of its own.
//!
//! Nothing waits for the log. A terminal that is stopped, a pipe that nobody reads, and a full disk must not stop a service that only
//! has something to say: lines that standard error does not take in time are lost, and counted.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

/// The most lines that wait.
const LINES_MAX: usize = 8192;

/// The most bytes of lines that wait.
const BYTES_MAX: usize = 4 << 20;

/// How long the end of the process waits for lines that are still to be written.
const END_PATIENCE: Duration = Duration::from_millis(500);

static QUEUE: OnceLock<Queue> = OnceLock::new();

/// Lines that are lost so far.
static LOST: AtomicU64 = AtomicU64::new(0);

struct Queue {
    lines: SyncSender<Message>,
    bytes: AtomicUsize,
}

enum Message {
    Line(String),
    /// Answered when all earlier lines are written.
    End(SyncSender<()>),
}

/// Starts the thread. Calling it again changes nothing.
///
/// # Errors
/// When there is no standard error, or no thread.
pub(super) fn start() -> io::Result<()> {
    if QUEUE.get().is_some() {
        return Ok(());
    }
    // A file of its own: whoever else prints to standard error holds a lock that this thread must not wait for.
    let file = File::from(io::stderr().as_fd().try_clone_to_owned()?);
    let (lines, receiver) = sync_channel(LINES_MAX);
    let bytes = AtomicUsize::new(0);
    if QUEUE.set(Queue { lines, bytes }).is_ok() {
        thread::Builder::new()
            .name("log".to_owned())
            .spawn(move || write(file, &receiver))?;
    }
    Ok(())
}

/// How often it is told that lines were lost.
const TELLING_INTERVAL: Duration = Duration::from_secs(1);

/// Hands a line over, or loses it.
pub(super) fn send(line: String) {
    let Some(queue) = QUEUE.get() else { return };
    let length = line.len();
    let waiting = queue.bytes.fetch_add(length, Ordering::Relaxed);
    if waiting > BYTES_MAX || queue.lines.try_send(Message::Line(line)).is_err() {
        queue.bytes.fetch_sub(length, Ordering::Relaxed);
        LOST.fetch_add(1, Ordering::Relaxed);
    }
}

/// The number of lines that are lost so far.
pub(crate) fn lost() -> u64 {
    LOST.load(Ordering::Relaxed)
}

/// Waits a moment until what was logged is written. Called at the end of the process.
pub fn end_log() {
    let Some(queue) = QUEUE.get() else { return };
    let (ended, end) = sync_channel(1);
    if queue.lines.try_send(Message::End(ended)).is_ok() {
        // Whether the lines were written in time or not: this is the end.
        end.recv_timeout(END_PATIENCE).ok();
    }
}

fn write(mut file: File, messages: &Receiver<Message>) {
    let (mut told, mut told_at) = (0, None::<Instant>);
    for message in messages {
        let mut is_written = false;
        match message {
            Message::Line(line) => {
                is_written = file.write_all(line.as_bytes()).is_ok();
                if !is_written {
                    LOST.fetch_add(1, Ordering::Relaxed);
                }
                if let Some(queue) = QUEUE.get() {
                    queue.bytes.fetch_sub(line.len(), Ordering::Relaxed);
                }
            }
            Message::End(ended) => {
                ended.send(()).ok();
            }
        }
        let lost = lost();
        // Only when lines are taken again: otherwise the line that tells it would be lost too, and be told, without an end.
        let is_due = told_at.is_none_or(|at| at.elapsed() >= TELLING_INTERVAL);
        if lost > told && is_written && is_due {
            told_at = Some(Instant::now());
            tracing::warn!(
                lines = lost - told,
                "lines of the log were lost: standard error did not take them"
            );
            told = lost;
        }
    }
}
