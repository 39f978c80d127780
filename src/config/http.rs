//! The HTTP server: where it listens, and the limits of a connection and of a request.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::value::{number, size, time};

/// The address, and the limits of a connection and of a request.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "HTTP")]
pub struct HttpConfig {
    /// The host name or IP address to listen on.
    #[arg(long, env = "HOST", default_value = "127.0.0.1")]
    pub host: String,
    /// The port to listen on; 0 chooses a free port.
    #[arg(long, env = "PORT", default_value = "8080", value_parser = number::<u16>(0..=65535))]
    pub port: u16,
    /// The file that the base URL is written to once the port is open.
    #[arg(long, env = "EVENTSIEVE_READY_FILE", value_name = "FILE")]
    pub ready_file: Option<PathBuf>,
    /// Maximum size of a request body, after decompression.
    #[arg(long = "max-body", env = "EVENTSIEVE_MAX_BODY", default_value = "10MiB", value_name = "SIZE", value_parser = size())]
    pub body_bytes_max: usize,
    /// Maximum number of events in one request.
    #[arg(
        long = "max-events",
        env = "EVENTSIEVE_MAX_EVENTS",
        default_value = "10000",
        value_name = "EVENTS",
        value_parser = number::<usize>(1..=1_000_000)
    )]
    pub events_max: usize,
    /// Maximum number of open connections; further clients wait until one is closed.
    #[arg(
        long = "max-connections",
        env = "EVENTSIEVE_MAX_CONNECTIONS",
        default_value = "8192",
        value_name = "CONNECTIONS",
        value_parser = number::<usize>(1..=1_000_000)
    )]
    pub connections_max: usize,
    /// The time limit for the head of a request.
    #[arg(long, env = "EVENTSIEVE_HEADER_TIMEOUT", default_value = "10s", value_name = "TIME", value_parser = time())]
    pub header_timeout: Duration,
    /// The time limit for the body of a request.
    #[arg(long, env = "EVENTSIEVE_BODY_TIMEOUT", default_value = "30s", value_name = "TIME", value_parser = time())]
    pub body_timeout: Duration,
    /// How long a connection may be idle, or a client may leave a response unread, before the connection is closed.
    #[arg(long, env = "EVENTSIEVE_IDLE_TIMEOUT", default_value = "75s", value_name = "TIME", value_parser = time())]
    pub idle_timeout: Duration,
}
