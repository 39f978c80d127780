//! Where stored events are published.

use std::time::Duration;

use clap::Args;

use super::redis::{RedisConfig, RedisFiles, RedisSettings};
use super::value::{number, time};

/// How many times longer than one answer of Redis a lease must be: it has to cover the answer to a batch, the answer to a new
/// connection, and the mark, so that no other relay publishes a batch that is about to be marked.
const LEASE_TIMEOUTS: u32 = 3;

/// The longest lease on a batch.
pub const OUTBOX_LEASE_MAX: Duration = Duration::from_secs(3600);
/// A lease that ends later than this from now was made when the clock of the database was wrong. Longer than the longest lease,
/// because another transaction may have begun a moment later than the one that asks.
pub const OUTBOX_LEASE_CREDIBLE: Duration = Duration::from_secs(2 * 3600);

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

impl SinkSettings {
    /// Adds to the `problems` with the values; `files` may hold what is secret.
    pub(super) fn check(&self, problems: &mut Vec<String>, files: &RedisFiles) -> SinkConfig {
        let config = SinkConfig {
            redis: self.redis.check(problems, files),
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

    use super::super::error::ConfigError;
    use super::super::value::Checked;
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
        let config = serve.sink.settings.check(&mut problems, &RedisFiles::default());
        ConfigError::unless(problems, config).map_err(|error| error.0)
    }

    #[test]
    fn without_a_url_there_is_no_redis() {
        assert!(check("--redis-url=").unwrap().redis.is_none());
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
