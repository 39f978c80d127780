//! The results of all runs, as a table and as JSON.

use std::fs;

use anyhow::{Context, Result};
use integration_tests::world::World;
use serde_json::{Value, json};

use crate::runs::{Run, Servers};
use crate::settings::{is_wanted, scaled};
use crate::sides::Side;

/// The runs of each side, one for each round. A side has the number of events before `SCALE`.
#[derive(Default)]
pub struct Results(Vec<(Side, Vec<Run>)>);

/// A ratio of two sides, or another value, and its aim.
#[derive(Debug, Clone)]
pub struct Ratio {
    /// What is compared.
    pub name: String,
    /// The median over the rounds.
    pub value: f64,
    aim: Option<Aim>,
}

/// What a value should be.
#[derive(Debug, Clone, Copy)]
enum Aim {
    AtLeast(f64),
    AtMost(f64),
}

impl Ratio {
    /// A value without an aim.
    pub fn new(name: &str, value: f64) -> Self {
        Self {
            name: name.to_owned(),
            value,
            aim: None,
        }
    }

    /// The same with a lowest value.
    pub fn at_least(self, aim: f64) -> Self {
        Self {
            aim: Some(Aim::AtLeast(aim)),
            ..self
        }
    }

    /// The same with a highest value.
    pub fn at_most(self, aim: f64) -> Self {
        Self {
            aim: Some(Aim::AtMost(aim)),
            ..self
        }
    }

    fn is_met(&self) -> Option<bool> {
        Some(match self.aim? {
            Aim::AtLeast(aim) => self.value >= aim,
            Aim::AtMost(aim) => self.value <= aim,
        })
    }

    fn aim(&self) -> Option<String> {
        Some(match self.aim? {
            Aim::AtLeast(aim) => format!("≥ {aim}"),
            Aim::AtMost(aim) => format!("≤ {aim}"),
        })
    }

    /// As a member of the JSON.
    pub fn json(&self) -> Value {
        json!({ "name": self.name, "value": rounded(self.value), "aim": self.aim(), "met": self.is_met() })
    }
}

impl Results {
    /// Runs these sides, or those of them that `SIDES` selects, in rounds.
    pub async fn of(servers: &Servers, sides: &[Side], rounds: usize) -> Result<Self> {
        let mut wanted = Vec::new();
        for side in sides {
            if is_wanted(&side.name())? {
                wanted.push(*side);
            }
        }
        let mut results = Self::default();
        for round in 0..rounds {
            for turn in 0..wanted.len() {
                // Forwards and backwards in turn, so that neither side of a pair always comes first.
                let turn = if round % 2 == 0 { turn } else { wanted.len() - 1 - turn };
                let side = wanted[turn];
                let name = side.name();
                let scaled = Side {
                    events: scaled(side.events)?,
                    ..side
                };
                let run = servers.run(scaled).await.with_context(|| name.clone())?;
                eprintln!(
                    "round {}: {name}, {} connections: {:.0}/s",
                    round + 1,
                    side.connections,
                    run.rate
                );
                results.add(side, run);
            }
        }
        Ok(results)
    }

    fn add(&mut self, side: Side, run: Run) {
        match self.0.iter_mut().find(|(known, _)| *known == side) {
            Some((_, runs)) => runs.push(run),
            None => self.0.push((side, vec![run])),
        }
    }

    fn runs(&self, side: Side) -> &[Run] {
        let found = self.0.iter().find(|(known, _)| *known == side);
        found.map_or(&[], |(_, runs)| runs)
    }

    fn median(&self, side: Side, value: impl Fn(&Run) -> f64) -> f64 {
        median(self.runs(side).iter().map(value).collect())
    }

    /// The side with the better median rate.
    pub fn better(&self, one: Side, other: Side) -> Side {
        let rate = |side| self.median(side, |run| run.rate);
        if rate(one) >= rate(other) { one } else { other }
    }

    /// The ratio of a value of two sides: the median over the rounds, each of two runs of the same round.
    pub fn ratio(&self, side: Side, base: Side, value: impl Fn(&Run) -> f64) -> Ratio {
        let rounds = self.runs(side).iter().zip(self.runs(base));
        let ratios = rounds.map(|(run, base)| value(run) / value(base)).collect();
        Ratio::new(&format!("{} : {}", side.name(), base.name()), median(ratios))
    }

    /// The table of all sides.
    pub fn table(&self) -> String {
        let mut table = format!(
            "{:<34}{:>6}{:>11}{:>9}{:>9} │{:>7}{:>9}{:>12}{:>7}{:>7} │{:>8}\n",
            "", "conns", "events/s", "p50 ms", "p99 ms", "load", "service", "PostgreSQL", "Redis", "busy", "RSS MB"
        );
        for (side, _) in &self.0 {
            let value = |value: &dyn Fn(&Run) -> f64| self.median(*side, value);
            // Seconds for a million events are microseconds for one.
            let processor = |seconds: &dyn Fn(&Run) -> f64| value(&|run| seconds(run) * 1e6 / event_count(run));
            let sum = |run: &Run| {
                let p = run.processor;
                p.load + p.service + p.postgres + p.redis
            };
            table.push_str(&format!(
                "{:<34}{:>6}{:>11.0}{:>9.2}{:>9.2} │{:>7.1}{:>9.1}{:>12.1}{:>7.1}{:>6.0}% │{:>8}\n",
                side.name(),
                side.connections,
                value(&|run| run.rate),
                value(&|run| run.p50.as_secs_f64() * 1e3),
                value(&|run| run.p99.as_secs_f64() * 1e3),
                processor(&|run| run.processor.load),
                processor(&|run| run.processor.service),
                processor(&|run| run.processor.postgres),
                processor(&|run| run.processor.redis),
                value(&|run| sum(run) / run.elapsed.as_secs_f64() / cores() * 100.0),
                match value(&|run| megabytes(run.peak_bytes)) {
                    0.0 => String::new(),
                    megabytes => format!("{megabytes:.0}"),
                },
            ));
        }
        table
    }

