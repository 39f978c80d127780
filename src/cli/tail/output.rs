//! What was printed, and what may still be.

use std::{io::ErrorKind, num::NonZeroU64};

use tokio::io::{AsyncWrite, AsyncWriteExt};

use super::End;

/// So many bytes are written at once, at least while more is at hand: a fraction of a pipe's buffer would cost a switch of processes
/// for each event.
const BURST_BYTES: usize = 64 * 1024;

/// Prints lines, up to a limit.
#[derive(Debug)]
pub struct Output<W> {
    out: W,
    burst: Vec<u8>,
    left: Option<NonZeroU64>,
}

impl<W: AsyncWrite + Unpin> Output<W> {
    /// Prints to `out`, at most `limit` lines.
    #[must_use]
    pub fn new(out: W, limit: Option<NonZeroU64>) -> Self {
        Self {
            out,
            burst: Vec::new(),
            left: limit,
        }
    }

    /// Prints a line, which may wait for [`Output::flush`].
    ///
    /// # Errors
    /// [`End::Done`] after the last line that may be printed, and as [`Output::flush`].
    pub async fn print(&mut self, line: &str) -> Result<(), End> {
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
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        !self.burst.is_empty()
    }

    /// Writes the lines that wait.
    ///
    /// # Errors
    /// [`End::Done`] when the reader of a pipe has gone, [`End::Failed`] when they cannot be written for another reason.
    pub async fn flush(&mut self) -> Result<(), End> {
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

    #[tokio::test]
    async fn it_ends_with_the_last_line_of_the_limit() {
        let mut printed = Vec::new();
        let mut output = Output::new(&mut printed, NonZeroU64::new(2));
        output.print("a").await.unwrap();
        assert!(output.is_waiting());
        assert!(matches!(output.print("b").await, Err(End::Done)));
        assert_eq!(printed, b"a\nb\n");
    }

    #[tokio::test]
    async fn it_ends_quietly_when_nobody_reads() {
        let (out, reader) = tokio::io::duplex(64);
        drop(reader);
        let mut output = Output::new(out, None);
        output.print("a").await.unwrap();
        assert!(matches!(output.flush().await, Err(End::Done)));
    }

    #[tokio::test]
    async fn a_long_burst_is_written_while_it_lasts() {
        let mut printed = Vec::new();
        let mut output = Output::new(&mut printed, None);
        output.print(&"x".repeat(BURST_BYTES)).await.unwrap();
        assert!(!output.is_waiting());
        assert_eq!(printed.len(), BURST_BYTES + 1);
    }
}
