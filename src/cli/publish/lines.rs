//! The lines of NDJSON as requests.

use std::{io, os::fd::AsFd, time::Duration};

use anyhow::Context;
use async_compression::tokio::bufread::{GzipDecoder, ZstdDecoder};
use bytes::Bytes;
use tokio::{
    fs::File,
    io::{AsyncBufRead, AsyncBufReadExt, BufReader},
    time::{Instant, timeout_at},
};

/// A request is sent once it has this many bytes, so that lines of any length stay under the service's default limit of 10 MiB.
const BODY_BYTES_MAX: usize = 4 * 1024 * 1024;

/// The longest line that is sent: far above the largest valid event. Longer lines take no memory.
const LINE_BYTES_MAX: usize = 4 * 1024 * 1024;

/// How much is read at once.
const READ_BYTES: usize = 256 * 1024;

/// A request with fewer lines than it may have is sent after this time, so that a slow producer's events do not wait.
const PARTIAL_BATCH_DELAY: Duration = Duration::from_millis(100);

type Reader = Box<dyn AsyncBufRead + Send + Unpin>;

/// Some lines, to be sent in one request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Batch {
    /// The lines, each with its line break.
    pub(crate) body: Bytes,
    /// Their numbers in the file, from 1.
    pub(crate) lines: Vec<u64>,
    /// The numbers of lines that are too long to be sent.
    pub(crate) too_long: Vec<u64>,
}

impl Batch {
    /// The text of the line with this index in the request.
    pub(crate) fn text(&self, index: usize) -> &[u8] {
        self.body.split(|byte| *byte == b'\n').nth(index).unwrap_or_default()
    }
}

/// Reads the lines of a file or of standard input. Blank lines are skipped.
pub(crate) struct Lines {
    reader: Reader,
    /// Whether reading to the end takes no longer than the file is.
    is_file: bool,
    batch_size: usize,
    /// How many lines have been read, blank ones included.
    line: u64,
    /// How many lines with an event have been read.
    events: u64,
    /// The line that is being read.
    partial: Vec<u8>,
    is_too_long: bool,
    draft: Draft,
}

/// The request that is being read.
#[derive(Debug, Default)]
struct Draft {
    body: Vec<u8>,
    lines: Vec<u64>,
    too_long: Vec<u64>,
    /// When it is sent at the latest.
    due: Option<Instant>,
}

enum Line {
    Text(Vec<u8>),
    TooLong,
}

impl Lines {
    /// The lines of the file `name`, decompressed if its name ends with `.gz` or `.zst`; `-` is standard input.
    pub(crate) async fn open(name: &str, batch_size: usize) -> anyhow::Result<Self> {
        let file = if name == "-" {
            let input = io::stdin()
                .as_fd()
                .try_clone_to_owned()
                .context("cannot read standard input")?;
            File::from_std(std::fs::File::from(input))
        } else {
            File::open(name).await.with_context(|| format!("cannot open {name}"))?
        };
        let metadata = file.metadata().await.with_context(|| format!("cannot read {name}"))?;
        anyhow::ensure!(!metadata.is_dir(), "cannot read {name}: it is a directory");
        Ok(Self {
            reader: decompressed(name, BufReader::with_capacity(READ_BYTES, file)),
            is_file: metadata.is_file(),
            batch_size,
            line: 0,
            events: 0,
            partial: Vec::new(),
            is_too_long: false,
            draft: Draft::default(),
        })
    }

    /// The next request, or `None` at the end. Nothing is lost when the future is dropped.
    pub(crate) async fn next(&mut self) -> anyhow::Result<Option<Batch>> {
        while self.draft.lines.len() < self.batch_size && self.draft.body.len() < BODY_BYTES_MAX {
            let line = match self.draft.due {
                None => self.line().await?,
                Some(due) => match timeout_at(due, self.line()).await {
                    Ok(line) => line?,
                    Err(_) => break,
                },
            };
            match line {
                None => break,
                Some(line) => self.add(line),
            }
        }
        let Draft {
            body, lines, too_long, ..
        } = std::mem::take(&mut self.draft);
        let is_end = lines.is_empty() && too_long.is_empty();
        Ok((!is_end).then(|| Batch {
            body: body.into(),
            lines,
            too_long,
        }))
    }

    /// How many lines with an event have been read. Those that follow are counted, too, where they are in a file: a pipe's may
    /// never end.
    pub(crate) async fn count_events(&mut self) -> u64 {
        while self.is_file {
            match self.line().await {
                Ok(Some(Line::Text(text))) if text.trim_ascii().is_empty() => {}
                Ok(Some(_)) => self.events += 1,
                Ok(None) | Err(_) => break,
            }
        }
        self.events
    }

    fn add(&mut self, line: Line) {
        let draft = &mut self.draft;
        match line {
            Line::Text(text) if text.trim_ascii().is_empty() => return,
            Line::Text(text) => {
                draft.body.extend_from_slice(&text);
                draft.body.push(b'\n');
                draft.lines.push(self.line);
            }
            Line::TooLong => draft.too_long.push(self.line),
        }
        self.events += 1;
        // The rest of a file comes as fast as it is read.
        if !self.is_file {
            draft.due.get_or_insert_with(|| Instant::now() + PARTIAL_BATCH_DELAY);
        }
    }