    /// The most memory that the service had in any run, in megabytes.
    pub fn peak_megabytes(&self) -> f64 {
        let runs = self.0.iter().flat_map(|(_, runs)| runs);
        runs.map(|run| megabytes(run.peak_bytes)).fold(0.0, f64::max)
    }

    /// All runs.
    pub fn json(&self) -> Value {
        let sides = self.0.iter().map(|(side, runs)| {
            let runs: Vec<Value> = runs.iter().map(run_json).collect();
            json!({
                "name": side.name(),
                "connections": side.connections,
                "events_per_second": rounded(self.median(*side, |run| run.rate)),
                "runs": runs,
            })
        });
        sides.collect()
    }
}

fn run_json(run: &Run) -> Value {
    json!({
        "events": run.events,
        "events_per_second": rounded(run.rate),
        "p50_ms": rounded(run.p50.as_secs_f64() * 1e3),
        "p99_ms": rounded(run.p99.as_secs_f64() * 1e3),
        "seconds": rounded(run.elapsed.as_secs_f64()),
        "cpu_seconds": {
            "load": rounded(run.processor.load),
            "service": rounded(run.processor.service),
            "postgres": rounded(run.processor.postgres),
            "redis": rounded(run.processor.redis),
        },
        "service_peak_bytes": run.peak_bytes,
    })
}

/// The table of ratios.
pub fn ratios(ratios: &[Ratio]) -> String {
    let line = |ratio: &Ratio| {
        let end = ratio
            .is_met()
            .map_or("", |is_met| if is_met { "met" } else { "missed" });
        let aim = ratio.aim().unwrap_or_default();
        format!("{:<72}{:>9.2}   {aim:<9}{end}\n", ratio.name, ratio.value)
    };
    ratios.iter().map(line).collect()
}

/// The machine, the versions and the settings of the servers.
pub async fn surroundings(servers: &Servers) -> Result<Value> {
    let world = World::on(&servers.postgres).await;
    let text = |program: &str, arguments: &[&str]| {
        let output = std::process::Command::new(program).args(arguments).output();
        output.map_or_else(
            |_| String::new(),
            |output| String::from_utf8_lossy(&output.stdout).trim().to_owned(),
        )
    };
    let first = |file: &str, name: &str| {
        let text = fs::read_to_string(file).unwrap_or_default();
        let line = text.lines().find(|line| line.starts_with(name)).map(str::to_owned);
        let value = line.and_then(|line| Some(line.split_once(':')?.1.trim().to_owned()));
        value.unwrap_or_default()
    };
    let redis: String = servers.redis.command(&["INFO", "server"]).await;
    let redis = redis.lines().find_map(|line| line.strip_prefix("redis_version:"));
    Ok(json!({
        "machine": {
            "processor": first("/proc/cpuinfo", "model name"),
            "cores": cores(),
            "memory": first("/proc/meminfo", "MemTotal"),
            "kernel": text("uname", &["-sr"]),
            "file_system": text("stat", &["--file-system", "--format=%T", &std::env::temp_dir().to_string_lossy()]),
        },
        "versions": {
            "eventsieve": world.run(&["--version"]).await.stdout.trim(),
            "commit": text("git", &["describe", "--always", "--dirty"]),
            "postgres": world.postgres().text("show server_version").await,
            "redis": redis.unwrap_or_default(),
        },
        "postgres_settings": world.postgres().text(SETTINGS).await,
    }))
}

/// The settings that are not the defaults of the server, and those that make a commit durable.
const SETTINGS: &str = "select string_agg(name || ' = ' || current_setting(name), ', ' order by name) from pg_settings
    where name in ('fsync', 'synchronous_commit', 'full_page_writes', 'wal_sync_method')
       or source = 'command line' and name not in ('data_directory', 'port', 'listen_addresses', 'unix_socket_directories', 'config_file', 'hba_file', 'ident_file')";

/// The number of processors.
pub fn cores() -> f64 {
    std::thread::available_parallelism().map_or(1.0, |cores| u32::try_from(cores.get()).map_or(1.0, f64::from))
}

#[expect(clippy::cast_precision_loss, reason = "no run has 2^52 events")]
fn event_count(run: &Run) -> f64 {
    run.events as f64
}

#[expect(clippy::cast_precision_loss, reason = "no process has 2^52 bytes")]
pub fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

/// The median; of an even number of values, the lower of the two in the middle.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len().saturating_sub(1) / 2;
    values.get(middle).copied().unwrap_or(f64::NAN)
}

/// Rounded to three decimal places.
pub fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}
