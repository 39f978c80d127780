//! `eventsieve migrate`: brings the schema up to date.

use anyhow::Result;

use crate::cli::error::UsageError;
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
}

impl Args {
    /// Applies what is missing, once. It does not wait for a store that is away.
    pub(crate) async fn run(self) -> Result<()> {
        let url = self.store.check().map_err(UsageError::from)?;
        let version = store::open(&url)?.migrate().await?;
        println!("the schema is at version {version}");
        Ok(())
    }
}
