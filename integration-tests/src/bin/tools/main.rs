//! Tools for developers that are neither tests nor part of the product: the benchmarks, and the picture of the dashboard.
//!
//! ```text
//! tools contest        the service against the database it runs on, and an overload (`make bench`)
//! tools growth         the same with millions of events in the store (`make bench-growth`)
//! tools commit-cost    one group commit against one plain statement (`make commit-cost`)
//! tools sink-cost      publishing to Redis and to 500 stream subscribers against publishing to neither (`make sink-cost`)
//! tools neighbours     a client that behaves beside six attacks, in the memory of a small container (`make neighbours`)
//! tools endurance      mixed load for an hour on each store, in 256 MB (`make endurance`)
//! tools screenshot F   a picture of the dashboard under load, written to F (`make screenshot`)
//! ```
//!
//! All benchmarks work in rounds. Each round runs every side once, each on an empty store of its own, in alternating order. A
//! ratio is taken between two runs of the same round, and the median over the rounds is reported. All sides get the same
//! events, 30 % of them duplicates, and all requests are built before the clock starts. After each run its outcomes, counters,
//! rows and messages are checked, and the benchmark fails if any of them is wrong.
//!
//! | variable | default | meaning |
//! |---|---|---|
//! | `ROUNDS` | `5` | the number of rounds |
//! | `SCALE` | `1.0` | multiplies the number of events |
//! | `SIDES` | unset | runs only the sides whose name contains it |
//! | `MINUTES` | `60` | how long the endurance run lasts on each store |
//! | `JSON` | `target/bench-COMMAND.json` | the file that gets the result of each run |

mod commit_cost;
mod contest;
mod endurance;
mod events;
mod growth;
mod http;
mod load;
mod overload;
mod postgres;
mod report;
mod runs;
mod screenshot;
mod settings;
mod sides;
mod sink_cost;
mod subscriber;

use std::fs;

use anyhow::{Context, Result, bail, ensure};
use integration_tests::containers::neighbours::six_attacks;
use integration_tests::world::World;

use crate::runs::Servers;

const USAGE: &str =
    "usage: tools contest | growth | commit-cost | sink-cost | neighbours | endurance | screenshot FILE.png";

#[tokio::main]
async fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let command = arguments.next().context(USAGE)?;
    if command == "screenshot" {
        return screenshot::screenshot(&arguments.next().context(USAGE)?).await;
    }
    if command == "neighbours" {
        return beside_attacks().await;
    }
    if command == "endurance" {
        return endurance::endurance().await;
    }
    benchmark(&command).await
}

/// Six attacks on each store. Fails if the client beside one was more than three times as slow as alone.
async fn beside_attacks() -> Result<()> {
    let mut slow = Vec::new();
    for (name, world) in [("sqlite", World::embedded()), ("postgres", World::new().await)] {
        println!("on {name}");
        slow.extend(six_attacks(world.settings()).await);
    }
    ensure!(slow.is_empty(), "more than three times as slow: {slow:#?}");
    Ok(())
}

async fn benchmark(command: &str) -> Result<()> {
    if !["contest", "growth", "commit-cost", "sink-cost"].contains(&command) {
        bail!(USAGE);
    }
    let servers = Servers::start().await;
    let surroundings = report::surroundings(&servers).await?;
    println!("{surroundings:#}");
    let rounds = settings::rounds()?;
    let mut json = match command {
        "contest" => contest::contest(&servers, rounds).await?,
        "growth" => growth::growth(&servers, rounds.min(3)).await?,
        "commit-cost" => commit_cost::commit_cost(&servers, rounds).await?,
        _ => sink_cost::sink_cost(&servers, rounds).await?,
    };
    json["surroundings"] = surroundings;
    json["rounds"] = rounds.into();
    let path = settings::json_file(command)?;
    fs::write(&path, format!("{json:#}\n")).with_context(|| path.clone())?;
    println!("the result of each run is in {path}");
    Ok(())
}
