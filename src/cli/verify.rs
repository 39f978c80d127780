//! `eventsieve verify`: recounts the store.

use std::io::{Write, stdout};

use anyhow::{Context, Result, bail};

use crate::cli::error::UsageError;
use crate::cli::table::{signed, values};
use crate::config::StoreOptions;
use crate::store::{self, Verification};

/// Recount the events in the store and compare the result with the counters and the outbox
///
/// Reads one snapshot; the service may keep running. Exits with code 1 if anything differs.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  eventsieve verify --database-url postgres://eventsieve:secret@localhost/eventsieve"
)]
pub(crate) struct Args {
    #[command(flatten)]
    store: StoreOptions,
}

impl Args {
    /// Prints what was counted, and each drift. A drift is an error.
    pub(crate) async fn run(self) -> Result<()> {
        let url = self.store.check().map_err(UsageError::from)?;
        let store = store::open(&url)?;
        store.check_schema().await?;
        let verification = store.verify().await?;
        stdout()
            .write_all(table(&verification).as_bytes())
            .context("cannot print the counts")?;
        match verification.drifts.len() {
            0 => Ok(()),
            1 => bail!("the store and its counters differ in 1 place, listed above"),
            drifts => bail!("the store and its counters differ in {drifts} places, listed above"),
        }
    }
}

fn table(verification: &Verification) -> String {
    let counts = &verification.counts;
    let mut table = values([
        ("rows", signed(verification.rows)),
        ("received", signed(counts.received)),
        ("unique", signed(counts.unique_processed)),
        ("duplicates", signed(counts.duplicate_dropped)),
        ("conflicts", signed(counts.conflicts)),
        ("pruned", signed(counts.pruned)),
        ("not yet published", signed(verification.outbox_batches)),
    ]);
    for drift in &verification.drifts {
        table.push_str(&format!("drift: {drift}\n"));
    }
    if verification.drifts.is_empty() {
        table.push_str("no drift\n");
    }
    table
}
