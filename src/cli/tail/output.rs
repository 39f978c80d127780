//! What was printed, and what may still be.

use std::{io::ErrorKind, num::NonZeroU64};

use tokio::io::{AsyncWrite, AsyncWriteExt};

use super::end::End;
use super::format::{self, Format};
use crate::cli::event_text;
use crate::cli::text::printable;
use crate::client::events::EventText;

/// So many bytes are written at once, at least while more is at hand: a fraction of a pipe's buffer would cost a switch of processes
/// for each event.
const BURST_BYTES: usize = 64 * 1024;

/// Prints events, up to a limit.
#[derive(Debug)]
pub(crate) struct Output<W> {
    out: W,
    burst: Vec<u8>,
    left: Option<NonZeroU64>,
    format: Format,
    /// The source whose events are printed; without one, all are.
    source: Option<String>,
    /// Whether what could drive a terminal is escaped.
    is_terminal: bool,
}

impl<W: AsyncWrite + Unpin> Output<W> {
    /// Prints to `out`, at most `limit` events, each as JSON.
    pub(crate) fn new(out: W, limit: Option<NonZeroU64>) -> Self {
        Self {
            out,
            burst: Vec::new(),
            left: limit,
            format: Format::Json,
            source: None,
            is_terminal: false,
        }
    }

    /// Escapes what could drive a terminal, if it is one.
    pub(crate) fn on_terminal(self, is_terminal: bool) -> Self {
        Self { is_terminal, ..self }
    }

    /// Prints each event in this format, and only those of `source` if there is one.
    pub(crate) fn with(self, format: Format, source: Option<String>) -> Self {
        Self { format, source, ..self }
    }

    /// Prints an event, which may wait for [`Output::flush`]. Ends with [`End::Done`] after the last event that may be printed, and as
    /// [`Output::flush`] does.
    pub(crate) async fn print(&mut self, event: &EventText) -> Result<(), End> {
        match self.text(event) {
            Some(text) if self.is_terminal => self.line(&printable(&text)).await,
            Some(text) => self.line(&text).await,
            None => Ok(()),
        }
    }

    /// The line for an event, or nothing if the event is not wanted.
    fn text(&self, event: &EventText) -> Option<String> {
        if self.source.is_none() && self.format == Format::Json {
            return Some(event.line.clone());
        }
        let whole = event_text::read(&event.line)?;
        if self.source.as_deref().is_some_and(|source| source != whole.source) {
            return None;
        }
        Some(match &self.format {
            Format::Json => event.line.clone(),
            Format::Text(parts) => format::line(parts, &whole),
        })
    }

    async fn line(&mut self, line: &str) -> Result<(), End> {
        self.burst.extend_from_slice(line.as_bytes());
        self.burst.push(b'\n');
        if let Some(left) = self.left {
            self.left = NonZeroU64::new(left.get() - 1);
            if self.left.is_none() {
                self.flush().await?;
                return Err(End::Done);
            }
        }
        if self.burst.len() >= BURST_BYTES {
            self.flush().await?;
        }
        Ok(())
    }

    /// Whether a line waits.
    pub(crate) fn is_waiting(&self) -> bool {
        !self.burst.is_empty()
    }

    /// Writes the lines that wait. Ends with [`End::Done`] when the reader of a pipe has gone, with [`End::Failed`] when they cannot be
    /// written for another reason.
    pub(crate) async fn flush(&mut self) -> Result<(), End> {
        let written = async {
            self.out.write_all(&self.burst).await?;
            self.out.flush().await
        };
        match written.await {
            Ok(()) => {
                self.burst.clear();
                Ok(())
            }
            Err(error) if error.kind() == ErrorKind::BrokenPipe => Err(End::Done),
            Err(error) => Err(End::Failed(
                anyhow::Error::from(error).context("cannot print the events"),
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(line: &str) -> EventText {
        EventText {
            cursor: String::new(),
            topic: String::new(),
            line: line.to_owned(),
        }
    }

    #[tokio::test]
    async fn ends_with_the_last_event_of_the_limit() {
        let mut printed = Vec::new();
        let mut output = Output::new(&mut printed, NonZeroU64::new(2));
        output.print(&event("a")).await.unwrap();
        assert!(output.is_waiting());
        assert!(matches!(output.print(&event("b")).await, Err(End::Done)));
        assert_eq!(printed, b"a\nb\n");
    }

    #[tokio::test]
    async fn ends_quietly_when_its_reader_has_gone() {
        let (out, reader) = tokio::io::duplex(64);
        drop(reader);
        let mut output = Output::new(out, None);
        output.print(&event("a")).await.unwrap();
        assert!(matches!(output.flush().await, Err(End::Done)));
    }

    #[tokio::test]
    async fn a_long_burst_is_written_while_it_lasts() {
        let mut printed = Vec::new();
        let mut output = Output::new(&mut printed, None);
        output.print(&event(&"x".repeat(BURST_BYTES))).await.unwrap();
        assert!(!output.is_waiting());
        assert_eq!(printed.len(), BURST_BYTES + 1);
    }

    #[tokio::test]
    async fn events_of_other_sources_are_left_out_and_do_not_count() {
        let of = |source: &str| {
            event(&format!(
                r#"{{"topic":"t","event_id":"{source}","timestamp":"2025-10-24T10:30:00Z","source":"{source}","payload":{{}},"received_at":"2025-10-24T10:30:00Z","cursor":"000000000000000100000001"}}"#
            ))
        };
        let mut printed = Vec::new();
        let output = Output::new(&mut printed, NonZeroU64::new(1));
        let mut output = output.with("{event_id}".parse().unwrap(), Some("shop".to_owned()));
        output.print(&of("other")).await.unwrap();
        assert!(matches!(output.print(&of("shop")).await, Err(End::Done)));
        assert_eq!(printed, b"shop\n");
    }
}
