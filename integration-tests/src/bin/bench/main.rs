//! The bench: the service against the database that it stands on, in one run, on one machine.
//!
//! Each round runs every side once, on an empty store of its own, in an order that turns; a ratio is of two runs of the same
//! round, and the median of the rounds' ratios is the figure. All sides get the same events, 30 % of them duplicates, and
//! what they send is made before the clock starts. At the end of each run its verdicts, counters, rows and messages are
//! checked, and the bench ends with a failure if one is wrong.
//!
//! `make bench` runs it on release builds, with a PostgreSQL (`fsync` on) and a Redis of its own, and `make bench-growth` its
//! second part ([`growth`]). `ROUNDS` says how many rounds there are, `SCALE` makes the runs longer or shorter than they are
//! with 1, and `SIDES` leaves out all sides whose name does not contain it.

mod contest;
mod events;
mod growth;
mod http;
mod load;
mod overload;
mod postgres;
mod report;
mod subscriber;

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use integration_tests::postgres::PostgresServer;
use integration_tests::redis::RedisServer;
use serde_json::{Value, json};

use crate::contest::{Run, Servers, Side, Store, What};
use crate::events::Ids;
use crate::overload::Overloads;
use crate::report::{Aim, Ratio, Results};

/// What a PostgreSQL on a machine of this size is given, and room for connections. What makes a commit durable is left as it is.
const POSTGRES: [&str; 6] = [
    "fsync=on",
    "shared_buffers=4GB",
    "max_wal_size=16GB",
    // As in a server that runs for long: files of the log are used again, and not made anew in the middle of a run.
    "min_wal_size=8GB",
    "checkpoint_timeout=30min",
    "max_connections=200",
];

const fn side(what: What, connections: usize, events: usize) -> Side {
    Side {
        what,
        connections,
        events,
        topics: 8,
    }
}

/// The same events, all of one topic.
const fn of_one_topic(side: Side) -> Side {
    Side { topics: 1, ..side }
}

const SERVICE_100: Side = side(What::Service(Store::Postgres, 100), 64, 200_000);
const SERVICE_1000: Side = side(What::Service(Store::Postgres, 1000), 16, 300_000);
const SERVICE_5000: Side = side(What::Service(Store::Postgres, 5000), 8, 300_000);
// From four connections, as the service has writers: of 1, 2, 3 and 4 they were the best (66 700, 80 400, 92 000 and 95 600 events/s
// in flushes of 1000).
const FLUSH_100: Side = side(What::Flush(100), 4, 200_000);
const FLUSH_1000: Side = side(What::Flush(1000), 4, 300_000);
const FLUSH_5000: Side = side(What::Flush(5000), 4, 300_000);
const SINGLE: Side = side(What::Service(Store::Postgres, 1), 64, 60_000);
const INSERT_8: Side = side(What::Insert, 8, 60_000);
const INSERT_64: Side = side(What::Insert, 64, 60_000);
const COUNT_8: Side = side(What::InsertAndCount, 8, 15_000);
const COUNT_64: Side = side(What::InsertAndCount, 64, 15_000);
const SINGLE_HOT: Side = of_one_topic(SINGLE);
const COUNT_8_HOT: Side = of_one_topic(COUNT_8);
const COUNT_64_HOT: Side = of_one_topic(COUNT_64);
const LONE: Side = side(What::Service(Store::Postgres, 1), 1, 10_000);
const LONE_INSERT: Side = side(What::Insert, 1, 10_000);
const SQLITE_100: Side = side(What::Service(Store::Sqlite, 100), 64, 200_000);
const SQLITE_1000: Side = side(What::Service(Store::Sqlite, 1000), 16, 300_000);
const SQLITE_5000: Side = side(What::Service(Store::Sqlite, 5000), 8, 300_000);
const SQLITE_SINGLE: Side = side(What::Service(Store::Sqlite, 1), 64, 60_000);
const SQLITE_LONE: Side = side(What::Service(Store::Sqlite, 1), 1, 10_000);

