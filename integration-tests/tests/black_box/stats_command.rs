//! `eventsieve stats`: `/stats` as a table.

use anyhow::ensure;
use integration_tests::eventually::{SOON, eventually};
use integration_tests::postgres::free_port;
use integration_tests::program::Program;
use integration_tests::publish::{Publish, event, events};
use integration_tests::service::{Service, Signal};
use integration_tests::world::World;
use serde_json::{Value, json};

/// The value in the line of the table that begins with `name`.
#[track_caller]
fn row<'a>(table: &'a str, name: &str) -> &'a str {
    table
        .lines()
        .filter_map(|line| line.strip_prefix(name))
        .find(|rest| rest.starts_with(' '))
        .unwrap_or_else(|| panic!("no {name} in\n{table}"))
        .trim()
}

/// A service that has 1 234 unique events, three duplicates and a conflict.
async fn counting(world: &World) -> Service {
    let service = world.serve().await;
    service.publish(&Value::from(events("orders", 0..1_230))).await;
    service.publish(&Value::from(events("orders", 0..3))).await;
    service.publish(&Value::from(events("logins", 0..4))).await;
    let mut conflicting = event("orders", "evt-0");
    conflicting["payload"] = json!({"another": 1});
    service.publish(&conflicting).await;
    service
}

fn assert_counted(table: &str) {
    for (name, value) in [
        ("received", "1,238"),
        ("unique", "1,234"),
        ("duplicates", "4"),
        ("conflicts", "1"),
        ("rows", "1,234"),
        ("duplicate rate", "0.3 %"),
        ("store", "postgres"),
        ("sink", "process"),
        ("topics", "2"),
        ("  orders", "1,230"),
        ("  logins", "4"),
    ] {
        assert_eq!(row(table, name), value, "{name}:\n{table}");
    }
    assert!(
        table.find("  orders") < table.find("  logins"),
        "the largest topic is first:\n{table}"
    );
}

/// `--json` of the commands that print figures: each a line that a program can read.
#[tokio::test]
async fn figures_are_json_on_request() {
    let world = World::new().await;
    let service = counting(&world).await;
    let read = async |arguments: &[&str]| -> Value {
        let ended = world.run(arguments).await;
        ended.ended_with(0);
        let lines: Vec<&str> = ended.stdout.lines().collect();
        assert_eq!(lines.len(), 1, "{}", ended.stdout);
        serde_json::from_str(lines[0]).expect("JSON")
    };
    // Until what was stored is published, and the housekeeping of the store has looked once.
    eventually(SOON, async || {
        let mut printed = read(&["stats", "--json", "--url", service.url()]).await;
        let mut answered = service.fetch("/stats").await.json();
        for changing in ["uptime", "uptime_seconds", "performance"] {
            assert!(printed[changing].take() != Value::Null && answered[changing].take() != Value::Null);
        }
        ensure!(printed == answered, "{printed}\ninstead of\n{answered}");
        Ok(())
    })
    .await;
    let verified = read(&["verify", "--json"]).await;
    assert_eq!(
        (
            &verified["rows"],
            &verified["received"],
            &verified["duplicate_dropped"],
            &verified["drifts"]
        ),
        (&json!(1234), &json!(1238), &json!(4), &json!([]))
    );
    eventually(SOON, async || {
        let outbox = read(&["outbox", "--json"]).await;
        let empty = json!({"unpublished_batches": 0, "oldest_seconds": 0.0, "dead_letters": 0});
        ensure!(outbox == empty, "{outbox}");
        Ok(())
    })
    .await;
    world
        .execute("update eventsieve.topic_counts set received = received + 1, unique_processed = unique_processed + 1")
        .await;
    let drifted = world.run(&["verify", "--json"]).await;
    drifted.ended_with(1);
    let drifted: Value = serde_json::from_str(drifted.stdout.trim()).expect("JSON");
    assert!(!drifted["drifts"].as_array().expect("a list").is_empty(), "{drifted}");
}

#[tokio::test]
async fn prints_values_of_the_service() {
    let world = World::new().await;
    let service = counting(&world).await;
    let printed = world.run(&["stats", "--url", service.url()]).await;
    assert_counted(&printed.ended_with(0).stdout);
    assert_eq!(printed.stderr, "");
    let capacity = service.json("/stats").await["queue"]["capacity"].clone();
    assert_eq!(capacity, 100_000);
    assert!(
        row(&printed.stdout, "queue").ends_with("of 100,000"),
        "{}",
        printed.stdout
    );
}

#[tokio::test]
async fn unreachable_service_is_one_line_and_exit_1() {
    let world = World::new().await;
    let url = format!("http://127.0.0.1:{}", free_port());
    let ended = world.run(&["stats", "--url", &url]).await;
    ended.ended_with(1);
    assert_eq!((ended.stdout.as_str(), ended.stderr.lines().count()), ("", 1));
    assert!(
        ended.stderr.contains(&url) && ended.stderr.contains("cannot reach"),
        "{}",
        ended.stderr
    );
}

#[tokio::test]
async fn watch_survives_restart_and_exits_with_0() {
    let world = World::new().await;
    let mut service = counting(&world).await;
    let watch = || {
        let settings = world.settings().arguments(&["stats", "--url", service.url()]);
        Program::start(&settings.with("EVENTSIEVE_STATS_WATCH", "true"))
    };
    let tables = |output: &str| output.matches("\nunique ").count();
    let (watching, interrupted) = (watch(), watch());
    watching.prints("two tables", |output| tables(output) >= 2).await;
    service.kill().await;
    let output = watching
        .prints("that it cannot reach the service", |output| {
            output.contains("cannot reach")
        })
        .await;
    let line = output.lines().find(|line| line.contains("cannot reach"));
    assert!(line.is_some_and(|line| line.contains(service.url())), "{output}");
    service.restart().await;
    let begun = tables(&watching.stdout());
    let output = watching.prints("a new table", |output| tables(output) > begun).await;
    assert!(!output.contains('\x1b'), "only a terminal is cleared: {output}");
    let ended = watching.stop(Signal::Term).await;
    ended.ended_with(0);
    let last = ended.stdout.rfind("received").expect("a table");
    assert_counted(&ended.stdout[last..]);
    assert_eq!(ended.stderr, "");
    eventually(SOON, async || {
        ensure!(tables(&interrupted.stdout()) > 0, "no table yet");
        Ok(())
    })
    .await;
    interrupted.stop(Signal::Interrupt).await.ended_with(0);
}
