//! `eventsieve verify`: recounts the store.

use anyhow::{Result, bail};

use crate::cli::UsageError;
use crate::config::StoreOptions;
use crate::store::{self, Verification};

/// Recount the store against its counters and its outbox
///
/// In one snapshot, while the service runs or not. Ends with 1 if anything is off.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  eventsieve verify --database-url postgres://eventsieve:secret@localhost/eventsieve"
)]
pub struct Args {
    #[command(flatten)]
    store: StoreOptions,
}

impl Args {
    /// Prints what was counted, and each thing that is off.
    ///
    /// # Errors
    /// Wrong configuration, as a [`UsageError`], the store's error, or a drift.
    pub async fn run(self) -> Result<()> {
        let url = self.store.check().map_err(|error| UsageError(error.to_string()))?;
        let store = store::open(&url)?;
        store.check_schema().await?;
        let verification = store.verify().await?;
        print!("{}", table(&verification));
        match verification.drifts.len() {
            0 => Ok(()),
            drifts => bail!("the store has drifted: {drifts} thing(s) are off, listed above"),
        }
    }
}

fn table(verification: &Verification) -> String {
    let counts = &verification.counts;
    let lines = [
        ("rows", verification.rows),
        ("received", counts.received),
        ("unique", counts.unique_processed),
        ("duplicates", counts.duplicate_dropped),
        ("conflicts", counts.conflicts),
        ("pruned", counts.pruned),
        ("not yet published", verification.outbox_batches),
    ];
    let mut table: String = lines
        .iter()
        .map(|(name, count)| format!("{name:<18}{count:>14}\n"))
        .collect();
    for drift in &verification.drifts {
        table.push_str(&format!("off: {drift}\n"));
    }
    if verification.drifts.is_empty() {
        table.push_str("no drift\n");
    }
    table
}
