//! `eventsieve serve`: runs the service.

use crate::cli::UsageError;
use crate::config::ServeOptions;
use crate::{serve, telemetry};

/// What is logged without `RUST_LOG`.
const LOG_FILTER: &str = "info";

/// Run the service (the default)
///
/// It listens at once, waits for the store for as long as it takes, brings its schema up to date, and serves until SIGTERM or
/// SIGINT, when it finishes what it was given.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  eventsieve serve --database-url postgres://eventsieve:secret@localhost/eventsieve")]
pub struct Args {
    #[command(flatten)]
    options: ServeOptions,
}

impl Args {
    /// Runs the service until a signal ends it.
    ///
    /// # Errors
    /// Wrong configuration, as a [`UsageError`]; else as [`serve::serve`].
    pub async fn run(self) -> anyhow::Result<()> {
        let config = self.options.check().map_err(|error| UsageError(error.to_string()))?;
        telemetry::start(LOG_FILTER).map_err(UsageError)?;
        if let Some(trace) = config.trace.clone() {
            telemetry::send_traces(trace).await.map_err(UsageError)?;
        }
        serve::serve(config).await
    }
}
