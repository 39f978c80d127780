//! Configuration: sections, each read from flags and environment (flags win), checked together, so that one start tells all
//! that is wrong. Secrets redact themselves.

mod sink;
mod store;
mod trace;

use std::path::PathBuf;
use std::time::Duration;

use clap::builder::Resettable;
use clap::{Args, Command, FromArgMatches};

use self::sink::SinkOptions;
pub use self::sink::{ChannelOptions, RedisConfig, RedisOptions, RedisUrl, SinkConfig};
pub use self::store::{DatabaseUrl, StoreOptions};
pub use self::trace::TraceConfig;
use self::trace::TraceOptions;

/// Variables that have no flag, and what they mean.
pub const VARIABLES: [(&str, &str); 8] = [
    (
        "DATABASE_URL_FILE",
        "A file that holds the store's URL, where DATABASE_URL is not set",
    ),
    (
        "DEDUP_DB",
        "The path of the embedded store's file, where neither of these is set",
    ),
    (
        "REDIS_URL_FILE",
        "A file that holds the URL of Redis, where REDIS_URL is not set",
    ),
    (
        "RUST_LOG",
        "What is logged: `info`, `debug` (a line for each request), `warn`, or as the crate tracing-subscriber describes",
    ),
    (
        "LOG_FORMAT",
        "`text` or `json`; without it `text` on a terminal, else `json`",
    ),
    (
        "OTEL_EXPORTER_OTLP_HEADERS",
        "Headers for the collector, such as a key: `NAME=VALUE,…`. They are never logged",
    ),
    (
        "OTEL_TRACES_SAMPLER",
        "Which requests are traced: `parentbased_always_on` (the default), `parentbased_traceidratio` with the part in `OTEL_TRACES_SAMPLER_ARG`, and the others of the OpenTelemetry SDK",
    ),
    (
        "OTEL_RESOURCE_ATTRIBUTES",
        "What the spans say of this process: `KEY=VALUE,…`",
    ),
];

/// Some configuration that cannot be: every problem is a sentence that says what to do.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.join("; "))]
pub struct ConfigError(pub Vec<String>);

/// The flags of `serve`.
#[derive(Debug, Clone, Args)]
pub struct ServeOptions {
    #[command(flatten)]
    store: StoreOptions,
    #[command(flatten)]
    http: HttpOptions,
    #[command(flatten)]
    ingest: IngestOptions,
    #[command(flatten)]
    fanout: SinkOptions,
    #[command(flatten)]
    life: LifeOptions,
    #[command(flatten)]
    trace: TraceOptions,
}

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "HTTP")]
struct HttpOptions {
    /// The address to listen on.
    #[arg(long, env = "HOST", default_value = "127.0.0.1")]
    host: String,
    /// The port to listen on; 0 takes a free one.
    #[arg(long, env = "PORT", default_value = "8080")]
    port: String,
    /// A file to write the base URL into once the port is open.
    #[arg(long, env = "EVENTSIEVE_READY_FILE", value_name = "FILE")]
    ready_file: Option<PathBuf>,
    /// The largest body, counted after decompression.
    #[arg(long, env = "EVENTSIEVE_MAX_BODY", default_value = "10MiB", value_name = "SIZE")]
    max_body: String,
    /// The most events in one request.
    #[arg(long, env = "EVENTSIEVE_MAX_EVENTS", default_value = "10000", value_name = "EVENTS")]
    max_events: String,
    /// The most connections at once; more wait to be accepted.
    #[arg(
        long,
        env = "EVENTSIEVE_MAX_CONNECTIONS",
        default_value = "8192",
        value_name = "CONNECTIONS"
    )]
    max_connections: String,
    /// How long the head of a request may take.
    #[arg(long, env = "EVENTSIEVE_HEADER_TIMEOUT", default_value = "10s", value_name = "TIME")]
    header_timeout: String,
    /// How long the body of a request may take.
    #[arg(long, env = "EVENTSIEVE_BODY_TIMEOUT", default_value = "30s", value_name = "TIME")]
    body_timeout: String,
    /// How long a connection may be idle, and how long a reader may stop reading.
    #[arg(long, env = "EVENTSIEVE_IDLE_TIMEOUT", default_value = "75s", value_name = "TIME")]
    idle_timeout: String,
}

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Ingest")]
struct IngestOptions {
    /// How long a request may wait for its commit: then 503 or 504.
    #[arg(
        long,
        env = "EVENTSIEVE_REQUEST_DEADLINE",
        default_value = "15s",
        value_name = "TIME"
    )]
    request_deadline: String,
    /// How many batches are committed at once; an embedded store has one writer.
    #[arg(long, env = "EVENTSIEVE_WRITERS", default_value = "4", value_name = "WRITERS")]
    writers: String,
    /// The most events in memory, waiting for their commit.
    #[arg(
        long,
        env = "EVENTSIEVE_QUEUE_EVENTS",
        default_value = "100000",
        value_name = "EVENTS"
    )]
    queue_events: String,
    /// The most memory for bodies and events, from a body's first byte to its commit.
    #[arg(long, env = "EVENTSIEVE_QUEUE_BYTES", default_value = "32MiB", value_name = "SIZE")]
    queue_bytes: String,
}

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Life cycle")]
struct LifeOptions {
    /// How long a stopping replica still serves while /readyz says no.
    #[arg(long, env = "EVENTSIEVE_DRAIN_DELAY", default_value = "0s", value_name = "TIME")]
    drain_delay: String,
    /// When a stopping replica ends whatever is left.
    #[arg(long, env = "EVENTSIEVE_GRACE_PERIOD", default_value = "30s", value_name = "TIME")]
    grace_period: String,
    /// Refuse to start on an old schema instead of migrating it.
    #[arg(long, env = "EVENTSIEVE_NO_MIGRATE", value_parser = clap::builder::FalseyValueParser::new())]
    no_migrate: bool,
}

