//! How to reach Redis, and what is published there.

pub(super) mod address;
pub(super) mod tls;

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use clap::builder::FalseyValueParser;

use self::address::{Credentials, Place, RedisAddress, RedisUrl};
use self::tls::{Certificates, TlsFiles};
use super::error::ConfigError;
use super::secret::Secret;
use super::value::{Checked, name_text, number, optional_name_text, size, time_above_zero};

/// The settings of commands that subscribe to the channel.
pub type ChannelOptions = Checked<ChannelSettings>;

/// The settings of commands that publish to Redis.
pub type RedisOptions = Checked<RedisSettings>;

/// The Redis, and the channel of all events.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Redis")]
pub struct ChannelSettings {
    /// The Redis that stored events are published to: redis://USER:PASSWORD@HOST:PORT/DATABASE, or rediss:// over TLS; with Sentinels
    /// redis+sentinel://USER:PASSWORD@HOST:PORT,HOST:PORT/SERVICE/DATABASE; a Cluster redis+cluster://USER:PASSWORD@HOST:PORT,HOST:PORT
    #[arg(long, env = "REDIS_URL", hide_env_values = true, value_name = "URL")]
    redis_url: Option<RedisUrl>,
    #[command(flatten)]
    tls: TlsFiles,
    /// The user of the Sentinels, which have users of their own
    #[arg(long, env = "REDIS_SENTINEL_USER", value_name = "NAME")]
    redis_sentinel_user: Option<String>,
    /// The password of the Sentinels
    #[arg(
        long,
        env = "REDIS_SENTINEL_PASSWORD",
        hide_env_values = true,
        value_name = "PASSWORD"
    )]
    redis_sentinel_password: Option<Secret>,
    /// The channel that every stored event is published on
    #[arg(
        long,
        env = "REDIS_CHANNEL",
        default_value = "events",
        value_name = "CHANNEL",
        value_parser = name_text()
    )]
    redis_channel: String,
    /// In a Cluster, use sharded Pub/Sub (SPUBLISH, SSUBSCRIBE): a message is sent to the shard of its channel and not to all nodes
    #[arg(long = "redis-sharded", env = "REDIS_SHARDED", value_parser = FalseyValueParser::new())]
    is_sharded: bool,
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
    /// The approximate memory that the Redis stream takes at most
    #[arg(
        long = "redis-stream-max-bytes",
        env = "REDIS_STREAM_MAX_BYTES",
        default_value = "1GiB",
        value_name = "SIZE",
        value_parser = size()
    )]
    pub stream_bytes_max: usize,
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

/// How to reach Redis.
#[derive(Debug, Clone)]
pub struct RedisAccess {
    /// Where it is.
    pub address: RedisAddress,
    /// The certificates of connections over TLS.
    pub certificates: Certificates,
    /// How to sign in at the Sentinels.
    pub sentinel_credentials: Credentials,
}

/// The channel of every event, and where it is.
#[derive(Debug, Clone)]
pub struct ChannelConfig {
    /// How to reach its Redis.
    pub access: RedisAccess,
    /// Its name.
    pub name: String,
    /// Whether it belongs to a shard of a Cluster.
    pub is_sharded: bool,
}

/// How events are published to Redis.
#[derive(Debug, Clone)]
pub struct RedisConfig {
    /// The channel of every event.
    pub channel: ChannelConfig,
    /// The rest of the settings.
    pub publishing: RedisPublishing,
}

/// The files that hold settings that were not given in another way.
#[derive(Debug, Clone, Default)]
pub(super) struct RedisFiles {
    url: Option<PathBuf>,
    sentinel_password: Option<PathBuf>,
}

impl RedisFiles {
    /// The files that the environment names.
    pub(super) fn from_environment() -> Self {
        #[expect(clippy::disallowed_methods, reason = "this is config, where the environment is read")]
        let variable = |name: &str| std::env::var_os(name);
        let file = |name: &str| variable(name).filter(|file| !file.is_empty()).map(PathBuf::from);
        Self {
            url: file("REDIS_URL_FILE"),
            sentinel_password: file("REDIS_SENTINEL_PASSWORD_FILE"),
        }
    }
}

