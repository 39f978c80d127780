//! Keeps the stream within its bytes, and makes room in a Redis that the stream has filled.
//!
//! `MAXLEN` counts entries, whatever their size. So the memory of the stream is measured after each part of the bound that was appended,
//! and the oldest entries are removed in proportion. `MEMORY USAGE` looks at every node of the stream (with `SAMPLES 0`): a sample would be
//! of the oldest nodes, which say nothing of larger events that came later.

use ::redis::aio::MultiplexedConnection;
use ::redis::{RedisError, RedisResult, cmd};

/// After this part of the bound was appended by this process, the stream is measured. With as many replicas as [`SLACK_PARTS`] says, the
/// stream stays within its bound.
const MEASURE_PARTS: u64 = 16;
/// Down to the bound without this many of those parts the stream is trimmed.
const SLACK_PARTS: u64 = 2;

/// What an entry takes beside its event, approximately: its identifier, the names of fields, and the cursor.
const ENTRY_BYTES: u64 = 160;

/// How often a stream is trimmed and measured in a row: one with small entries before large ones needs more than once.
const ROUNDS_MAX: u32 = 8;

/// A Redis that is full gets room by removing this part of the stream's entries.
const ROOM_PARTS: u64 = 8;

/// The bound of a stream.
#[derive(Debug)]
pub(super) struct StreamSize {
    bytes_max: u64,
    /// How many bytes were appended since the stream was measured; `None` before it was.
    appended: Option<u64>,
    /// Whether Redis has denied a command: the bound cannot be kept.
    is_denied: bool,
    is_reported: bool,
}

impl StreamSize {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self {
            bytes_max: u64::try_from(bytes_max).unwrap_or(u64::MAX),
            appended: None,
            is_denied: false,
            is_reported: false,
        }
    }

    /// Entries with so many bytes of events were appended: measures and trims the stream if it is time.
    ///
    /// # Errors
    /// The connection has failed.
    pub(super) async fn appended(
        &mut self,
        connection: &mut MultiplexedConnection,
        stream: &str,
        sizes: impl Iterator<Item = usize>,
    ) -> RedisResult<()> {
        let bytes: u64 = sizes.map(|size| size as u64 + ENTRY_BYTES).sum();
        let is_due = match &mut self.appended {
            Some(appended) => {
                *appended = appended.saturating_add(bytes);
                *appended >= self.bytes_max / MEASURE_PARTS
            }
            None => true,
        };
        if !is_due || self.is_denied {
            return Ok(());
        }
        self.appended = Some(0);
        match self.trim(connection, stream).await {
            Err(error) if error.is_io_error() => Err(error),
            Err(error) => {
                self.is_denied = true;
                let error = error.to_string().replace(char::is_control, " ");
                tracing::warn!(
                    "cannot keep the Redis stream within REDIS_STREAM_MAX_BYTES, only within REDIS_STREAM_MAXLEN: {error}"
                );
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }

    async fn trim(&self, connection: &mut MultiplexedConnection, stream: &str) -> RedisResult<()> {
        let part = self.bytes_max / MEASURE_PARTS;
        for _ in 0..ROUNDS_MAX {
            let bytes = usage(connection, stream).await?;
            if bytes <= self.bytes_max - part {
                break;
            }
            let target = self.bytes_max - SLACK_PARTS * part;
            if !remove_part(connection, stream, bytes - target.min(bytes), bytes).await? {
                break;
            }
        }
        Ok(())
    }

    /// Removes the oldest entries of the stream from a Redis that is full, if the stream is what fills it. Returns whether it did.
    pub(super) async fn make_room(&mut self, connection: &mut MultiplexedConnection, stream: &str) -> bool {
        let removed = async {
            let info: String = cmd("INFO").arg("memory").query_async(connection).await?;
            let used = info.lines().find_map(|line| line.strip_prefix("used_memory:"));
            let used: u64 = used.and_then(|used| used.trim().parse().ok()).unwrap_or(u64::MAX);
            let is_filled_by_stream = usage(connection, stream).await?.saturating_mul(2) >= used;
            Ok::<_, RedisError>(is_filled_by_stream && remove_part(connection, stream, 1, ROOM_PARTS).await?)
        };
        let has_room = removed.await.unwrap_or_else(|error| {
            tracing::debug!("cannot make room in Redis, which is full: {error}");
            false
        });
        if has_room && !self.is_reported {
            self.is_reported = true;
            tracing::warn!(
                "Redis is full, mostly of the stream: its oldest entries are removed. Set REDIS_STREAM_MAX_BYTES to less than maxmemory"
            );
        }
        has_room
    }
}

/// How many bytes the stream takes; zero if there is none.
async fn usage(connection: &mut MultiplexedConnection, stream: &str) -> RedisResult<u64> {
    let mut usage = cmd("MEMORY");
    usage.arg("USAGE").arg(stream).arg("SAMPLES").arg(0);
    Ok(usage.query_async::<Option<u64>>(connection).await?.unwrap_or(0))
}

/// Removes this part of the entries, the oldest, in whole nodes. Returns whether there were some.
async fn remove_part(connection: &mut MultiplexedConnection, stream: &str, part: u64, of: u64) -> RedisResult<bool> {
    let length: u64 = cmd("XLEN").arg(stream).query_async(connection).await?;
    let kept = u128::from(length) * u128::from(of - part) / u128::from(of.max(1));
    let mut trim = cmd("XTRIM");
    trim.arg(stream)
        .arg("MAXLEN")
        .arg("~")
        .arg(u64::try_from(kept).unwrap_or(length));
    Ok(trim.arg("LIMIT").arg(0).query_async::<u64>(connection).await? > 0)
}