/// What `serve` runs with.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where the store is.
    pub database_url: DatabaseUrl,
    /// The edge.
    pub http: HttpConfig,
    /// Group commit and its budget.
    pub ingest: IngestConfig,
    /// Where stored events go.
    pub fanout: SinkConfig,
    /// Start and stop.
    pub life: LifeConfig,
    /// Where traces go; `None`: nothing is traced.
    pub trace: Option<TraceConfig>,
}

/// The edge: where to listen, and the limits of a connection and of a request.
#[derive(Debug, Clone)]
pub struct HttpConfig {
    /// The address, as a name or an IP.
    pub host: String,
    /// The port; 0: any.
    pub port: u16,
    /// Where the base URL is written.
    pub ready_file: Option<PathBuf>,
    /// Bytes of a body after decompression.
    pub body_bytes_max: usize,
    /// Events in one request.
    pub events_max: usize,
    /// Connections at once.
    pub connections_max: usize,
    /// For a request's head.
    pub header_timeout: Duration,
    /// For a request's body.
    pub body_timeout: Duration,
    /// For an idle connection, and for a reader that does not read.
    pub idle_timeout: Duration,
}

/// Group commit and its budget.
#[derive(Debug, Clone)]
pub struct IngestConfig {
    /// From a request's submission to its answer.
    pub request_deadline: Duration,
    /// Writers, each with a connection of its own.
    pub writers: u32,
    /// Events in memory.
    pub queue_events_max: usize,
    /// Bytes in memory.
    pub queue_bytes_max: usize,
}

/// Start and stop.
#[derive(Debug, Clone)]
pub struct LifeConfig {
    /// Between "not ready" and the end of accepting.
    pub drain_delay: Duration,
    /// Between the signal and the end of everything.
    pub grace_period: Duration,
    /// Whether `serve` applies migrations.
    pub migrates: bool,
}

impl ServeOptions {
    /// Checks all sections.
    ///
    /// # Errors
    /// [`ConfigError`] with every problem found.
    pub fn check(&self) -> Result<Config, ConfigError> {
        self.check_with(sink::url_file())
    }

