//! `eventsieve migrate`: brings the schema up to date.

use anyhow::Result;

use crate::cli::error::UsageError;
use crate::cli::print::print;
use crate::config::StoreOptions;
use crate::store;

/// Bring the schema of the store up to date
///
/// `serve` does this itself, unless it is started with --no-migrate.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  eventsieve migrate --database-url postgres://eventsieve:secret@localhost/eventsieve"
)]
pub(crate) struct Args {
    #[command(flatten)]
    store: StoreOptions,
    /// Also grant this role of the database what it needs to run `serve --no-migrate`, `verify` and `prune`; it cannot change an event
    #[arg(long, env = "EVENTSIEVE_GRANT_TO", value_name = "ROLE")]
    grant_to: Option<String>,
}

impl Args {
    /// Applies what is missing, once. It does not wait for a store that is away.
    pub(crate) async fn run(self) -> Result<()> {
        let url = self.store.check().map_err(UsageError::from)?;
        let store = store::open(&url)?;
        let version = store.migrate().await?;
        let mut line = format!("the schema is at version {version}\n");
        if let Some(role) = &self.grant_to {
            store.grant(role).await?;
            line.push_str(&format!("{role} may serve, verify and prune\n"));
        }
        print(&line, "the version of the schema").map(drop)
    }
}
