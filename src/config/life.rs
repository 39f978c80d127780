//! Start and shutdown.

use std::time::Duration;

use clap::Args;
use clap::builder::FalseyValueParser;

use super::value::time;

/// Start and shutdown.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Life cycle")]
pub struct LifeConfig {
    /// How long a stopping replica still serves requests while /readyz reports that it is not ready.
    #[arg(long, env = "EVENTSIEVE_DRAIN_DELAY", default_value = "0s", value_name = "TIME", value_parser = time())]
    pub drain_delay: Duration,
    /// Maximum time from the signal to the end of the process; unfinished work is then abandoned.
    #[arg(long, env = "EVENTSIEVE_GRACE_PERIOD", default_value = "30s", value_name = "TIME", value_parser = time())]
    pub grace_period: Duration,
    /// Do not migrate the schema: exit with an error if it is too old.
    #[arg(long, env = "EVENTSIEVE_NO_MIGRATE", value_parser = FalseyValueParser::new())]
    pub no_migrate: bool,
}