    fn check_with(&self, redis_url_file: Option<PathBuf>) -> Result<Config, ConfigError> {
        let mut problems = ConfigProblems::default();
        let (http, ingest, life) = (&self.http, &self.ingest, &self.life);
        let database_url = self.store.check().map_err(|error| problems.0.extend(error.0));
        let http = HttpConfig {
            host: http.host.clone(),
            port: problems.number("PORT", &http.port, 0..=65535u64),
            ready_file: http.ready_file.clone(),
            body_bytes_max: problems.size("EVENTSIEVE_MAX_BODY", &http.max_body),
            events_max: problems.number("EVENTSIEVE_MAX_EVENTS", &http.max_events, 1..=1_000_000),
            connections_max: problems.number("EVENTSIEVE_MAX_CONNECTIONS", &http.max_connections, 1..=1_000_000),
            header_timeout: problems.time("EVENTSIEVE_HEADER_TIMEOUT", &http.header_timeout),
            body_timeout: problems.time("EVENTSIEVE_BODY_TIMEOUT", &http.body_timeout),
            idle_timeout: problems.time("EVENTSIEVE_IDLE_TIMEOUT", &http.idle_timeout),
        };
        let ingest = IngestConfig {
            request_deadline: problems.time("EVENTSIEVE_REQUEST_DEADLINE", &ingest.request_deadline),
            writers: problems.number("EVENTSIEVE_WRITERS", &ingest.writers, 1..=64),
            queue_events_max: problems.number("EVENTSIEVE_QUEUE_EVENTS", &ingest.queue_events, 1..=100_000_000),
            queue_bytes_max: problems.size("EVENTSIEVE_QUEUE_BYTES", &ingest.queue_bytes),
        };
        let fanout = self.fanout.check(&mut problems, redis_url_file);
        let life = LifeConfig {
            drain_delay: problems.time("EVENTSIEVE_DRAIN_DELAY", &life.drain_delay),
            grace_period: problems.time("EVENTSIEVE_GRACE_PERIOD", &life.grace_period),
            migrates: !life.no_migrate,
        };
        let trace = self.trace.check(&mut problems);
        problems.relations(&http, &ingest, &life);
        match database_url {
            Ok(database_url) => problems.or(Config {
                database_url,
                http,
                ingest,
                fanout,
                life,
                trace,
            }),
            Err(()) => Err(ConfigError(problems.0)),
        }
    }
}

impl Config {
    /// A service on this store and address that has the default of every other setting, whatever the environment says.
    ///
    /// # Errors
    /// [`ConfigError`] when a part of the three is wrong.
    pub fn with_defaults(database_url: &str, host: &str, port: u16) -> Result<Self, ConfigError> {
        let flags = [
            format!("--database-url={database_url}"),
            format!("--host={host}"),
            format!("--port={port}"),
        ];
        ServeOptions::augment_args(Command::new("serve").no_binary_name(true))
            .mut_args(|flag| flag.env(Resettable::Reset))
            .try_get_matches_from(flags)
            .and_then(|matches| ServeOptions::from_arg_matches(&matches))
            .map_err(|error| ConfigError(vec![error.kind().to_string()]))?
            .check_with(None)
    }
}

/// What an event takes in memory beside its text, at most: the least budget of bytes is reckoned with it.
pub const EVENT_BYTES: usize = 256;

/// Collects what is wrong; a value that is wrong reads as zero, which nobody uses.
#[derive(Default)]
struct ConfigProblems(Vec<String>);

impl ConfigProblems {
    /// What was read, if nothing was wrong.
    fn or<T>(self, read: T) -> Result<T, ConfigError> {
        if self.0.is_empty() {
            Ok(read)
        } else {
            Err(ConfigError(self.0))
        }
    }

    fn number<N: TryFrom<u64> + Default>(&mut self, name: &str, text: &str, range: std::ops::RangeInclusive<u64>) -> N {
        let number = text
            .parse()
            .ok()
            .filter(|number| range.contains(number))
            .and_then(|number| N::try_from(number).ok());
        number.unwrap_or_else(|| {
            self.0.push(format!(
                "{name} must be a whole number from {} to {}, not {text:?}",
                range.start(),
                range.end()
            ));
            N::default()
        })
    }

