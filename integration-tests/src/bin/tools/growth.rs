//! Growth: the throughput when the store already holds millions of events.
//!
//! One store is filled in steps. After each step the service and the plain group commit run on it, and in the same round the
//! service runs on an empty store. Ids are of two kinds, because they decide how many index pages a batch touches.
//!
//! After a checkpoint PostgreSQL writes each page as a whole to its WAL when the page is changed for the first time. With random
//! ids in a large store nearly every event changes such a page for some seconds after each checkpoint. The service therefore
//! runs twice: right after a checkpoint, and later.

use anyhow::{Result, ensure};
use integration_tests::world::World;
use serde_json::{Value, json};

use crate::events::{Ids, Maker};
use crate::postgres::Statement::GroupCommit;
use crate::report::{median, rounded};
use crate::runs::Servers;
use crate::settings::{is_wanted, scaled};
use crate::sides::{Side, Store, What};

/// The numbers of rows at which the throughput is measured.
const MARKS: [usize; 3] = [1_000_000, 5_000_000, 20_000_000];

const SERVICE: Side = Side::new(What::Service(Store::Postgres, 1000), 16, 300_000);
const COMMIT: Side = Side::new(What::Batch(GroupCommit, 1000), 4, 300_000);
/// How the store is filled: with this many events at a time.
const FILL: Side = Side::new(What::Batch(GroupCommit, 5000), 4, 500_000);

/// What the events and their identities take on disk, with their indexes.
const BYTES: &str = "select (pg_total_relation_size('eventsieve.identities')
    + sum(pg_total_relation_size(relid)))::bigint from pg_partition_tree('eventsieve.events')";

/// What was measured at one number of rows: medians.
#[derive(Debug, Clone, Copy)]
struct Mark {
    /// Rows before the runs.
    rows: usize,
    /// Events a second of the service on an empty store.
    empty: f64,
    /// The same on the store with these rows, right after a checkpoint.
    first: f64,
    /// The same later.
    service: f64,
    /// The plain group commit on it, between the two: it still bears part of the cost of the checkpoint.
    commit: f64,
    /// The throughput right after a checkpoint, divided by that on an empty store: the median over the rounds.
    first_ratio: f64,
    /// The same later.
    ratio: f64,
    /// Bytes of the table and its indexes.
    bytes: i64,
}

/// A store that is filled, with ids of both kinds.
pub async fn growth(servers: &Servers, rounds: usize) -> Result<Value> {
    let mut result = json!({});
    for ids in [Ids::Rising, Ids::Random] {
        if is_wanted(&format!("{ids:?} ids"))? {
            let marks = marks(servers, ids, rounds).await?;
            println!("\n{}", table(ids, &marks));
            result[format!("{ids:?}").to_lowercase()] = json(&marks);
        }
    }
    ensure!(
        result != json!({}),
        "SIDES selects nothing: there are \"Rising ids\" and \"Random ids\""
    );
    Ok(result)
}

fn scaled_side(side: Side) -> Result<Side> {
    Ok(Side {
        events: scaled(side.events)?,
        ..side
    })
}

/// Fills a store, and measures at each mark.
async fn marks(servers: &Servers, ids: Ids, rounds: usize) -> Result<Vec<Mark>> {
    let (service_side, commit_side) = (scaled_side(SERVICE)?, scaled_side(COMMIT)?);
    let fill_side = scaled_side(FILL)?;
    let world = World::on(&servers.postgres).await;
    world.run(&["migrate"]).await.ended_with(0);
    let mut maker = Maker::new(ids, SERVICE.topics, 2);
    let mut rows = 0;
    let mut seen = Vec::new();
    for mark in MARKS {
        while rows < scaled(mark)? {
            servers.fill(&world, fill_side, &mut maker).await?;
            rows = usize::try_from(world.totals().await.rows)?;
        }
        // A server that has grown slowly would have done so by itself.
        world.execute("vacuum analyze events").await;
        world.execute("vacuum analyze identities").await;
        let mut seen_here = Vec::new();
        for round in 0..rounds {
            let empty = servers.run_with(service_side, ids).await?.rate;
            world.execute("checkpoint").await;
            let first = servers.run_on(&world, service_side, &mut maker).await?.rate;
            let commit = servers.run_on(&world, commit_side, &mut maker).await?.rate;
            let service = servers.run_on(&world, service_side, &mut maker).await?.rate;
            eprintln!(
                "{ids:?} ids, {rows} rows, round {}: empty {empty:.0}/s, after a checkpoint {first:.0}/s, later {service:.0}/s, plain group commit {commit:.0}/s",
                round + 1
            );
            seen_here.push([empty, first, service, commit]);
        }
        let of = |value: fn(&[f64; 4]) -> f64| median(seen_here.iter().map(value).collect());
        seen.push(Mark {
            rows,
            empty: of(|[empty, ..]| *empty),
            first: of(|[_, first, ..]| *first),
            service: of(|[.., service, _]| *service),
            commit: of(|[.., commit]| *commit),
            first_ratio: of(|[empty, first, ..]| first / empty),
            ratio: of(|[empty, _, service, _]| service / empty),
            bytes: world.number(BYTES).await,
        });
        rows = usize::try_from(world.totals().await.rows)?;
    }
    let unpublished = world.unpublished().await;
    ensure!(unpublished == 0, "{unpublished} batches are not published");
    Ok(seen)
}

fn table(ids: Ids, seen: &[Mark]) -> String {
    let mut table = format!(
        "{:<12}{:>10}{:>7}{:>14}{:>22}{:>8}{:>14}{:>8}{:>13}{:>10}\n",
        format!("{ids:?} ids"),
        "rows",
        "GB",
        "empty, ev/s",
        "checkpointed, ev/s",
        "ratio",
        "later, ev/s",
        "ratio",
        "plain, ev/s",
        "of plain"
    );
    for mark in seen {
        let gigabytes = mark.bytes / 1_000_000;
        table.push_str(&format!(
            "{:<12}{:>10}{:>7}{:>14.0}{:>22.0}{:>8.2}{:>14.0}{:>8.2}{:>13.0}{:>10.2}\n",
            "",
            mark.rows,
            format!("{}.{}", gigabytes / 1000, gigabytes % 1000 / 100),
            mark.empty,
            mark.first,
            mark.first_ratio,
            mark.service,
            mark.ratio,
            mark.commit,
            mark.service / mark.commit
        ));
    }
    table
}

fn json(seen: &[Mark]) -> Value {
    let one = |mark: &Mark| {
        json!({
            "rows": mark.rows,
            "bytes": mark.bytes,
            "empty": rounded(mark.empty),
            "service_after_a_checkpoint": rounded(mark.first),
            "ratio_after_a_checkpoint": rounded(mark.first_ratio),
            "service": rounded(mark.service),
            "ratio": rounded(mark.ratio),
            "plain_group_commit": rounded(mark.commit),
        })
    };
    seen.iter().map(one).collect()
}
