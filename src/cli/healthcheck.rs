//! `eventsieve healthcheck`: asks a service whether it is ready, for containers without a shell.

use std::time::Duration;

use anyhow::Context;

use crate::{cli::target::TargetArgs, client::Client};

/// Shorter than the usual timeout of container health checks, so that the reason is printed before the check is killed.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);

/// Check that a running service is ready: exit code 0 if publishing can succeed now, else 1 with the reason
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  eventsieve healthcheck --url http://127.0.0.1:8080")]
pub(crate) struct Args {
    #[command(flatten)]
    target: TargetArgs,
}

impl Args {
    /// Asks once. A service that does not answer within three seconds is an error.
    pub(crate) async fn run(self) -> anyhow::Result<()> {
        let target = self.target.target()?;
        let client = Client::new(target.clone(), ANSWER_TIMEOUT)?;
        client.ready().await.with_context(|| format!("{target} is not ready"))
    }
}
