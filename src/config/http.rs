//! The HTTP server: where it listens, and the limits of a connection and of a request.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::proxy::ProxyConfig;
use super::value::{number, number_or_auto, size, size_or_auto, time};

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
    /// Maximum size of all responses in memory together: pages that are being read, or that clients have not read yet. Beyond it requests to read are answered with 503. auto: 64MiB, or an eighth of the memory that the process may use if that is less, but at least 16MiB.
    #[arg(long = "answer-bytes", env = "EVENTSIEVE_ANSWER_BYTES", default_value = "auto", value_name = "SIZE", value_parser = size_or_auto())]
    pub answer_bytes_max: usize,
    /// Maximum number of open connections; further clients wait until one is closed. auto: 8192, or one for each 64KiB of the memory that the process may use if these are fewer, but at least 256.
    #[arg(
        long = "max-connections",
        env = "EVENTSIEVE_MAX_CONNECTIONS",
        default_value = "auto",
        value_name = "CONNECTIONS",
        value_parser = number_or_auto(1..=1_000_000)
    )]
    pub connections_max: usize,
    /// Maximum number of open connections of one client address; further ones are refused. Those of EVENTSIEVE_TRUSTED_PROXIES, which carry many clients, are not counted.
    #[arg(
        long = "max-connections-per-client",
        env = "EVENTSIEVE_MAX_CONNECTIONS_PER_CLIENT",
        default_value = "4096",
        value_name = "CONNECTIONS",
        value_parser = number::<usize>(1..=1_000_000)
    )]
    pub connections_per_client_max: usize,
    /// A second address, HOST:PORT, for the probes and /metrics, which clients cannot keep busy. /metrics is then served there alone, and at most 64 connections are accepted.
    #[arg(long, env = "EVENTSIEVE_METRICS_ADDRESS", value_name = "ADDRESS")]
    pub metrics_address: Option<String>,
    /// Maximum number of new topics that this process admits in a minute; beyond it requests with new topics are answered with 429.
    #[arg(
        long = "new-topics",
        env = "EVENTSIEVE_NEW_TOPICS",
        default_value = "10000",
        value_name = "TOPICS",
        value_parser = number::<u32>(0..=1_000_000_000)
    )]
    pub new_topics_per_minute: u32,
    /// The time limit for the head of a request.
    #[arg(long, env = "EVENTSIEVE_HEADER_TIMEOUT", default_value = "10s", value_name = "TIME", value_parser = time())]
    pub header_timeout: Duration,
    /// The time limit for the body of a request.
    #[arg(long, env = "EVENTSIEVE_BODY_TIMEOUT", default_value = "30s", value_name = "TIME", value_parser = time())]
    pub body_timeout: Duration,
    /// The bytes that must arrive in each second while a body is being received, over five seconds; 0: any number.
    #[arg(
        long = "body-rate",
        env = "EVENTSIEVE_BODY_RATE",
        default_value = "1024",
        value_name = "BYTES",
        value_parser = number::<usize>(0..=1 << 30)
    )]
    pub body_rate_min: usize,
    /// How long a connection may be idle, or a client may leave a response unread, before the connection is closed.
    #[arg(long, env = "EVENTSIEVE_IDLE_TIMEOUT", default_value = "75s", value_name = "TIME", value_parser = time())]
    pub idle_timeout: Duration,
    #[command(flatten)]
    pub proxy: ProxyConfig,
}
