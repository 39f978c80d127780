//! The benchmarks: each measures all its sides, checks the results of each run, and reports them.

use integration_tests::service::{Settings, binary};
use serde_json::Value;
use tokio::process::Command;

use crate::alone;

/// Runs a benchmark with few events, and returns its output and its JSON file.
async fn bench(command: &str, scale: &str) -> (String, Value) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("bench.json");
    let output = Command::new(env!("CARGO_BIN_EXE_tools"))
        .arg(command)
        .envs([("ROUNDS", "1"), ("SCALE", scale)])
        .env("EVENTSIEVE_BIN", binary())
        .env("JSON", &file)
        .kill_on_drop(true)
        .output()
        .await
        .expect("the benchmark starts");
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{printed}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let written = std::fs::read_to_string(&file).expect("the benchmark writes its results");
    (printed, serde_json::from_str(&written).expect("JSON"))
}

#[tokio::test]
async fn measures_each_side_and_compares_it_with_its_aim() {
    let _alone = alone().await;
    let (printed, json) = bench("contest", "0.02").await;
    assert_eq!(json["surroundings"]["versions"]["eventsieve"], version().await);
    let settings = json["surroundings"]["postgres_settings"].as_str().expect("settings");
    assert!(
        settings.contains("fsync = on") && settings.contains("synchronous_commit = on"),
        "{settings}"
    );
    let sides = json["sides"].as_array().expect("sides");
    assert_eq!(sides.len(), 23);
    for side in sides {
        let name = side["name"].as_str().expect("a name");
        assert!(printed.contains(name), "{name} is not in the table");
        let run = &side["runs"][0];
        assert!(run["events_per_second"].as_f64() > Some(0.0), "{side}");
        assert!(run["p50_ms"].as_f64() <= run["p99_ms"].as_f64(), "{side}");
    }
    let overload = &json["overload"][0];
    assert!(
        overload["offered"].as_f64() > Some(0.0) && overload["goodput"].as_f64() > Some(0.0),
        "{overload}"
    );
    for ratio in json["ratios"].as_array().expect("ratios") {
        assert!(
            ratio["value"].as_f64() > Some(0.0) && ratio["met"].is_boolean(),
            "{ratio}"
        );
    }
}

#[tokio::test]
async fn measures_the_cost_of_commits_and_of_publishing() {
    let _alone = alone().await;
    for (command, sides, ratios) in [("commit-cost", 8, 4), ("sink-cost", 5, 3)] {
        let (printed, json) = bench(command, "0.002").await;
        for side in json["sides"].as_array().expect("sides") {
            let name = side["name"].as_str().expect("a name");
            assert!(printed.contains(name), "{name} is not in the table");
        }
        assert_eq!(json["sides"].as_array().map(Vec::len), Some(sides));
        let found: Vec<f64> = json["ratios"]
            .as_array()
            .expect("ratios")
            .iter()
            .filter_map(|ratio| ratio["value"].as_f64())
            .collect();
        assert!(
            found.len() == ratios && found.iter().all(|ratio| *ratio > 0.0),
            "{json}"
        );
    }
}

#[tokio::test]
async fn measures_a_growing_store_at_each_size() {
    let _alone = alone().await;
    let (printed, json) = bench("growth", "0.01").await;
    assert!(printed.contains("Random ids"), "{printed}");
    for ids in ["rising", "random"] {
        let marks = json[ids].as_array().expect("marks");
        let rows: Vec<u64> = marks.iter().filter_map(|mark| mark["rows"].as_u64()).collect();
        assert!(rows.len() == 3 && rows.is_sorted() && rows[0] >= 10_000, "{rows:?}");
        for ratio in ["ratio", "ratio_after_a_checkpoint"] {
            assert!(marks.iter().all(|mark| mark[ratio].as_f64() > Some(0.0)), "{marks:?}");
        }
    }
}

async fn version() -> String {
    let printed = Settings::new("").arguments(&["--version"]).run().await.stdout;
    printed.trim().to_owned()
}
