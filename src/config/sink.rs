//! Where stored events are published.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use clap::builder::FalseyValueParser;

use super::error::ConfigError;
use super::value::{Checked, name_text, number, optional_name_text, time, time_above_zero};

/// The forms of a Redis URL: plain, over TLS, and through a socket of the file system.
const SCHEMES: [&str; 3] = ["redis://", "rediss://", "unix://"];

/// How many times longer than one answer of Redis a lease must be: it has to cover the answer to a batch, the answer to a new
/// connection, and the mark, so that no other relay publishes a batch that is about to be marked.
const LEASE_TIMEOUTS: u32 = 3;

/// The longest lease on a batch.
pub const OUTBOX_LEASE_MAX: Duration = Duration::from_secs(3600);
/// A lease that ends later than this from now was made when the clock of the database was wrong. Longer than the longest lease,
/// because another transaction may have begun a moment later than the one that asks.
pub const OUTBOX_LEASE_CREDIBLE: Duration = Duration::from_secs(2 * 3600);

/// The URL of Redis. It may hold a password, so neither `Debug` nor `Display` shows more than its scheme.
#[derive(Clone, PartialEq, Eq)]
pub struct RedisUrl(String);

impl RedisUrl {
    /// The whole URL, to connect.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = self.0.split_once("://").map_or("?", |(scheme, _)| scheme);
        write!(f, "{scheme}://[redacted]")
    }
}

impl From<String> for RedisUrl {
    fn from(url: String) -> Self {
        Self(url)
    }
}

/// The settings of commands that subscribe to the channel.
pub type ChannelOptions = Checked<ChannelSettings>;

/// The settings of commands that publish to Redis.
pub type RedisOptions = Checked<RedisSettings>;

/// The Redis, and the channel of all events.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Redis")]
pub struct ChannelSettings {
    /// The Redis that stored events are published to: redis://USER:PASSWORD@HOST:PORT/DATABASE, or rediss:// over TLS
    #[arg(long, env = "REDIS_URL", hide_env_values = true, value_name = "URL")]
    redis_url: Option<RedisUrl>,
    /// The channel that every stored event is published on
    #[arg(
        long,
        env = "REDIS_CHANNEL",
        default_value = "events",
        value_name = "CHANNEL",
        value_parser = name_text()
    )]
    redis_channel: String,
}

/// How stored events are published to Redis.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Redis")]
pub struct RedisSettings {
    #[command(flatten)]
    channel: ChannelSettings,
    #[command(flatten)]
    publishing: RedisPublishing,
}

/// What is published to Redis beside the channel, and the time limit.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Redis")]
pub struct RedisPublishing {
    /// Also publish each event on the channel of its topic, CHANNEL:TOPIC
    #[arg(long = "redis-topic-channels", env = "REDIS_TOPIC_CHANNELS", value_parser = FalseyValueParser::new())]
    pub has_topic_channels: bool,
    /// Also append each event to this Redis stream
    #[arg(long = "redis-stream", env = "REDIS_STREAM", value_name = "NAME", value_parser = optional_name_text())]
    pub stream: Option<String>,
    /// The approximate number of events that the Redis stream keeps
    #[arg(
        long = "redis-stream-maxlen",
        env = "REDIS_STREAM_MAXLEN",
        default_value = "1000000",
        value_name = "EVENTS",
        value_parser = number::<u64>(1..=u64::MAX)
    )]
    pub stream_length_max: u64,
    /// The time limit for one response of Redis
    #[arg(
        long = "redis-timeout",
        env = "EVENTSIEVE_REDIS_TIMEOUT",
        default_value = "5s",
        value_name = "TIME",
        value_parser = time_above_zero()
    )]
    pub timeout: Duration,
}

