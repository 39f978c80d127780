//! What is published, and runs against a small model of the service.

use clap::Parser;

use super::*;
use crate::cli::fake::{Fake, Fault};

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    args: Args,
}

fn args(line: &[&str]) -> Args {
    Line::try_parse_from([&["publish"], line].concat()).unwrap().args
}

#[test]
fn without_arguments_standard_input_is_read_unless_it_is_a_terminal() {
    assert!(matches!(args(&[]).input(false), Ok(Input::Lines(name)) if name == "-"));
    assert!(args(&[]).input(true).is_err());
    assert!(matches!(args(&["--file", "-"]).input(true), Ok(Input::Lines(name)) if name == "-"));
    assert!(matches!(args(&["t", "{}"]).input(true), Ok(Input::Event(_))));
}

#[test]
fn arguments_of_one_event_and_of_a_file_exclude_each_other() {
    for line in [
        &["t", "{}", "--file", "events.ndjson"][..],
        &["t", "{}", "--lenient"],
        &["t", "{}", "--rejects", "rejected.ndjson"],
        &["--id", "1"],
        &["--source", "shop", "--file", "events.ndjson"],
    ] {
        assert!(args(line).input(false).is_err(), "{line:?}");
    }
    assert!(Line::try_parse_from(["publish", "t"]).is_err());
}

/// Runs `publish` with the lines of a file, and gives back how it ended and the table.
async fn publish(fake: &Fake, lines: &str, flags: &[&str]) -> (anyhow::Result<()>, String) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("events.ndjson");
    std::fs::write(&file, lines).unwrap();
    let args = args(flags);
    let settings = Settings {
        client: Client::new(fake.target.clone(), Duration::from_secs(5)).unwrap(),
        limits: RetryLimits {
            patience: args.wait,
            ..RetryLimits::default()
        },
        concurrency: usize::from(args.concurrency),
        is_lenient: args.lenient,
    };
    let mut lines = Lines::open(file.to_str().unwrap(), usize::from(args.batch_size))
        .await
        .unwrap();
    let (mut signals, progress) = (Signals::listen().unwrap(), Progress::new(fake.target.clone(), None));
    let mut run = Run::new(&settings, &progress, Rejects::open(None).unwrap());
    let outcome = run.drive(&mut lines, &mut signals).await;
    (outcome, run.tally().table(lines.count_events().await))
}

fn events(count: u64) -> String {
    (0..count)
        .map(|number| format!("{{\"topic\":\"t\",\"event_id\":\"{number}\"}}\n"))
        .collect()
}

/// The numbers of the table: stored, duplicate, conflicting, rejected, not sent, and what is rare.
fn numbers(table: &str) -> Vec<&str> {
    table
        .lines()
        .filter_map(|line| line.split_whitespace().last())
        .collect()
}

#[tokio::test]
async fn the_table_counts_every_line() {
    let fake = Fake::start([]).await;
    let (outcome, table) = publish(&fake, &(events(5) + &events(3)), &["--batch-size", "2"]).await;
    outcome.unwrap();
    assert_eq!(numbers(&table), ["5", "3", "0", "0", "0"]);
    assert_eq!(fake.counts(), (8, 5));
}

#[tokio::test]
async fn lost_attempts_are_retried_and_counted_as_resent() {
    let fake = Fake::start([(1, Fault::LostAfterStoring), (3, Fault::Status(503))]).await;
    let (outcome, table) = publish(&fake, &events(4), &["--batch-size", "2"]).await;
    outcome.unwrap();
    assert_eq!(numbers(&table), ["2", "2", "0", "0", "0", "2"]);
}

#[tokio::test]
async fn after_a_failure_requests_in_flight_are_counted_and_no_more_are_sent() {
    let fake = Fake::start([(3, Fault::Status(403))]).await;
    let (outcome, table) = publish(&fake, &events(10), &["--batch-size", "2"]).await;
    let error = format!("{:#}", outcome.unwrap_err());
    assert!(error.starts_with("lines 5 to 6 were not published: "), "{error}");
    assert_eq!(numbers(&table), ["4", "0", "0", "0", "6"]);
}

#[tokio::test]
async fn events_that_may_be_stored_have_an_unknown_outcome() {
    let fake = Fake::start([(2, Fault::StoredAndStatus(504))]).await;
    let flags = ["--batch-size", "2", "--wait", "0s"];
    let (outcome, table) = publish(&fake, &events(6), &flags).await;
    assert!(outcome.is_err());
    assert_eq!(numbers(&table), ["2", "0", "0", "0", "2", "2"]);
}
