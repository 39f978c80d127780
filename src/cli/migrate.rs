//! `eventsieve migrate`: brings the schema up to date.

use anyhow::Result;

use crate::cli::UsageError;
use crate::config::StoreOptions;
use crate::store;

/// Bring the store's schema up to date, and end
///
/// `serve` does so itself, unless it is started with --no-migrate.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  eventsieve migrate --database-url postgres://eventsieve:secret@localhost/eventsieve"
)]
pub struct Args {
    #[command(flatten)]
    store: StoreOptions,
}

impl Args {
    /// Applies what is missing, once; it does not wait for a store that is not there.
    ///
    /// # Errors
    /// Wrong configuration, as a [`UsageError`], or the store's error.
    pub async fn run(self) -> Result<()> {
        let url = self.store.check().map_err(|error| UsageError(error.to_string()))?;
        let version = store::open(&url)?.migrate().await?;
        println!("the schema is at version {version}");
        Ok(())
    }
}