/// The outbox and the live stream: settings of `serve` alone.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Outbox and live stream")]
pub struct SinkSettings {
    /// How long a replica may hold a stored batch without publishing it, at most 1h; after that, another replica publishes it
    #[arg(long, env = "EVENTSIEVE_OUTBOX_LEASE", default_value = "30s", value_name = "TIME", value_parser = time())]
    outbox_lease: Duration,
    /// Maximum number of subscribers of /events/stream
    #[arg(
        long = "max-subscribers",
        env = "EVENTSIEVE_MAX_SUBSCRIBERS",
        default_value = "1000",
        value_name = "SUBSCRIBERS",
        value_parser = number::<usize>(0..=1_000_000)
    )]
    subscribers_max: usize,
    // Last, because its heading also applies to the arguments behind it.
    #[command(flatten)]
    redis: RedisSettings,
}

/// Where stored events are published.
#[derive(Debug, Clone)]
pub struct SinkConfig {
    /// Redis; without it events are delivered inside the process alone.
    pub redis: Option<RedisConfig>,
    /// How long other replicas leave a batch alone.
    pub lease: Duration,
    /// The most subscribers of `/events/stream` at once.
    pub subscribers_max: usize,
}

/// How events are published to Redis.
#[derive(Debug, Clone)]
pub struct RedisConfig {
    /// The URL of Redis.
    pub url: RedisUrl,
    /// The channel of every event.
    pub channel: String,
    /// The rest of the settings.
    pub publishing: RedisPublishing,
}

impl ChannelOptions {
    /// The URL of Redis and the name of the channel; `None` when no Redis is named.
    pub fn check(&self) -> Result<Option<(RedisUrl, String)>, ConfigError> {
        let mut problems = self.problems.clone();
        let channel = self.settings.check(&mut problems, url_file());
        ConfigError::unless(problems, channel)
    }
}

impl ChannelSettings {
    fn check(&self, problems: &mut Vec<String>, file: Option<PathBuf>) -> Option<(RedisUrl, String)> {
        let url = self.url(file).map_err(|problem| problems.push(problem));
        url.ok().flatten().map(|url| (url, self.redis_channel.clone()))
    }

    /// The flag, else the variable, else the content of `file`. An empty variable counts as unset.
    fn url(&self, file: Option<PathBuf>) -> Result<Option<RedisUrl>, String> {
        let (url, source) = match (&self.redis_url, file) {
            (Some(url), _) if !url.0.is_empty() => (url.0.clone(), "REDIS_URL"),
            (_, Some(file)) => {
                let text = std::fs::read_to_string(&file)
                    .map_err(|error| format!("REDIS_URL_FILE: cannot read {}: {error}", file.display()))?;
                (text.trim().to_owned(), "the file of REDIS_URL_FILE")
            }
            _ => return Ok(None),
        };
        if SCHEMES.iter().any(|scheme| url.starts_with(scheme)) {
            return Ok(Some(RedisUrl(url)));
        }
        Err(format!("{source} must begin with redis://, rediss:// or unix://"))
    }
}

/// The file that holds the URL of Redis, for when neither the flag nor the variable is set.
pub(super) fn url_file() -> Option<PathBuf> {
    #[expect(clippy::disallowed_methods, reason = "this is config, where the environment is read")]
    let file = std::env::var_os("REDIS_URL_FILE");
    file.filter(|file| !file.is_empty()).map(PathBuf::from)
}

impl RedisOptions {
    /// How to publish to Redis; `None` when no Redis is named.
    pub fn check(&self) -> Result<Option<RedisConfig>, ConfigError> {
        let mut problems = self.problems.clone();
        let config = self.settings.check(&mut problems, url_file());
        ConfigError::unless(problems, config)
    }
}

impl RedisSettings {
    fn check(&self, problems: &mut Vec<String>, url_file: Option<PathBuf>) -> Option<RedisConfig> {
        let (url, channel) = self.channel.check(problems, url_file)?;
        let mut publishing = self.publishing.clone();
        publishing.stream = publishing.stream.filter(|name| !name.is_empty());
        Some(RedisConfig {
            url,
            channel,
            publishing,
        })
    }
}

