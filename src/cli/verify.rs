//! `eventsieve verify`: recounts the store.

use anyhow::{Result, bail};
use clap::builder::FalseyValueParser;
use serde_json::json;

use crate::cli::error::UsageError;
use crate::cli::print::print;
use crate::cli::table::{signed, values};
use crate::config::{ArchiveOptions, StoreOptions};
use crate::retention::Archive;
use crate::store::{self, Verification};

/// Recount the events and identities in the store and compare the result with the counters and the outbox
///
/// Reads one snapshot; the service may keep running. If an archive is given, everything that was archived is read and compared with
/// its manifest. Exits with code 1 if anything differs; nothing is repaired.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  eventsieve verify --database-url postgres://eventsieve:secret@localhost/eventsieve"
)]
pub(crate) struct Args {
    #[command(flatten)]
    store: StoreOptions,
    #[command(flatten)]
    archive: ArchiveOptions,
    /// Print what was counted as JSON in one line
    #[arg(long, env = "EVENTSIEVE_VERIFY_JSON", value_parser = FalseyValueParser::new())]
    json: bool,
}

impl Args {
    /// Prints what was counted, and each drift. A drift is an error.
    pub(crate) async fn run(self) -> Result<()> {
        let url = self.store.check().map_err(UsageError::from)?;
        let store = store::open(&url)?;
        store.check_schema().await?;
        let archive = Archive::open(&self.archive).map_err(UsageError)?;
        let mut verification = store.verify().await?;
        if let Some(archive) = archive {
            let drifts = archive.verify(&store.archived().await?).await;
            verification.drifts.extend(drifts);
        }
        let shown = if self.json {
            json(&verification)
        } else {
            table(&verification)
        };
        print(&shown, "the counts")?;
        match verification.drifts.len() {
            0 => Ok(()),
            1 => bail!("the store and its counters differ in 1 place, listed above"),
            drifts => bail!("the store and its counters differ in {drifts} places, listed above"),
        }
    }
}

fn json(verification: &Verification) -> String {
    let counts = &verification.counts;
    let object = json!({
        "rows": verification.rows,
        "received": counts.received,
        "unique_processed": counts.unique_processed,
        "duplicate_dropped": counts.duplicate_dropped,
        "conflicts": counts.conflicts,
        "pruned": counts.pruned,
        "identities": verification.identities,
        "identities_forgotten": verification.identities_forgotten,
        "partitions": verification.partitions,
        "unpublished_batches": verification.outbox_batches,
        "drifts": verification.drifts,
    });
    format!("{object}\n")
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
        ("identities", signed(verification.identities)),
        ("identities forgotten", signed(verification.identities_forgotten)),
        ("partitions", signed(verification.partitions)),
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
