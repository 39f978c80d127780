//! The cost of a group commit: the statement of the service (`append`, and `append_row` for a single row) against the table that a
//! user would write by hand, with its counters in a second transaction: it can neither report a conflict nor the cursor of a first
//! copy, nor say after a lost reply whether it has stored a batch.

use anyhow::Result;
use serde_json::{Value, json};

use crate::postgres::Statement::{self, ByHand, GroupCommit, GroupCommitRow};
use crate::report::{self, Ratio, Results};
use crate::runs::Servers;
use crate::sides::{Side, What};

/// Both sides of each size.
const PAIRS: [[Side; 2]; 4] = [
    pair(GroupCommitRow, 1, 60_000),
    pair(GroupCommit, 100, 200_000),
    pair(GroupCommit, 1000, 300_000),
    pair(GroupCommit, 5000, 300_000),
];

const fn pair(statement: Statement, size: usize, events: usize) -> [Side; 2] {
    [
        Side::new(What::Batch(statement, size), 4, events),
        Side::new(What::Batch(ByHand, size), 4, events),
    ]
}

/// All pairs, in rounds.
pub async fn commit_cost(servers: &Servers, rounds: usize) -> Result<Value> {
    let results = Results::of(servers, PAIRS.as_flattened(), rounds).await?;
    let ratios: Vec<Ratio> = PAIRS
        .iter()
        .map(|[ours, plain]| results.ratio(*ours, *plain, |run| run.rate))
        .filter(|ratio| !ratio.value.is_nan())
        .collect();
    println!("\n{}\n{}", results.table(), report::ratios(&ratios));
    Ok(json!({
        "sides": results.json(),
        "ratios": ratios.iter().map(Ratio::json).collect::<Vec<_>>(),
    }))
}
