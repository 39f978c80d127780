//! Configuration: each setting is one field, with its flag, its environment variable (the flag wins), its default, its type and
//! its help text. A start reports all problems together. Secrets are redacted at their types.

mod access;
mod error;
mod http;
mod ingest;
mod life;
mod memory;
mod notify;
mod proxy;
mod redis;
mod retention;
mod secret;
mod sink;
mod store;
mod trace;
mod value;

use clap::builder::Resettable;
use clap::{Args, Command, FromArgMatches};

use self::access::AccessSettings;
pub(crate) use self::access::{AccessConfig, client_key};
pub(crate) use self::error::ConfigError;
pub(crate) use self::http::HttpConfig;
pub(crate) use self::ingest::{EVENT_BYTES, IngestConfig};
pub(crate) use self::life::LifeConfig;
pub(crate) use self::notify::NotifyConfig;
pub(crate) use self::proxy::{ForwardedHeader, PathPrefix, ProxyConfig};
use self::redis::RedisFiles;
#[cfg(feature = "redis")]
pub(crate) use self::redis::address::{Credentials, Host, Place};
#[cfg(feature = "redis")]
pub(crate) use self::redis::{ChannelConfig, RedisAccess};
pub(crate) use self::redis::{ChannelOptions, RedisConfig, RedisOptions};
pub(crate) use self::retention::{ArchiveOptions, ArchiveUrl, Retain, RetentionConfig, TopicAges};
use self::sink::SinkSettings;
pub(crate) use self::sink::{OUTBOX_LEASE_CREDIBLE, SinkConfig};
pub(crate) use self::store::{Database, Pooler, SCHEMA_DEFAULT, StoreOptions};
pub(crate) use self::trace::TraceConfig;
use self::trace::TraceOptions;
use self::value::Checked;

/// The variables that have no flag, and their meanings.
pub const VARIABLES: [(&str, &str); 15] = [
    (
        "DATABASE_URL_FILE",
        "The file that holds the URL of the store, if DATABASE_URL is not set",
    ),
    (
        "DEDUP_DB",
        "The path of the embedded store's file, if neither DATABASE_URL nor DATABASE_URL_FILE is set",
    ),
    (
        "REDIS_URL_FILE",
        "The file that holds the URL of Redis, if REDIS_URL is not set",
    ),
    (
        "REDIS_SENTINEL_PASSWORD_FILE",
        "The file that holds the password of the Sentinels, if REDIS_SENTINEL_PASSWORD is not set",
    ),
    (
        "EVENTSIEVE_ADMIN_KEY",
        "A key that may do everything, of at least 32 characters",
    ),
    (
        "EVENTSIEVE_ADMIN_KEY_FILE",
        "The file that holds that key, if EVENTSIEVE_ADMIN_KEY is not set",
    ),
    ("EVENTSIEVE_KEY", "The key that commands present to a service"),
    (
        "EVENTSIEVE_KEY_FILE",
        "The file that holds that key, if EVENTSIEVE_KEY is not set",
    ),
    (
        "RUST_LOG",
        "What is logged: `info`, `debug` (a line for each request), `warn`, or a filter of the crate tracing-subscriber",
    ),
    (
        "LOG_FORMAT",
        "The format of the log, `text` or `json`; by default `text` on a terminal, else `json`",
    ),
    (
        "OTEL_EXPORTER_OTLP_HEADERS",
        "Headers for the collector, such as a key: `NAME=VALUE,…`. They are never logged",
    ),
    (
        "OTEL_TRACES_SAMPLER",
        "Which requests are traced: `parentbased_always_on` (the default), `parentbased_traceidratio` with the ratio in `OTEL_TRACES_SAMPLER_ARG`, and the other samplers of the OpenTelemetry SDK",
    ),
    (
        "OTEL_RESOURCE_ATTRIBUTES",
        "Attributes of this process in its spans: `KEY=VALUE,…`",
    ),
    (
        "NOTIFY_SOCKET",
        "The socket of the service manager, set by systemd for `Type=notify`: it is told when the service serves, and when it stops",
    ),
    (
        "WATCHDOG_USEC",
        "How often the service manager must hear from the process, in microseconds, set by systemd for `WatchdogSec=`",
    ),
];

/// The settings of `serve`, as they were read.
pub type ServeOptions = Checked<ServeSettings>;

/// The sections of `serve`.
#[derive(Debug, Clone, Args)]
pub struct ServeSettings {
    #[command(flatten)]
    store: StoreOptions,
    #[command(flatten)]
    http: HttpConfig,
    #[command(flatten)]
    access: AccessSettings,
    #[command(flatten)]
    ingest: IngestConfig,
    #[command(flatten)]
    sink: SinkSettings,
    #[command(flatten)]
    retention: RetentionConfig,
    #[command(flatten)]
    life: LifeConfig,
    #[command(flatten)]
    trace: TraceOptions,
}