impl SinkSettings {
    /// Adds to the `problems` with the values; `url_file` may hold the URL of Redis.
    pub(super) fn check(&self, problems: &mut Vec<String>, url_file: Option<PathBuf>) -> SinkConfig {
        let config = SinkConfig {
            redis: self.redis.check(problems, url_file),
            lease: self.outbox_lease,
            subscribers_max: self.subscribers_max,
        };
        if config.lease > OUTBOX_LEASE_MAX {
            problems.push(format!(
                "EVENTSIEVE_OUTBOX_LEASE must be at most {}",
                humantime::format_duration(OUTBOX_LEASE_MAX)
            ));
        }
        let timeout = config.redis.as_ref().map(|redis| redis.publishing.timeout);
        let is_short = timeout.is_some_and(|timeout| config.lease < timeout * LEASE_TIMEOUTS);
        if problems.is_empty() && is_short {
            problems.push(format!(
                "EVENTSIEVE_OUTBOX_LEASE must be at least {LEASE_TIMEOUTS} times EVENTSIEVE_REDIS_TIMEOUT: otherwise another replica may publish a batch again while this one is still publishing it"
            ));
        }
        config
    }
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, FromArgMatches, Parser};

    use super::*;

    #[derive(Parser)]
    struct Serve {
        #[command(flatten)]
        sink: Checked<SinkSettings>,
    }

    fn check(arguments: &str) -> Result<SinkConfig, Vec<String>> {
        // The environment of the tests does not count: a flag wins, and of two the last does.
        let arguments = ["serve", "--redis-url="]
            .into_iter()
            .chain(arguments.split_whitespace());
        let matches = Serve::command().args_override_self(true).get_matches_from(arguments);
        let serve = Serve::from_arg_matches(&matches).unwrap();
        let mut problems = serve.sink.problems;
        let config = serve.sink.settings.check(&mut problems, None);
        ConfigError::unless(problems, config).map_err(|error| error.0)
    }

    #[test]
    fn without_a_url_there_is_no_redis() {
        assert!(check("--redis-url=").unwrap().redis.is_none());
    }

    #[test]
    fn never_shows_a_password() {
        let config = check("--redis-url redis://:secret@h:1/0 --redis-stream s").unwrap();
        assert!(!format!("{config:?}").contains("secret"));
        let redis = config.redis.unwrap();
        assert_eq!(
            (redis.url.expose(), redis.publishing.stream.as_deref()),
            ("redis://:secret@h:1/0", Some("s"))
        );
        let problems = check("--redis-url http://:secret@h").unwrap_err();
        assert!(problems.len() == 1 && !problems[0].contains("secret"), "{problems:?}");
    }

    #[test]
    fn reads_the_url_from_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("url");
        std::fs::write(&file, "redis://from/file\n").unwrap();
        let url = |flag: &str, file: &std::path::Path| {
            let options = Serve::parse_from(["serve", flag]).sink.settings.redis.channel;
            options.url(Some(file.to_owned())).map(|url| url.unwrap().0)
        };
        assert_eq!(url("--redis-url=", &file).unwrap(), "redis://from/file");
        assert_eq!(url("--redis-url=redis://flag", &file).unwrap(), "redis://flag");
        assert!(
            url("--redis-url=", &folder.path().join("none"))
                .unwrap_err()
                .starts_with("REDIS_URL_FILE")
        );
    }

    #[test]
    fn rejects_a_lease_that_is_too_short() {
        let problems = check("--redis-url redis://h --outbox-lease 14s --redis-timeout 5s").unwrap_err();
        assert!(
            problems.len() == 1 && problems[0].contains("EVENTSIEVE_OUTBOX_LEASE"),
            "{problems:?}"
        );
        assert!(check("--redis-url redis://h --outbox-lease 15s --redis-timeout 5s").is_ok());
        assert_eq!(
            check("--redis-timeout 0s --redis-stream-maxlen 0 --max-subscribers x")
                .unwrap_err()
                .len(),
            3
        );
    }
}
