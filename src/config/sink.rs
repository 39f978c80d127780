//! Where stored events go.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use clap::builder::FalseyValueParser;

use super::{ConfigError, ConfigProblems};

/// The forms of a Redis URL: plain, over TLS, and through a socket of the file system.
const SCHEMES: [&str; 3] = ["redis://", "rediss://", "unix://"];

/// How many times longer than one answer of Redis a lease must be: the answer to a batch, that to a new connection, and the
/// mark have to fit into it, so that nobody else publishes a batch that is about to be marked.
const LEASE_TIMEOUTS: u32 = 3;

/// Where Redis is. It may hold a password, so neither `Debug` nor `Display` shows more than its scheme.
#[derive(Clone, PartialEq, Eq)]
pub struct RedisUrl(String);

impl RedisUrl {
    /// The URL itself, for the one who connects.
    #[must_use]
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

/// The channel of all events, and where it is: the flags of every command that publishes on it or follows it.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Fan-out")]
pub struct ChannelOptions {
    /// The Redis that stored events are published to: redis://USER:PASSWORD@HOST:PORT/DATABASE, or rediss:// over TLS
    #[arg(long, env = "REDIS_URL", hide_env_values = true, value_name = "URL")]
    redis_url: Option<RedisUrl>,
    /// The channel that every stored event is published on
    #[arg(long, env = "REDIS_CHANNEL", default_value = "events", value_name = "CHANNEL")]
    redis_channel: String,
}

/// How stored events reach Redis: the flags of every command that publishes there.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Fan-out")]
pub struct RedisOptions {
    #[command(flatten)]
    channel: ChannelOptions,
    /// Publish each event on CHANNEL:TOPIC as well
    #[arg(long, env = "REDIS_TOPIC_CHANNELS", value_parser = FalseyValueParser::new())]
    redis_topic_channels: bool,
    /// Append each event to this Redis stream as well
    #[arg(long, env = "REDIS_STREAM", value_name = "NAME")]
    redis_stream: Option<String>,
    /// About how many events that stream keeps
    #[arg(long, env = "REDIS_STREAM_MAXLEN", default_value = "1000000", value_name = "EVENTS")]
    redis_stream_maxlen: String,
    /// How long one answer of Redis may take
    #[arg(long, env = "EVENTSIEVE_REDIS_TIMEOUT", default_value = "5s", value_name = "TIME")]
    redis_timeout: String,
}

/// The rest of the fan-out's flags, of `serve` alone.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Fan-out")]
pub(super) struct SinkOptions {
    #[command(flatten)]
    redis: RedisOptions,
    /// When another replica takes over a batch that was stored and not published
    #[arg(long, env = "EVENTSIEVE_OUTBOX_LEASE", default_value = "30s", value_name = "TIME")]
    outbox_lease: String,
    /// The most followers of /events/stream at once
    #[arg(
        long,
        env = "EVENTSIEVE_MAX_FOLLOWERS",
        default_value = "1000",
        value_name = "FOLLOWERS"
    )]
    max_followers: String,
}

/// Where stored events go.
#[derive(Debug, Clone)]
pub struct SinkConfig {
    /// Redis; without it the fan-out stays inside the process.
    pub redis: Option<RedisConfig>,
    /// How long a batch is left alone by other replicas.
    pub lease: Duration,
    /// Followers of `/events/stream` at once.
    pub subscribers_max: usize,
}

/// How events are published to Redis.
#[derive(Debug, Clone)]
pub struct RedisConfig {
    /// Where it is.
    pub url: RedisUrl,
    /// The channel of every event.
    pub channel: String,
    /// Whether each event is also published on `channel:TOPIC`.
    pub has_topic_channels: bool,
    /// The stream that each event is also appended to.
    pub stream: Option<String>,
    /// About how many events that stream keeps.
    pub stream_length_max: u64,
    /// For one answer of Redis.
    pub timeout: Duration,
}

impl ChannelOptions {
    /// Checks the section: where Redis is, and the channel's name. Nothing when no Redis is named.
    ///
    /// # Errors
    /// [`ConfigError`] with what is wrong.
    pub fn check(&self) -> Result<Option<(RedisUrl, String)>, ConfigError> {
        let mut problems = ConfigProblems::default();
        let found = self.check_into(&mut problems, url_file());
        problems.or(found)
    }

