//! What all runs have shown, as a table and as JSON.

use std::fs;

use anyhow::Result;
use integration_tests::world::World;
use serde_json::{Value, json};

use crate::contest::{Run, Servers, Side};

/// The runs of each side, one for each round.
#[derive(Default)]
pub struct Results(Vec<(Side, Vec<Run>)>);

/// A ratio of two sides, and what it is to be.
#[derive(Debug, Clone)]
pub struct Ratio {
    /// What it is of.
    pub name: String,
    /// The median of the ratios of the rounds.
    pub value: f64,
    /// What the design asks for.
    pub aim: Aim,
}

/// What a figure is to be.
#[derive(Debug, Clone, Copy)]
pub enum Aim {
    /// No less.
    AtLeast(f64),
    /// No more.
    AtMost(f64),
}

impl Ratio {
    fn is_met(&self) -> bool {
        match self.aim {
            Aim::AtLeast(aim) => self.value >= aim,
            Aim::AtMost(aim) => self.value <= aim,
        }
    }

    fn aim(&self) -> String {
        match self.aim {
            Aim::AtLeast(aim) => format!("≥ {aim}"),
            Aim::AtMost(aim) => format!("≤ {aim}"),
        }
    }

    /// As a member of the JSON.
    pub fn json(&self) -> Value {
        json!({ "name": self.name, "value": rounded(self.value), "aim": self.aim(), "met": self.is_met() })
    }
}

impl Results {
    /// Adds a run.
    pub fn add(&mut self, side: Side, run: Run) {
        match self.0.iter_mut().find(|(known, _)| *known == side) {
            Some((_, runs)) => runs.push(run),
            None => self.0.push((side, vec![run])),
        }
    }

    fn runs(&self, side: Side) -> &[Run] {
        let found = self.0.iter().find(|(known, _)| *known == side);
        found.map_or(&[], |(_, runs)| runs)
    }

    /// The median of a figure of a side.
    pub fn median(&self, side: Side, figure: impl Fn(&Run) -> f64) -> f64 {
        median(self.runs(side).iter().map(figure).collect())
    }

    /// The side with the better median rate.
    pub fn better(&self, one: Side, other: Side) -> Side {
        let rate = |side| self.median(side, |run| run.rate);
        if rate(one) >= rate(other) { one } else { other }
    }

    /// The ratio of a figure: the median over the rounds, of two runs of the same round each.
    pub fn ratio(&self, side: Side, base: Side, figure: impl Fn(&Run) -> f64, aim: Aim) -> Ratio {
        let rounds = self.runs(side).iter().zip(self.runs(base));
        Ratio {
            name: format!("{} : {}", side.name(), base.name()),
            value: median(rounds.map(|(run, base)| figure(run) / figure(base)).collect()),
            aim,
        }
    }

    /// The table of all sides.
    pub fn table(&self) -> String {
        let mut table = format!(
            "{:<34}{:>6}{:>11}{:>9}{:>9} │{:>7}{:>9}{:>12}{:>7}{:>7} │{:>8}\n",
            "", "conns", "events/s", "p50 ms", "p99 ms", "load", "service", "PostgreSQL", "Redis", "busy", "RSS MB"
        );
        for (side, _) in &self.0 {
            let figure = |figure: &dyn Fn(&Run) -> f64| self.median(*side, figure);
            // Seconds for a million events are microseconds for one.
            let processor = |seconds: &dyn Fn(&Run) -> f64| figure(&|run| seconds(run) * 1e6 / per_event(run));
            let sum = |run: &Run| {
                let p = run.processor;
                p.load + p.service + p.postgres + p.redis
            };
            table.push_str(&format!(
                "{:<34}{:>6}{:>11.0}{:>9.2}{:>9.2} │{:>7.1}{:>9.1}{:>12.1}{:>7.1}{:>6.0}% │{:>8}\n",
                side.name(),
                side.connections,
                figure(&|run| run.rate),
                figure(&|run| run.p50.as_secs_f64() * 1e3),
                figure(&|run| run.p99.as_secs_f64() * 1e3),
                processor(&|run| run.processor.load),
                processor(&|run| run.processor.service),
                processor(&|run| run.processor.postgres),
                processor(&|run| run.processor.redis),
                figure(&|run| sum(run) / run.elapsed.as_secs_f64() / cores() * 100.0),
                match figure(&|run| megabytes(run.peak_bytes)) {
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
        let end = if ratio.is_met() { "met" } else { "missed" };
        format!("{:<72}{:>9.2}   {:<9}{end}\n", ratio.name, ratio.value, ratio.aim())
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

/// What is not the server's own default, and what makes a commit durable.
const SETTINGS: &str = "select string_agg(name || ' = ' || current_setting(name), ', ' order by name) from pg_settings
    where name in ('fsync', 'synchronous_commit', 'full_page_writes', 'wal_sync_method')
       or source = 'command line' and name not in ('data_directory', 'port', 'listen_addresses', 'unix_socket_directories', 'config_file', 'hba_file', 'ident_file')";

/// How many processors there are.
pub fn cores() -> f64 {
    std::thread::available_parallelism().map_or(1.0, |cores| u32::try_from(cores.get()).map_or(1.0, f64::from))
}

#[expect(clippy::cast_precision_loss, reason = "no run has 2^52 events")]
fn per_event(run: &Run) -> f64 {
    run.events as f64
}

#[expect(clippy::cast_precision_loss, reason = "no process has 2^52 bytes")]
pub fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

/// The middle one; of an even number the lower.
pub fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    let middle = figures.len().saturating_sub(1) / 2;
    figures.get(middle).copied().unwrap_or(f64::NAN)
}

/// To three places.
pub fn rounded(figure: f64) -> f64 {
    (figure * 1000.0).round() / 1000.0
}
