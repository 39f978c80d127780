//! Ingest: group commits, and the memory that requests may occupy.

use std::time::Duration;

use clap::Args;

use super::value::{number, size_or_auto, time_above_zero};

/// The most memory of an event beside its text: the least budget of bytes is computed with it.
pub const EVENT_BYTES: usize = 256;

/// Group commits, and the memory that requests may occupy.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Ingest")]
pub struct IngestConfig {
    /// How long a request may wait for its commit; after that it is answered with 503 or 504.
    #[arg(
        long,
        env = "EVENTSIEVE_REQUEST_DEADLINE",
        default_value = "15s",
        value_name = "TIME",
        value_parser = time_above_zero()
    )]
    pub request_deadline: Duration,
    /// The number of concurrent group commits, each on its own connection; an embedded store has one writer.
    #[arg(
        long,
        env = "EVENTSIEVE_WRITERS",
        default_value = "4",
        value_name = "WRITERS",
        value_parser = number::<u32>(1..=64)
    )]
    pub writers: u32,
    /// Maximum number of events in memory that wait for their commit.
    #[arg(
        long = "queue-events",
        env = "EVENTSIEVE_QUEUE_EVENTS",
        default_value = "100000",
        value_name = "EVENTS",
        value_parser = number::<usize>(1..=100_000_000)
    )]
    pub queue_events_max: usize,
    /// Maximum memory for request bodies and their events, from the first byte received to the commit. auto: 32MiB, or a sixteenth of the memory that the process may use if that is less, but room for one request.
    #[arg(
        long = "queue-bytes",
        env = "EVENTSIEVE_QUEUE_BYTES",
        default_value = "auto",
        value_name = "SIZE",
        value_parser = size_or_auto()
    )]
    pub queue_bytes_max: usize,
}