    /// The flag, else the variable, else what is in `file`. An empty variable counts as unset.
    fn check_into(&self, problems: &mut ConfigProblems, file: Option<PathBuf>) -> Option<(RedisUrl, String)> {
        if self.redis_channel.is_empty() || self.redis_channel.chars().any(char::is_control) {
            problems
                .0
                .push("REDIS_CHANNEL must be a name without control characters".to_owned());
        }
        let url = self.url(file).map_err(|problem| problems.0.push(problem));
        url.ok().flatten().map(|url| (url, self.redis_channel.clone()))
    }

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

/// The file that holds the URL of Redis, where no flag and no variable does.
pub(super) fn url_file() -> Option<PathBuf> {
    #[expect(clippy::disallowed_methods, reason = "this is config, where the environment is read")]
    let file = std::env::var_os("REDIS_URL_FILE");
    file.filter(|file| !file.is_empty()).map(PathBuf::from)
}

impl RedisOptions {
    /// Checks the section. Nothing when no Redis is named.
    ///
    /// # Errors
    /// [`ConfigError`] with every problem found.
    pub fn check(&self) -> Result<Option<RedisConfig>, ConfigError> {
        let mut problems = ConfigProblems::default();
        let config = self.check_into(&mut problems, url_file());
        problems.or(config)
    }

    fn check_into(&self, problems: &mut ConfigProblems, file: Option<PathBuf>) -> Option<RedisConfig> {
        let stream = self.redis_stream.clone().filter(|name| !name.is_empty());
        if stream.as_ref().is_some_and(|name| name.chars().any(char::is_control)) {
            problems
                .0
                .push("REDIS_STREAM must be a name without control characters".to_owned());
        }
        let stream_length_max = problems.number("REDIS_STREAM_MAXLEN", &self.redis_stream_maxlen, 1..=u64::MAX);
        let known = problems.0.len();
        let timeout = problems.time("EVENTSIEVE_REDIS_TIMEOUT", &self.redis_timeout);
        if problems.0.len() == known && timeout < Duration::from_millis(1) {
            problems
                .0
                .push("EVENTSIEVE_REDIS_TIMEOUT must be above zero".to_owned());
        }
        let (url, channel) = self.channel.check_into(problems, file)?;
        Some(RedisConfig {
            url,
            channel,
            has_topic_channels: self.redis_topic_channels,
            stream,
            stream_length_max,
            timeout,
        })
    }
}

impl SinkOptions {
    /// Checks the section; `url_file` may hold the URL of Redis.
    pub(super) fn check(&self, problems: &mut ConfigProblems, url_file: Option<PathBuf>) -> SinkConfig {
        let known = problems.0.len();
        let config = SinkConfig {
            redis: self.redis.check_into(problems, url_file),
            lease: problems.time("EVENTSIEVE_OUTBOX_LEASE", &self.outbox_lease),
            subscribers_max: problems.number("EVENTSIEVE_MAX_FOLLOWERS", &self.max_followers, 0..=1_000_000),
        };
        let timeout = config.redis.as_ref().map_or(Duration::ZERO, |redis| redis.timeout);
        if problems.0.len() == known && config.lease < timeout * LEASE_TIMEOUTS {
            problems.0.push(format!(
                "EVENTSIEVE_OUTBOX_LEASE must be at least {LEASE_TIMEOUTS} times EVENTSIEVE_REDIS_TIMEOUT: else others publish what is about to be marked"
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
        fanout: SinkOptions,
    }

    fn check(arguments: &str) -> Result<SinkConfig, Vec<String>> {
        let mut problems = ConfigProblems::default();
        // What the environment of the tests says does not count: a flag wins, and of two the last does.
        let arguments = ["serve", "--redis-url="]
            .into_iter()
            .chain(arguments.split_whitespace());
        let matches = Serve::command().args_override_self(true).get_matches_from(arguments);
        let serve = Serve::from_arg_matches(&matches).unwrap();
        let config = serve.fanout.check(&mut problems, None);
        problems.or(config).map_err(|error| error.0)
    }

    #[test]
    fn without_a_url_the_fan_out_stays_inside() {
        assert!(check("--redis-url=").unwrap().redis.is_none());
    }

    #[test]
    fn a_redis_shows_no_password() {
        let config = check("--redis-url redis://:secret@h:1/0 --redis-stream s").unwrap();
        assert!(!format!("{config:?}").contains("secret"));
        let redis = config.redis.unwrap();
        assert_eq!(
            (redis.url.expose(), redis.stream.as_deref()),
            ("redis://:secret@h:1/0", Some("s"))
        );
        let problems = check("--redis-url http://:secret@h").unwrap_err();
        assert!(problems.len() == 1 && !problems[0].contains("secret"), "{problems:?}");
    }

    #[test]
    fn the_url_may_lie_in_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("url");
        std::fs::write(&file, "redis://from/file\n").unwrap();
        let url = |flag: &str, file: &std::path::Path| {
            let options = Serve::parse_from(["serve", flag]).fanout.redis.channel;
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
    fn a_lease_that_ends_before_redis_has_answered_is_refused() {
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