    fn size(&mut self, name: &str, text: &str) -> usize {
        let size = text
            .parse::<bytesize::ByteSize>()
            .ok()
            .and_then(|size| usize::try_from(size.as_u64()).ok());
        size.filter(|size| *size >= 1024).unwrap_or_else(|| {
            self.0.push(format!(
                "{name} must be a size of at least 1KiB, such as 10MiB, not {text:?}"
            ));
            0
        })
    }

    fn time(&mut self, name: &str, text: &str) -> Duration {
        humantime::parse_duration(text).unwrap_or_else(|_| {
            self.0
                .push(format!("{name} must be a time such as 500ms, 15s or 2m, not {text:?}"));
            Duration::ZERO
        })
    }

    /// What is wrong between settings that are each fine.
    fn relations(&mut self, http: &HttpConfig, ingest: &IngestConfig, life: &LifeConfig) {
        if !self.0.is_empty() {
            return;
        }
        if ingest.queue_events_max < http.events_max {
            self.0.push(
                "EVENTSIEVE_QUEUE_EVENTS must be at least EVENTSIEVE_MAX_EVENTS: a request is never split".to_owned(),
            );
        }
        if ingest.queue_bytes_max < http.body_bytes_max + http.events_max * EVENT_BYTES {
            self.0.push(
                "EVENTSIEVE_QUEUE_BYTES must hold one request, which is never split: EVENTSIEVE_MAX_BODY and 256 bytes for each of EVENTSIEVE_MAX_EVENTS".to_owned(),
            );
        }
        if life.grace_period < life.drain_delay {
            self.0.push(
                "EVENTSIEVE_GRACE_PERIOD must be at least EVENTSIEVE_DRAIN_DELAY: it ends what is left".to_owned(),
            );
        }
        if ingest.request_deadline.is_zero() {
            self.0.push("EVENTSIEVE_REQUEST_DEADLINE must be above zero".to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Serve {
        #[command(flatten)]
        serve: ServeOptions,
    }

    fn check(arguments: &str) -> Result<Config, ConfigError> {
        Serve::parse_from(std::iter::once("serve").chain(arguments.split_whitespace()))
            .serve
            .check()
    }

    #[test]
    fn flags_become_a_configuration() {
        let config = check("--database-url postgres://u:secret@h/d --max-body 1MiB --request-deadline 2s").unwrap();
        assert_eq!(config.http.body_bytes_max, 1 << 20);
        assert_eq!(config.ingest.request_deadline, Duration::from_secs(2));
        assert!(!format!("{config:?}").contains("secret"));
        let options = Serve::parse_from(["serve", "--database-url", "postgres://u:secret@h/d"]).serve;
        assert!(!format!("{options:?}").contains("secret"));
    }

    #[test]
    fn what_is_not_given_has_the_default_of_its_flag() {
        let config = Config::with_defaults("postgres://h/d", "::1", 9000).unwrap();
        assert_eq!((config.http.host.as_str(), config.http.port), ("::1", 9000));
        let by_flags = check("--database-url postgres://h/d --host ::1 --port 9000 --redis-url=").unwrap();
        assert_eq!(format!("{config:?}"), format!("{by_flags:?}"));
        assert!(Config::with_defaults("mysql://h/d", "::1", 9000).is_err());
    }

    #[test]
    fn all_problems_are_reported_together() {
        let problems = check("--database-url mysql://x --port 70000 --max-body lots --request-deadline soon")
            .unwrap_err()
            .0;
        assert_eq!(problems.len(), 4, "{problems:?}");
    }

    #[test]
    fn a_queue_that_is_smaller_than_a_request_is_refused() {
        let problems = check("--database-url postgres://x --queue-events 10 --queue-bytes 1MiB")
            .unwrap_err()
            .0;
        assert_eq!(problems.len(), 2, "{problems:?}");
    }
}
