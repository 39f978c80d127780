//! `eventsieve serve`: runs the service.

use crate::cli::error::UsageError;
use crate::config::ServeOptions;
use crate::{serve, telemetry};

/// The log filter where `RUST_LOG` is not set.
const LOG_FILTER: &str = "info";

/// Run the service (the default)
///
/// It listens at once, waits for the store for as long as necessary, and brings the schema of the store up to date. On SIGTERM or SIGINT
/// it finishes the requests that it has accepted, and ends.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  eventsieve serve --database-url postgres://eventsieve:secret@localhost/eventsieve")]
pub(crate) struct Args {
    #[command(flatten)]
    options: ServeOptions,
}

impl Args {
    /// Runs the service until a signal ends it.
    pub(crate) async fn run(self) -> anyhow::Result<()> {
        let config = self.options.check().map_err(UsageError::from)?;
        telemetry::start(LOG_FILTER).map_err(UsageError)?;
        if config.database.is_secret_shown() {
            tracing::warn!(
                "the password in --database-url is visible to every user of this machine: set DATABASE_URL, or DATABASE_URL_FILE, instead"
            );
        }
        if let Some(trace) = config.trace.clone() {
            telemetry::send_traces(trace).await.map_err(UsageError)?;
        }
        serve::serve(config).await
    }
}