    /// The next line without its line break, or `None` at the end. Nothing is lost when the future is dropped.
    async fn line(&mut self) -> anyhow::Result<Option<Line>> {
        loop {
            let read = self.reader.fill_buf().await;
            let read = read.with_context(|| format!("cannot read on after line {}", self.line))?;
            let is_end = read.is_empty();
            if is_end && self.partial.is_empty() && !self.is_too_long {
                return Ok(None);
            }
            let line_break = read.iter().position(|byte| *byte == b'\n');
            let text = &read[..line_break.unwrap_or(read.len())];
            let used = text.len() + usize::from(line_break.is_some());
            if self.partial.len() + text.len() > LINE_BYTES_MAX {
                self.is_too_long = true;
                self.partial = Vec::new();
            } else if !self.is_too_long {
                self.partial.extend_from_slice(text);
            }
            self.reader.consume(used);
            if line_break.is_some() || is_end {
                self.line += 1;
                let text = std::mem::take(&mut self.partial);
                return Ok(Some(if std::mem::take(&mut self.is_too_long) {
                    Line::TooLong
                } else {
                    Line::Text(text)
                }));
            }
        }
    }
}

fn decompressed(name: &str, reader: BufReader<File>) -> Reader {
    if name.ends_with(".gz") {
        let mut decoder = GzipDecoder::new(reader);
        decoder.multiple_members(true);
        Box::new(BufReader::with_capacity(READ_BYTES, decoder))
    } else if name.ends_with(".zst") {
        let mut decoder = ZstdDecoder::new(reader);
        decoder.multiple_members(true);
        Box::new(BufReader::with_capacity(READ_BYTES, decoder))
    } else {
        Box::new(reader)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    async fn lines(text: &[u8], batch_size: usize) -> (Vec<Batch>, u64) {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text).unwrap();
        let mut lines = Lines::open(file.path().to_str().unwrap(), batch_size).await.unwrap();
        let mut batches = Vec::new();
        while let Some(batch) = lines.next().await.unwrap() {
            batches.push(batch);
        }
        (batches, lines.count_events().await)
    }

    #[tokio::test]
    async fn lines_become_requests_and_blank_ones_are_skipped() {
        let (batches, events) = lines(b"{\"a\":1}\n\n  \r\n{\"a\":2}\r\n{\"a\":3}", 2).await;
        let bodies: Vec<&[u8]> = batches.iter().map(|batch| batch.body.as_ref()).collect();
        assert_eq!(bodies, [b"{\"a\":1}\n{\"a\":2}\r\n".as_slice(), b"{\"a\":3}\n"]);
        let numbers: Vec<&[u64]> = batches.iter().map(|batch| batch.lines.as_slice()).collect();
        assert_eq!((numbers, events), (vec![&[1, 4][..], &[5]], 3));
        assert_eq!(batches[0].text(1), b"{\"a\":2}\r");
    }

    #[tokio::test]
    async fn long_lines_make_smaller_requests() {
        let line = [vec![b'x'; 1_500_000], vec![b'\n']].concat();
        let (batches, _) = lines(&line.repeat(5), 50).await;
        let sizes: Vec<usize> = batches.iter().map(|batch| batch.lines.len()).collect();
        assert_eq!(sizes, [3, 2]);
    }

    #[tokio::test]
    async fn a_line_that_is_too_long_is_skipped() {
        let long = vec![b'x'; LINE_BYTES_MAX + 1];
        let text = [b"{}\n", long.as_slice(), b"\n{}\n", long.as_slice()].concat();
        let (batches, events) = lines(&text, 50).await;
        let sent: Vec<u64> = batches.iter().flat_map(|batch| batch.lines.clone()).collect();
        let too_long: Vec<u64> = batches.iter().flat_map(|batch| batch.too_long.clone()).collect();
        assert_eq!((sent, too_long, events), (vec![1, 3], vec![2, 4], 4));
    }

    #[tokio::test]
    async fn a_file_without_events_has_no_request() {
        assert_eq!(lines(b"\n \n", 50).await, (vec![], 0));
    }

    #[tokio::test]
    async fn lines_that_were_not_sent_are_counted() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(&b"{}\n\n".repeat(9)).unwrap();
        let mut lines = Lines::open(file.path().to_str().unwrap(), 2).await.unwrap();
        assert_eq!(lines.next().await.unwrap().unwrap().lines, [1, 3]);
        assert_eq!(lines.count_events().await, 9);
    }

    #[tokio::test]
    async fn a_partial_request_does_not_wait_for_more_lines() {
        let (mut producer, reader) = tokio::io::duplex(64);
        let mut lines = Lines {
            reader: Box::new(BufReader::new(reader)),
            ..Lines::open("/dev/null", 50).await.unwrap()
        };
        use tokio::io::AsyncWriteExt;
        producer.write_all(b"{\"a\":1}\n{\"a\"").await.unwrap();
        assert_eq!(lines.next().await.unwrap().unwrap().body, "{\"a\":1}\n");
        producer.write_all(b":2}").await.unwrap();
        drop(producer);
        assert_eq!(lines.next().await.unwrap().unwrap().body, "{\"a\":2}\n");
        assert_eq!(lines.next().await.unwrap(), None);
    }
}