impl ChannelOptions {
    /// The channel and its Redis; `None` when no Redis is named.
    pub fn check(&self) -> Result<Option<ChannelConfig>, ConfigError> {
        let mut problems = self.problems.clone();
        let channel = self.settings.check(&mut problems, &RedisFiles::from_environment());
        ConfigError::unless(problems, channel)
    }
}

impl ChannelSettings {
    fn check(&self, problems: &mut Vec<String>, files: &RedisFiles) -> Option<ChannelConfig> {
        let address = self.address(files).map_err(|problem| problems.push(problem)).ok()??;
        let certificates = self.tls.check(address.is_tls, problems);
        let sentinel_credentials = match self.sentinel_credentials(files) {
            Ok(credentials) => credentials,
            Err(problem) => {
                problems.push(problem);
                return None;
            }
        };
        let has_sentinels = matches!(address.place, Place::Sentinels { .. });
        if sentinel_credentials != Credentials::default() && !has_sentinels {
            problems.push(
                "REDIS_SENTINEL_USER and REDIS_SENTINEL_PASSWORD are for a REDIS_URL that begins with redis+sentinel:// or rediss+sentinel://"
                    .to_owned(),
            );
        }
        if self.is_sharded && !matches!(address.place, Place::Cluster(_)) {
            problems.push(
                "REDIS_SHARDED is for a REDIS_URL that begins with redis+cluster:// or rediss+cluster://".to_owned(),
            );
        }
        Some(ChannelConfig {
            access: RedisAccess {
                address,
                certificates,
                sentinel_credentials,
            },
            name: self.redis_channel.clone(),
            is_sharded: self.is_sharded,
        })
    }

    /// The flag, else the variable, else the content of its file. An empty variable counts as unset.
    fn address(&self, files: &RedisFiles) -> Result<Option<RedisAddress>, String> {
        let (url, source) = match (&self.redis_url, &files.url) {
            (Some(url), _) if !url.0.is_empty() => (url.0.clone(), "REDIS_URL"),
            (_, Some(file)) => (content("REDIS_URL_FILE", file)?, "the file of REDIS_URL_FILE"),
            _ => return Ok(None),
        };
        let address = RedisAddress::parse(&url).map_err(|problem| format!("{source} {problem}"))?;
        Ok(Some(address))
    }

    fn sentinel_credentials(&self, files: &RedisFiles) -> Result<Credentials, String> {
        let password = match (&self.redis_sentinel_password, &files.sentinel_password) {
            (Some(password), _) if !password.0.is_empty() => Some(password.clone()),
            (_, Some(file)) => Some(Secret(content("REDIS_SENTINEL_PASSWORD_FILE", file)?)),
            _ => None,
        };
        let user = self.redis_sentinel_user.clone().filter(|user| !user.is_empty());
        Ok(Credentials { user, password })
    }
}

fn content(variable: &str, file: &std::path::Path) -> Result<String, String> {
    let text = std::fs::read_to_string(file)
        .map_err(|error| format!("{variable}: cannot read {}: {error}", file.display()))?;
    Ok(text.trim().to_owned())
}

impl RedisOptions {
    /// How to publish to Redis; `None` when no Redis is named.
    pub fn check(&self) -> Result<Option<RedisConfig>, ConfigError> {
        let mut problems = self.problems.clone();
        let config = self.settings.check(&mut problems, &RedisFiles::from_environment());
        ConfigError::unless(problems, config)
    }
}

impl RedisSettings {
    pub(super) fn check(&self, problems: &mut Vec<String>, files: &RedisFiles) -> Option<RedisConfig> {
        let channel = self.channel.check(problems, files)?;
        let mut publishing = self.publishing.clone();
        publishing.stream = publishing.stream.filter(|name| !name.is_empty());
        Some(RedisConfig { channel, publishing })
    }
}

#[cfg(test)]
mod tests;
