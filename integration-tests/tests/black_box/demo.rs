//! `eventsieve demo`.

use std::collections::BTreeSet;
use std::fs;
use std::net::TcpListener;
use std::path::Path;

use anyhow::ensure;
use integration_tests::eventually::{SOON, eventually};
use integration_tests::http::{client, try_ask};
use integration_tests::postgres::free_port;
use integration_tests::program::Program;
use integration_tests::service::{Finished, Settings, Signal};
use tempfile::TempDir;

/// A `demo` in a folder of its own, on a free port, with environment variables that it must ignore.
fn demo(folder: &TempDir, arguments: &[&str]) -> Settings {
    let elsewhere = folder.path().join("elsewhere");
    let file = |name: &str| elsewhere.join(name).to_str().expect("UTF-8").to_owned();
    Settings::new("postgres://nobody:secret@127.0.0.1:1/nowhere")
        .with("REDIS_URL", "redis://127.0.0.1:1")
        .with("DEDUP_DB", &file("events.db"))
        .with("EVENTSIEVE_READY_FILE", &file("ready"))
        .with("EVENTSIEVE_MAX_EVENTS", "1")
        .with("TOTAL_EVENTS", "7")
        .with("TARGET_URL", "http://127.0.0.1:1")
        .without("RUST_LOG")
        .within(folder.path())
        .arguments(&[&["demo"], arguments].concat())
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("a folder of our own");
    entries
        .map(|entry| entry.expect("an entry").file_name().into_string().expect("UTF-8"))
        .collect()
}

/// Asserts that the output has the counters of 20 000 events, 30 % of which are duplicates.
#[track_caller]
fn assert_shown(output: &str) {
    assert!(
        output.contains("received 20,000 = unique 14,000 + duplicates 6,000: ok\n"),
        "{output}"
    );
    for (name, value) in [
        ("received", "20,000"),
        ("unique", "14,000"),
        ("duplicates", "6,000"),
        ("conflicts", "0"),
        ("rows", "14,000"),
        ("store", "sqlite"),
        ("topics", "4"),
    ] {
        let is_line = |line: &str| line.strip_prefix(name).is_some_and(|rest| rest.trim() == value);
        assert!(output.lines().any(is_line), "no line {name} {value} in\n{output}");
    }
}

/// The URL of the dashboard in the output, and the base URL of the service.
#[track_caller]
fn dashboard(output: &str) -> (&str, &str) {
    let url = output
        .split_whitespace()
        .find(|word| word.starts_with("http://"))
        .unwrap_or_else(|| panic!("no URL in {output}"));
    (url, url.strip_suffix("/dashboard").expect("the dashboard's"))
}

#[track_caller]
fn assert_failed(ended: &Finished, what: &str) {
    ended.ended_with(1);
    assert_eq!(ended.stderr.lines().count(), 1, "{}", ended.stderr);
    assert!(ended.stderr.contains(what), "{}", ended.stderr);
}

#[tokio::test]
async fn exit_shows_counters_and_leaves_nothing_behind() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let ended = Program::start(&demo(&folder, &["--exit"])).ended().await;
    ended.ended_with(0);
    assert_shown(&ended.stdout);
    dashboard(&ended.stdout);
    assert!(
        ended.stderr.lines().all(|line| line.starts_with("published ")),
        "{}",
        ended.stderr
    );
    assert_eq!(names(folder.path()), [""; 0]);
}

