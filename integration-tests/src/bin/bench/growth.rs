//! Growth: what is left of the throughput when the store holds millions of events.
//!
//! One store is filled further and further; at each mark the service and the raw flush run on it, and in the same round the
//! service on an empty store beside it. Ids are of two kinds, for they decide how many pages of the index a batch touches.
//!
//! After a checkpoint PostgreSQL writes every page whole into its log when it is first touched. With random ids in a large store
//! that is nearly every event's, for some seconds after each checkpoint. So the service runs twice: right after a checkpoint,
//! and when that has passed.

use anyhow::{Result, ensure};
use integration_tests::world::World;
use serde_json::{Value, json};

use crate::contest::{Servers, Side, Store, What};
use crate::events::{Ids, Maker};
use crate::report::{median, rounded};

/// How many rows there are when it is measured.
pub const MARKS: [usize; 3] = [1_000_000, 5_000_000, 20_000_000];

const SERVICE: Side = Side {
    what: What::Service(Store::Postgres, 1000),
    connections: 16,
    events: 300_000,
    topics: 8,
};
const FLUSH: Side = Side {
    what: What::Flush(1000),
    connections: 4,
    events: 300_000,
    topics: 8,
};
/// How the store is filled: events are made that many at a time.
const FILL: Side = Side {
    what: What::Flush(5000),
    connections: 4,
    events: 500_000,
    topics: 8,
};

/// What was seen at a mark: medians.
#[derive(Debug, Clone, Copy)]
pub struct Mark {
    /// Rows before the runs.
    pub rows: usize,
    /// Events a second of the service on an empty store.
    pub empty: f64,
    /// The same on the store with these rows, right after a checkpoint.
    pub first: f64,
    /// The same later.
    pub service: f64,
    /// The raw flush on it, between the two: it still pays for some of what a checkpoint costs.
    pub flush: f64,
    /// The service with rows right after a checkpoint, as a part of the service without rows: the median of the rounds.
    pub first_ratio: f64,
    /// The same later.
    pub ratio: f64,
    /// Bytes of the table and its indexes.
    pub bytes: i64,
}

/// Fills a store, and measures at each mark. `scaled` makes numbers of events smaller or larger.
pub async fn growth(servers: &Servers, ids: Ids, rounds: usize, scaled: impl Fn(usize) -> usize) -> Result<Vec<Mark>> {
    let [service_side, flush_side, fill_side] = [SERVICE, FLUSH, FILL].map(|side| Side {
        events: scaled(side.events),
        ..side
    });
    let world = World::on(&servers.postgres).await;
    world.run(&["migrate"]).await.ended_with(0);
    let mut maker = Maker::new(ids, SERVICE.topics, 2);
    let mut rows = 0;
    let mut seen = Vec::new();
    for mark in MARKS {
        while rows < scaled(mark) {
            servers.fill(&world, fill_side, &mut maker).await?;
            rows = usize::try_from(world.totals().await.rows)?;
        }
        // What a server that has grown slowly would have done by itself.
        world.execute("vacuum analyze events").await;
        let mut seen_here = Vec::new();
        for round in 0..rounds {
            let empty = servers.run_with(service_side, ids).await?.rate;
            world.execute("checkpoint").await;
            let first = servers.run_on(&world, service_side, &mut maker).await?.rate;
            let flush = servers.run_on(&world, flush_side, &mut maker).await?.rate;
            let service = servers.run_on(&world, service_side, &mut maker).await?.rate;
            eprintln!(
                "{ids:?} ids, {rows} rows, round {}: empty {empty:.0}/s, after a checkpoint {first:.0}/s, later {service:.0}/s, raw flush {flush:.0}/s",
                round + 1
            );
            seen_here.push([empty, first, service, flush]);
        }
        let of = |figure: fn(&[f64; 4]) -> f64| median(seen_here.iter().map(figure).collect());
        seen.push(Mark {
            rows,
            empty: of(|[empty, ..]| *empty),
            first: of(|[_, first, ..]| *first),
            service: of(|[.., service, _]| *service),
            flush: of(|[.., flush]| *flush),
            first_ratio: of(|[empty, first, ..]| first / empty),
            ratio: of(|[empty, _, service, _]| service / empty),
            bytes: world.number("select pg_total_relation_size('events')").await,
        });
        rows = usize::try_from(world.totals().await.rows)?;
    }
    let unpublished = world.unpublished().await;
    ensure!(unpublished == 0, "{unpublished} batches are not published");
    Ok(seen)
}

/// What was seen at the marks, as a table.
pub fn table(ids: Ids, seen: &[Mark]) -> String {
    let mut table = format!(
        "{:<12}{:>10}{:>7}{:>14}{:>22}{:>8}{:>14}{:>8}{:>12}{:>8}\n",
        format!("{ids:?} ids"),
        "rows",
        "GB",
        "empty, ev/s",
        "checkpointed, ev/s",
        "ratio",
        "later, ev/s",
        "ratio",
        "raw, ev/s",
        "of raw"
    );
    for mark in seen {
        let gigabytes = mark.bytes / 1_000_000;
        table.push_str(&format!(
            "{:<12}{:>10}{:>7}{:>14.0}{:>22.0}{:>8.2}{:>14.0}{:>8.2}{:>12.0}{:>8.2}\n",
            "",
            mark.rows,
            format!("{}.{}", gigabytes / 1000, gigabytes % 1000 / 100),
            mark.empty,
            mark.first,
            mark.first_ratio,
            mark.service,
            mark.ratio,
            mark.flush,
            mark.service / mark.flush
        ));
    }
    table
}

/// The same as JSON.
pub fn json(seen: &[Mark]) -> Value {
    let one = |mark: &Mark| {
        json!({
            "rows": mark.rows,
            "bytes": mark.bytes,
            "empty": rounded(mark.empty),
            "service_after_a_checkpoint": rounded(mark.first),
            "ratio_after_a_checkpoint": rounded(mark.first_ratio),
            "service": rounded(mark.service),
            "ratio": rounded(mark.ratio),
            "raw_flush": rounded(mark.flush),
        })
    };
    seen.iter().map(one).collect()
}