/// Those that are compared stand beside each other, for machines change their speed from minute to minute.
const SIDES: [Side; 21] = [
    FLUSH_100,
    SERVICE_100,
    FLUSH_1000,
    SERVICE_1000,
    SQLITE_1000,
    FLUSH_5000,
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

/// How long an overload lasts, and what `SIDES` knows it by.
const OVERLOAD_DURATION: Duration = Duration::from_secs(15);
const OVERLOAD_NAME: &str = "overload";

#[tokio::main]
async fn main() -> Result<()> {
    let servers = Servers {
        postgres: PostgresServer::with_settings(&POSTGRES).await,
        redis: RedisServer::new().await,
    };
    let surroundings = report::surroundings(&servers).await?;
    println!("{surroundings:#}");
    let rounds: usize = setting("ROUNDS", 5)?;
    let part = std::env::args().nth(1).unwrap_or_else(|| "contest".to_owned());
    let mut json = match part.as_str() {
        "contest" => contest(&servers, rounds).await?,
        "growth" => grow(&servers, rounds.min(3)).await?,
        _ => bail!("there are two parts: contest and growth"),
    };
    json["surroundings"] = surroundings;
    json["rounds"] = rounds.into();
    let path = setting("JSON", format!("target/bench-{part}.json"))?;
    fs::write(&path, format!("{json:#}\n")).with_context(|| path.clone())?;
    println!("All runs are in {path}.");
    Ok(())
}

/// All sides, in rounds, and the overload.
async fn contest(servers: &Servers, rounds: usize) -> Result<Value> {
    let wanted: String = setting("SIDES", String::new())?;
    let scale: f64 = setting("SCALE", 1.0)?;
    let sides: Vec<Side> = SIDES.into_iter().filter(|side| side.name().contains(&wanted)).collect();
    let mut results = Results::default();
    for round in 0..rounds {
        for turn in 0..sides.len() {
            // From the front and from behind: neither side of a pair always comes first.
            let turn = if round % 2 == 0 { turn } else { sides.len() - 1 - turn };
            let side = sides[turn];
            let run = servers.run(scaled(side, scale)).await.with_context(|| side.name())?;
            let (name, rate) = (side.name(), run.rate);
            eprintln!(
                "round {}: {name}, {} connections: {rate:.0}/s",
                round + 1,
                side.connections
            );
            results.add(side, run);
        }
    }
    let mut overloads = Overloads::default();
    if OVERLOAD_NAME.contains(&wanted) {
        for round in 0..rounds.min(3) {
            let peak = servers.run(scaled(SERVICE_1000, scale)).await?.rate;
            let seen = overload::overload(servers, SERVICE_1000, 1000, peak, OVERLOAD_DURATION).await?;
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

/// A store that is filled, with ids of both kinds.
async fn grow(servers: &Servers, rounds: usize) -> Result<Value> {
    let wanted: String = setting("SIDES", String::new())?;
    let scale: f64 = setting("SCALE", 1.0)?;
    let mut json = json!({});
    let kinds = [Ids::Rising, Ids::Random].into_iter();
    for ids in kinds.filter(|ids| format!("{ids:?} ids").contains(&wanted)) {
        let seen = growth::growth(servers, ids, rounds, |events| scaled_number(events, scale)).await?;
        println!("\n{}", growth::table(ids, &seen));
        json[format!("{ids:?}").to_lowercase()] = growth::json(&seen);
    }
    ensure!(
        json != json!({}),
        "SIDES leaves nothing: there are Rising ids and Random ids"
    );
    Ok(json)
}

/// What the design asks for.
fn aims(results: &Results) -> Vec<Ratio> {
    let rate = |run: &Run| run.rate;
    let p99 = |run: &Run| run.p99.as_secs_f64();
    let insert = results.better(INSERT_8, INSERT_64);
    let count = results.better(COUNT_8, COUNT_64);
    let hot_count = results.better(COUNT_8_HOT, COUNT_64_HOT);
    let mut lone = results.ratio(LONE, LONE_INSERT, p99, Aim::AtMost(2.0));
    lone.name.push_str(" (p99)");
    let ratios = vec![
        results.ratio(SERVICE_1000, FLUSH_1000, rate, Aim::AtLeast(0.75)),
        results.ratio(SERVICE_100, FLUSH_100, rate, Aim::AtLeast(0.85)),
        results.ratio(SERVICE_5000, FLUSH_5000, rate, Aim::AtLeast(0.75)),
        results.ratio(SINGLE, insert, rate, Aim::AtLeast(1.25)),
        results.ratio(SINGLE, count, rate, Aim::AtLeast(5.0)),
        results.ratio(SINGLE_HOT, hot_count, rate, Aim::AtLeast(5.0)),
        lone,
        results.ratio(SQLITE_1000, SERVICE_1000, rate, Aim::AtLeast(1.0)),
        Ratio {
            name: "the service's memory at its peak, MB (without the overload)".to_owned(),
            value: results.peak_megabytes(),
            aim: Aim::AtMost(100.0),
        },
    ];
    // Of what SIDES has left out nothing is known.
    ratios.into_iter().filter(|ratio| !ratio.value.is_nan()).collect()
}

/// The same with more or fewer events.
fn scaled(side: Side, scale: f64) -> Side {
    Side {
        events: scaled_number(side.events, scale),
        ..side
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "it is a number of events"
)]
fn scaled_number(events: usize, scale: f64) -> usize {
    (events as f64 * scale) as usize
}

fn setting<T: std::str::FromStr>(name: &str, default: T) -> Result<T, T::Err> {
    std::env::var(name).map_or(Ok(default), |text| text.parse())
}
