//! What commands print.

use std::io::{ErrorKind, IsTerminal, Write, stderr, stdout};
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::cli::text::printable_lines;

/// How long the last words of the process may take.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// Prints text on standard output, on a terminal without what could drive it, and returns whether somebody still reads it: that a
/// reader has gone is no error. `what` completes "cannot print ...".
pub(crate) fn print(text: &str, what: &str) -> Result<bool> {
    let mut out = stdout().lock();
    let shown = out.is_terminal().then(|| printable_lines(text));
    let text = shown.as_deref().unwrap_or(text);
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(error).with_context(|| format!("cannot print {what}")),
    }
}

/// Prints a line on standard error. If that is not possible, there is nobody to tell.
pub(crate) fn note(line: &str) {
    drop(writeln!(stderr(), "{line}"));
}

/// The same, for the last words of the process: it does not wait for a reader that has stopped.
pub fn complain(line: &str) {
    let (said, end) = sync_channel(1);
    let line = line.to_owned();
    let saying = std::thread::Builder::new().spawn(move || {
        note(&line);
        said.send(()).ok();
    });
    if saying.is_ok() {
        end.recv_timeout(LAST_WORDS).ok();
    }
}
