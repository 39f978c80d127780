//! The service against the database that it runs on, and an overload.

use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};

use crate::overload::{self, Overloads};
use crate::postgres::Statement::{ByHand, GroupCommit};
use crate::report::{self, Ratio, Results};
use crate::runs::{Run, Servers};
use crate::settings::{is_wanted, scaled};
use crate::sides::{Side, Store, What};

/// The same events, all of one topic.
const fn of_one_topic(side: Side) -> Side {
    Side { topics: 1, ..side }
}

const SERVICE_100: Side = Side::new(What::Service(Store::Postgres, 100), 64, 200_000);
const SERVICE_1000: Side = Side::new(What::Service(Store::Postgres, 1000), 16, 300_000);
const SERVICE_5000: Side = Side::new(What::Service(Store::Postgres, 5000), 8, 300_000);
// From four connections, as the service has writers. Of 1, 2, 3 and 4 connections, 4 were the fastest (66 700, 80 400, 92 000 and
// 95 600 events/s in batches of 1000).
const COMMIT_100: Side = Side::new(What::Batch(GroupCommit, 100), 4, 200_000);
const COMMIT_1000: Side = Side::new(What::Batch(GroupCommit, 1000), 4, 300_000);
const COMMIT_5000: Side = Side::new(What::Batch(GroupCommit, 5000), 4, 300_000);
const BY_HAND_100: Side = Side::new(What::Batch(ByHand, 100), 4, 200_000);
const BY_HAND_1000: Side = Side::new(What::Batch(ByHand, 1000), 4, 300_000);
const SINGLE: Side = Side::new(What::Service(Store::Postgres, 1), 64, 60_000);
const INSERT_8: Side = Side::new(What::Insert, 8, 60_000);
const INSERT_64: Side = Side::new(What::Insert, 64, 60_000);
const COUNT_8: Side = Side::new(What::InsertAndCount, 8, 15_000);
const COUNT_64: Side = Side::new(What::InsertAndCount, 64, 15_000);
const SINGLE_HOT: Side = of_one_topic(SINGLE);
const COUNT_8_HOT: Side = of_one_topic(COUNT_8);
const COUNT_64_HOT: Side = of_one_topic(COUNT_64);
const LONE: Side = Side::new(What::Service(Store::Postgres, 1), 1, 10_000);
const LONE_INSERT: Side = Side::new(What::Insert, 1, 10_000);
const SQLITE_100: Side = Side::new(What::Service(Store::Sqlite, 100), 64, 200_000);
const SQLITE_1000: Side = Side::new(What::Service(Store::Sqlite, 1000), 16, 300_000);
const SQLITE_5000: Side = Side::new(What::Service(Store::Sqlite, 5000), 8, 300_000);
const SQLITE_SINGLE: Side = Side::new(What::Service(Store::Sqlite, 1), 64, 60_000);
const SQLITE_LONE: Side = Side::new(What::Service(Store::Sqlite, 1), 1, 10_000);

/// Sides that are compared with each other run one after the other, because the speed of a machine changes from minute to
/// minute.
const SIDES: [Side; 23] = [
    BY_HAND_100,
    COMMIT_100,
    SERVICE_100,
    BY_HAND_1000,
    COMMIT_1000,
    SERVICE_1000,
    SQLITE_1000,
    COMMIT_5000,
    SERVICE_5000,
    INSERT_8,
    INSERT_64,
    SINGLE,
    COUNT_8,
    COUNT_64,
    COUNT_8_HOT,
    COUNT_64_HOT,
    SINGLE_HOT,
    LONE_INSERT,
    LONE,
    SQLITE_100,
    SQLITE_5000,
    SQLITE_SINGLE,
    SQLITE_LONE,
];

/// How long an overload lasts, and the name that `SIDES` selects it by.
const OVERLOAD_DURATION: Duration = Duration::from_secs(15);
const OVERLOAD_NAME: &str = "overload";

/// All sides, in rounds, and the overload.
pub async fn contest(servers: &Servers, rounds: usize) -> Result<Value> {
    let results = Results::of(servers, &SIDES, rounds).await?;
    let mut overloads = Overloads::default();
    if is_wanted(OVERLOAD_NAME)? {
        let side = Side {
            events: scaled(SERVICE_1000.events)?,
            ..SERVICE_1000
        };
        for round in 0..rounds.min(3) {
            let peak = servers.run(side).await?.rate;
            let seen = overload::overload(servers, side, 1000, peak, OVERLOAD_DURATION).await?;
            eprintln!("round {}: overload: {:.0}/s of {peak:.0}/s", round + 1, seen.goodput);
            overloads.add(peak, seen);
        }
    }
    let ratios = [aims(&results), overloads.aims()].concat();
    println!(
        "\n{}\n{}\n{}",
        results.table(),
        overloads.table(),
        report::ratios(&ratios)
    );
    Ok(json!({
        "sides": results.json(),
        "overload": overloads.json(),
        "ratios": ratios.iter().map(Ratio::json).collect::<Vec<_>>(),
    }))
}

/// What the design asks for.
fn aims(results: &Results) -> Vec<Ratio> {
    let rate = |run: &Run| run.rate;
    let p99 = |run: &Run| run.p99.as_secs_f64();
    let insert = results.better(INSERT_8, INSERT_64);
    let count = results.better(COUNT_8, COUNT_64);
    let hot_count = results.better(COUNT_8_HOT, COUNT_64_HOT);
    let mut lone = results.ratio(LONE, LONE_INSERT, p99).at_most(2.0);
    lone.name.push_str(" (p99)");
    let ratios = vec![
        results.ratio(SERVICE_1000, COMMIT_1000, rate).at_least(0.75),
        results.ratio(SERVICE_100, COMMIT_100, rate).at_least(0.85),
        results.ratio(SERVICE_5000, COMMIT_5000, rate).at_least(0.75),
        results.ratio(SERVICE_1000, BY_HAND_1000, rate).at_least(0.75),
        results.ratio(SERVICE_100, BY_HAND_100, rate).at_least(0.9),
        results.ratio(SINGLE, insert, rate).at_least(1.25),
        results.ratio(SINGLE, count, rate).at_least(5.0),
        results.ratio(SINGLE_HOT, hot_count, rate).at_least(5.0),
        lone,
        results.ratio(SQLITE_1000, SERVICE_1000, rate).at_least(1.0),
        Ratio::new(
            "peak memory of the service, MB (without the overload)",
            results.peak_megabytes(),
        )
        .at_most(100.0),
    ];
    // A ratio of sides that SIDES has left out has no value.
    ratios.into_iter().filter(|ratio| !ratio.value.is_nan()).collect()
}