#[tokio::test]
async fn serves_until_signal_and_exits_with_0() {
    for signal in [Signal::Interrupt, Signal::Term, Signal::Hangup] {
        let folder = tempfile::tempdir().expect("a temporary folder");
        fs::create_dir(folder.path().join("data")).expect("a folder in a folder of our own");
        fs::write(folder.path().join("data/kept"), "").expect("a file in a folder of our own");
        let running = Program::start(&demo(&folder, &[]));
        let output = running
            .prints("Ctrl-C", |output| output.contains("until Ctrl-C\n"))
            .await;
        assert_shown(&output);
        let (_, url) = dashboard(&output);
        eventually(SOON, async || {
            let stats = try_ask(client().get(format!("{url}/stats"))).await?.json();
            let (received, duplicates) = (&stats["received"], &stats["duplicate_dropped"]);
            ensure!(
                received.as_u64() > Some(20_005) && duplicates.as_u64() > Some(6_000),
                "events go on, some of them duplicates: {stats}"
            );
            Ok(())
        })
        .await;
        let newest = try_ask(client().get(format!("{url}/events?order=desc&limit=1")))
            .await
            .expect("it serves")
            .json();
        let newest = newest["events"][0].clone();
        let second = |member: &str| {
            newest[member]
                .as_str()
                .map(|time| time[.."2025-10-24T10:3".len()].to_owned())
        };
        assert_eq!(second("timestamp"), second("received_at"), "events of now: {newest}");
        let port = url.rsplit(':').next().and_then(|port| port.parse().ok());
        assert_eq!(running.ports(), BTreeSet::from_iter(port), "it opens one port");
        let mut found = names(&folder.path().join("data"));
        found.sort();
        assert!(found.len() == 2 && found[0].starts_with("demo-"), "{found:?}");
        running.stop(signal).await.ended_with(0);
        assert_eq!(names(folder.path()), ["data"]);
        assert_eq!(names(&folder.path().join("data")), ["kept"]);
    }
}

/// Sends a signal to a `demo` before its check is printed; tries again if the signal came too late.
async fn interrupted_early(folder: &TempDir, arguments: &[&str]) -> Finished {
    eventually(SOON, async || {
        let running = Program::start(&demo(folder, arguments));
        running
            .prints("its address", |output| output.contains("/dashboard\n"))
            .await;
        let ended = running.stop(Signal::Interrupt).await;
        ensure!(!ended.stdout.contains(": ok"), "the signal came too late");
        Ok(ended)
    })
    .await
}

#[tokio::test]
async fn early_signal_fails_only_with_exit_flag() {
    for (arguments, code, errors) in [(&[][..], 0, 0), (&["--exit"], 1, 1)] {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let ended = interrupted_early(&folder, arguments).await;
        ended.ended_with(code);
        assert_eq!(ended.stderr.lines().count(), errors, "{}", ended.stderr);
        assert_eq!(names(folder.path()), [""; 0]);
    }
}

#[tokio::test]
async fn requested_port_in_use_is_an_error() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = taken.local_addr().expect("it is bound").port().to_string();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let by_flag = demo(&folder, &["--port", &port]).run().await;
    assert_failed(&by_flag, &format!("cannot listen on 127.0.0.1:{port}"));
    let by_environment = demo(&folder, &[]).with("PORT", &port).run().await;
    assert_failed(&by_environment, &format!("cannot listen on 127.0.0.1:{port}"));
    assert_eq!(names(folder.path()), [""; 0]);
}

#[tokio::test]
async fn requested_port_is_used() {
    let port = free_port();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let running = Program::start(&demo(&folder, &["--port", &port.to_string()]));
    let output = running
        .prints("its address", |output| output.contains("/dashboard\n"))
        .await;
    assert_eq!(dashboard(&output).1, format!("http://127.0.0.1:{port}"));
    running.stop(Signal::Term).await.ended_with(0);
}

#[tokio::test]
async fn default_port_in_use_is_replaced() {
    // An error means that another program uses the port.
    let _taken = TcpListener::bind("127.0.0.1:8080");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let running = Program::start(&demo(&folder, &[]).without("PORT"));
    let output = running
        .prints("its address", |output| output.contains("/dashboard\n"))
        .await;
    assert!(output.contains("8080"), "{output}");
    assert!(!output.contains(":8080"), "{output}");
    running.stop(Signal::Term).await.ended_with(0);
}

#[tokio::test]
async fn folder_error_is_one_line() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    fs::write(folder.path().join("data"), "a file").expect("a file in a folder of our own");
    let ended = demo(&folder, &[]).run().await;
    assert_failed(&ended, "cannot create a directory for the store in data");
}