/// The valid configuration of `serve`.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where the store is.
    pub database: Database,
    /// The HTTP server.
    pub http: HttpConfig,
    /// Who may do what, beside the keys in the store.
    pub access: AccessConfig,
    /// Group commits, and the memory that requests may occupy.
    pub ingest: IngestConfig,
    /// Where stored events are published.
    pub sink: SinkConfig,
    /// How long events are kept.
    pub retention: RetentionConfig,
    /// Start and shutdown.
    pub life: LifeConfig,
    /// Where spans are sent; `None`: nothing is traced.
    pub trace: Option<TraceConfig>,
    /// How many bytes of memory the process may use; `None`: as many as the machine has.
    pub memory_limit: Option<usize>,
    /// What the service manager is told.
    pub notify: NotifyConfig,
}

impl ServeOptions {
    /// The configuration, or all problems.
    pub fn check(&self) -> Result<Config, ConfigError> {
        let config = self.check_with(&RedisFiles::from_environment())?;
        let admin = access::admin_key().map_err(|problem| ConfigError(vec![problem]))?;
        Ok(Config {
            access: AccessConfig { admin, ..config.access },
            notify: NotifyConfig::read(),
            ..config
        })
    }

    fn check_with(&self, files: &RedisFiles) -> Result<Config, ConfigError> {
        let Self { settings, problems } = self;
        let mut problems = problems.clone();
        let sink = settings.sink.check(&mut problems, files);
        let database = settings.store.check().map_err(|error| problems.extend(error.0));
        let trace = settings.trace.check(&mut problems);
        let (mut http, mut ingest) = (settings.http.clone(), settings.ingest.clone());
        let memory_limit = memory::limit();
        memory::derive_limits(&mut http, &mut ingest, memory_limit);
        if problems.is_empty() {
            problems = settings.conflicts(&http, &ingest);
        }
        let Ok(database) = database else {
            return Err(ConfigError(problems));
        };
        let config = Config {
            database,
            http,
            access: settings.access.check(None),
            ingest,
            sink,
            retention: settings.retention.clone(),
            life: settings.life.clone(),
            trace,
            memory_limit,
            notify: NotifyConfig::default(),
        };
        ConfigError::unless(problems, config)
    }
}

impl ServeSettings {
    /// What is wrong between settings that are each valid.
    fn conflicts(&self, http: &HttpConfig, ingest: &IngestConfig) -> Vec<String> {
        let life = &self.life;
        let conflicts = [
            (
                ingest.queue_events_max < http.events_max,
                "EVENTSIEVE_QUEUE_EVENTS must be at least EVENTSIEVE_MAX_EVENTS: a request is never split",
            ),
            (
                ingest.queue_bytes_max < http.body_bytes_max + http.events_max * EVENT_BYTES,
                "EVENTSIEVE_QUEUE_BYTES must hold one request, which is never split: EVENTSIEVE_MAX_BODY and 256 bytes for each of EVENTSIEVE_MAX_EVENTS",
            ),
            (
                http.answer_bytes_max < memory::ANSWER_BYTES_MIN,
                "EVENTSIEVE_ANSWER_BYTES must be at least 16MiB: five eighths of it hold a page, and an eighth the results of a batch",
            ),
            (
                life.grace_period < life.drain_delay,
                "EVENTSIEVE_GRACE_PERIOD must be at least EVENTSIEVE_DRAIN_DELAY: it includes that delay",
            ),
        ];
        let found = conflicts.iter().filter(|(is_wrong, _)| *is_wrong);
        let found = found.map(|(_, problem)| (*problem).to_owned());
        found
            .chain(self.retention.conflict())
            .chain(self.http.proxy.conflict())
            .collect()
    }
}

impl Config {
    /// The configuration of a service on this store and address with the defaults of all other settings; the environment is
    /// ignored.
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
            .check_with(&RedisFiles::default())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

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
    fn reads_flags_and_redacts_secrets() {
        let config = check(
            "--database-url postgres://u:hidden1@h/d --max-body 1MiB --request-deadline 2s --archive-secret hidden2",
        )
        .unwrap();
        assert_eq!(config.http.body_bytes_max, 1 << 20);
        assert_eq!(config.ingest.request_deadline, Duration::from_secs(2));
        assert!(!format!("{config:?}").contains("hidden"));
        let options = Serve::parse_from(["serve", "--database-url", "postgres://u:hidden1@h/d"]).serve;
        assert!(!format!("{options:?}").contains("hidden"));
    }

    #[test]
    fn with_defaults_ignores_the_environment() {
        let config = Config::with_defaults("postgres://h/d", "::1", 9000).unwrap();
        assert_eq!((config.http.host.as_str(), config.http.port), ("::1", 9000));
        let by_flags = check("--database-url postgres://h/d --host ::1 --port 9000 --redis-url=").unwrap();
        assert_eq!(format!("{config:?}"), format!("{by_flags:?}"));
        assert!(Config::with_defaults("mysql://h/d", "::1", 9000).is_err());
    }

    #[test]
    fn reports_all_problems_together() {
        let problems = check("--database-url mysql://x --port 70000 --max-body lots --request-deadline soon")
            .unwrap_err()
            .0;
        assert_eq!(problems.len(), 4, "{problems:?}");
    }

    #[test]
    fn rejects_a_queue_smaller_than_a_request() {
        let problems = check("--database-url postgres://x --queue-events 10 --queue-bytes 1MiB")
            .unwrap_err()
            .0;
        assert_eq!(problems.len(), 2, "{problems:?}");
    }
}
