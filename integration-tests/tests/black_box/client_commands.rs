//! The commands that publish and read one's own events: `publish`, `get`, `ls`, `tail`.

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::Stdio;

use anyhow::ensure;
use flate2::write::GzEncoder;
use integration_tests::eventually::{SOON, eventually};
use integration_tests::postgres::free_port;
use integration_tests::program::Program;
use integration_tests::publish::{Publish, event, event_with_payload, events};
use integration_tests::service::{Finished, Service, Settings, Signal, binary};
use integration_tests::world::World;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;
use tokio::process::{Child, Command};

/// A command that knows nothing but its arguments, and has an empty standard input.
fn client(url: &str, arguments: &[&str]) -> Settings {
    let arguments = [arguments, &["--url", url]].concat();
    Settings::new("unused")
        .without("DATABASE_URL")
        .without("HOST")
        .without("PORT")
        .arguments(&arguments)
}

async fn run(service: &Service, arguments: &[&str]) -> Finished {
    client(service.url(), arguments).run().await
}

/// `publish` with a standard input that the test writes.
fn publish_stdin(service: &Service) -> Child {
    Command::new(binary())
        .args(["publish", "--url", service.url()])
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("the binary starts")
}

fn lines(events: &[Value]) -> String {
    events.iter().map(|event| format!("{event}\n")).collect()
}

/// A file in a folder of the test's own.
fn file(folder: &TempDir, name: &str, text: impl AsRef<[u8]>) -> String {
    let path: PathBuf = folder.path().join(name);
    fs::write(&path, text).expect("a file in a folder of our own");
    path.to_str().expect("UTF-8").to_owned()
}

fn folder() -> TempDir {
    tempfile::tempdir().expect("a temporary folder")
}

/// Asserts that the table of `publish` has these numbers.
#[track_caller]
fn assert_table(ended: &Finished, [stored, duplicate, conflicting, rejected, not_sent]: [i64; 5]) {
    for (label, number) in [
        ("stored", stored),
        ("duplicate", duplicate),
        ("conflicting", conflicting),
        ("rejected", rejected),
        ("not sent", not_sent),
    ] {
        assert_eq!(ended.count(label), number, "{label}:\n{}{}", ended.stdout, ended.stderr);
    }
}

#[track_caller]
fn assert_one_line(ended: &Finished, code: i32, what: &str) {
    ended.ended_with(code);
    assert_eq!(ended.stderr.lines().count(), 1, "{}", ended.stderr);
    assert!(ended.stderr.contains(what), "{}", ended.stderr);
}

/// Two valid lines, blank ones between them, and then an invalid one on line 5 of 7.
fn bad_lines() -> String {
    let [one, two, three] = [1, 2, 3].map(|number| event("orders", &format!("evt-{number}")));
    format!("{one}\n\n{two}\n\n{{\"topic\":\"orders\"}}\nhello\n{three}\n")
}

#[tokio::test]
async fn publish_sends_one_event_from_its_arguments() {
    let world = World::embedded();
    let service = world.serve().await;
    let published = run(&service, &["publish", "orders", r#"{"b": 9007199254740993, "a": 1.0}"#]).await;
    let id = published.ended_with(0).stdout.trim();
    assert_eq!((id.len(), id.as_bytes()[14]), (36, b'7'), "a UUIDv7: {id}");
    assert!(published.stderr.starts_with("stored at "), "{}", published.stderr);
    let shown = run(&service, &["get", "orders", id, "--json"]).await;
    assert!(
        shown.stdout.contains(r#""payload":{"b": 9007199254740993, "a": 1.0}"#),
        "{}",
        shown.stdout
    );

    let given = [
        "--id",
        "evt-1",
        "--source",
        "shop",
        "--timestamp",
        "2025-10-24T10:30:00Z",
    ];
    let publish = async |payload| run(&service, &[&["publish", "orders", payload], &given[..]].concat()).await;
    for (payload, outcome) in [
        (r#"{"a":1}"#, "stored"),
        (r#"{"a":1.0}"#, "duplicate"),
        (r#"{"a":2}"#, "conflict"),
    ] {
        let published = publish(payload).await;
        assert_one_line(&published, 0, outcome);
        assert_eq!(published.stdout, "", "an id that was given is not printed");
    }
    let shown: Value =
        serde_json::from_str(&run(&service, &["get", "orders", "evt-1", "--json"]).await.stdout).expect("JSON");
    assert_eq!(
        [&shown["source"], &shown["timestamp"], &shown["payload"]],
        [&json!("shop"), &json!("2025-10-24T10:30:00Z"), &json!({"a": 1})]
    );
    world.check(2).await;
}

#[tokio::test]
async fn publish_with_wrong_usage_sends_nothing() {
    let world = World::embedded();
    let service = world.serve().await;
    for arguments in [
        &["publish", "orders"][..],
        &["publish", "orders", "no JSON"],
        &["publish", "orders", "[1]"],
        &["publish", "orders", "{}", "--file", "events.ndjson"],
        &["publish", "--id", "evt-1"],
        &["publish", "--batch-size", "0"],
    ] {
        let ended = run(&service, arguments).await;
        assert_eq!(ended.code, Some(64), "{arguments:?}: {}", ended.stderr);
    }
    assert_one_line(&run(&service, &["publish", "or ders", "{}"]).await, 1, "topic");
    let missing = run(&service, &["publish", "--file", "no-such-file"]).await;
    assert_one_line(&missing, 1, "no-such-file");
    let empty = run(&service, &["publish"]).await;
    assert_table(empty.ended_with(0), [0, 0, 0, 0, 0]);
    world.check(0).await;
}

#[tokio::test]
async fn publish_without_lenient_ends_with_the_first_bad_request() {
    let world = World::embedded();
    let service = world.serve().await;
    let folder = folder();
    let name = file(&folder, "events.ndjson", bad_lines());
    let ended = run(&service, &["publish", "--file", &name, "--batch-size", "2"]).await;
    assert_table(ended.ended_with(1), [2, 0, 0, 2, 1]);
    assert!(
        ended.stderr.contains("line 5: event_id: ") && ended.stderr.contains("line 6: "),
        "{}",
        ended.stderr
    );
    assert!(
        ended.stderr.trim().ends_with("--lenient skips invalid lines"),
        "{}",
        ended.stderr
    );
    let overwriting = run(&service, &["publish", "--file", &name, "--lenient", "--rejects", &name]).await;
    assert_one_line(&overwriting, 64, "--rejects");
    let whole = run(&service, &["publish", "--file", &name]).await;
    assert_table(whole.ended_with(1), [0, 0, 0, 2, 3]);
    world.check(2).await;
}

#[tokio::test]
async fn publish_lenient_skips_and_lists_bad_lines() {
    let world = World::embedded();
    let service = world.serve().await;
    let folder = folder();
    let name = file(&folder, "events.ndjson", bad_lines());
    let rejects = folder.path().join("rejected.ndjson");
    let rejects = rejects.to_str().expect("UTF-8");
    for (batch_size, stored) in [("500", [3, 0]), ("2", [0, 3])] {
        let arguments = ["publish", "--file", &name, "--lenient", "--rejects", rejects];
        let ended = run(&service, &[&arguments[..], &["--batch-size", batch_size]].concat()).await;
        assert_table(ended.ended_with(0), [stored[0], stored[1], 0, 2, 0]);
        let listed: Vec<Value> = fs::read_to_string(rejects)
            .expect("the file of rejected lines")
            .lines()
            .map(|line| serde_json::from_str(line).expect("JSON"))
            .collect();
        assert_eq!([&listed[0]["line"], &listed[1]["line"]], [5, 6]);
        assert_eq!(
            [&listed[0]["text"], &listed[1]["text"]],
            [r#"{"topic":"orders"}"#, "hello"]
        );
        assert_eq!(listed[1]["errors"][0]["type"], "json_invalid");
        assert_eq!(listed[1]["errors"][0]["loc"], json!(["line", 6]), "a line of the file");
        assert!(ended.stderr.contains("line 6: "), "{}", ended.stderr);
    }
    world.check(3).await;
}

#[tokio::test]
async fn publish_counts_duplicates_and_conflicts_of_a_file() {
    let world = World::embedded();
    let service = world.serve().await;
    let folder = folder();
    let mut conflicting = event("orders", "evt-0");
    conflicting["payload"] = json!({"other": 1});
    let text = lines(&events("orders", 0..1200)) + &lines(&events("orders", 0..100)) + &lines(&[conflicting]);
    let name = file(&folder, "events.ndjson", text);
    let ended = run(&service, &["publish", "--file", &name, "--concurrency", "4"]).await;
    assert_table(ended.ended_with(0), [1200, 100, 1, 0, 0]);
    world.check(1200).await;
}

#[tokio::test]
async fn publish_decompresses_files_by_name() {
    let world = World::embedded();
    let service = world.serve().await;
    let folder = folder();
    let compressed = |from| {
        let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder
            .write_all(lines(&events("orders", from..from + 10)).as_bytes())
            .expect("memory");
        encoder.finish().expect("memory")
    };
    // Log files are often joined as they are.
    let gz = file(&folder, "events.ndjson.gz", [compressed(0), compressed(10)].concat());
    let zst = zstd::encode_all(lines(&events("orders", 20..30)).as_bytes(), 0).expect("memory");
    let zst = file(&folder, "events.ndjson.zst", zst);
    assert_table(
        run(&service, &["publish", "--file", &gz]).await.ended_with(0),
        [20, 0, 0, 0, 0],
    );
    assert_table(
        run(&service, &["publish", "--file", &zst]).await.ended_with(0),
        [10, 0, 0, 0, 0],
    );

    let cut = compressed(30);
    let cut = file(&folder, "cut.ndjson.gz", &cut[..cut.len() - 12]);
    let ended = run(&service, &["publish", "--file", &cut]).await;
    assert!(
        ended.ended_with(1).stderr.contains("cannot read on after line"),
        "{}",
        ended.stderr
    );
    let plain = file(&folder, "plain.gz", "{}");
    assert_eq!(run(&service, &["publish", "--file", &plain]).await.code, Some(1));
}

#[tokio::test]
async fn publish_does_not_wait_for_a_slow_producer() {
    let world = World::embedded();
    let service = world.serve().await;
    let mut publishing = publish_stdin(&service);
    let mut input = publishing.stdin.take().expect("a pipe");
    for number in 1..=3 {
        // Each line ends with the beginning of the next one.
        let line = format!("{}\n{{\"topic\":", event("orders", &format!("evt-{number}")));
        let line = if number > 1 {
            &line["{\"topic\":".len()..]
        } else {
            &line
        };
        input.write_all(line.as_bytes()).await.expect("a reader");
        eventually(SOON, async || {
            let received = service.json("/stats").await["received"].clone();
            ensure!(received == number, "{received} received");
            Ok(())
        })
        .await;
    }
    input.write_all(b"\"orders\"}\n").await.expect("a reader");
    drop(input);
    let output = publishing.wait_with_output().await.expect("an end");
    let ended = Finished {
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    };
    assert_table(ended.ended_with(1), [3, 0, 0, 1, 0]);
    assert!(ended.stderr.contains("line 4: "), "{}", ended.stderr);
    world.check(3).await;
}

#[tokio::test]
async fn publish_that_is_interrupted_ends_with_a_true_table() {
    let world = World::embedded();
    let mut service = world
        .serve_with(world.settings().with("PORT", &free_port().to_string()))
        .await;
    let folder = folder();
    let name = file(&folder, "events.ndjson", lines(&events("orders", 0..100)));
    service.kill().await;
    let publishing = Program::start(&client(service.url(), &["publish", "--file", &name]));
    eventually(SOON, async || {
        ensure!(publishing.stderr().contains("waiting for"), "{}", publishing.stderr());
        Ok(())
    })
    .await;
    let ended = publishing.stop(Signal::Interrupt).await;
    assert_table(ended.ended_with(1), [0, 0, 0, 0, 100]);
    assert!(ended.stderr.contains("SIGINT"), "{}", ended.stderr);

    let publishing = Program::start(&client(service.url(), &["publish", "--file", &name]));
    service.restart().await;
    assert_table(publishing.ended().await.ended_with(0), [100, 0, 0, 0, 0]);
    world.check(100).await;
}

#[tokio::test]
async fn get_prints_one_event_that_cannot_drive_the_terminal() {
    let world = World::embedded();
    let service = world.serve().await;
    let payload = "{\"a\": \"\u{9b}31m\",\n \"b\": \"\\u001b[2J\"}";
    let body = event_with_payload("orders", "evt-1", payload);
    assert_eq!(service.publish_bytes("application/json", body).await.status, 201);
    let shown = run(&service, &["get", "orders", "evt-1"]).await;
    let text = &shown.ended_with(0).stdout;
    assert!(
        text.contains("\nevent_id     evt-1\n") && text.contains("\\u009b31m") && !text.contains('\u{9b}'),
        "{text}"
    );
    let exact = run(&service, &["get", "orders", "evt-1", "--json"]).await;
    assert!(exact.stdout.contains("\u{9b}31m"), "{}", exact.stdout);
    let missing = run(&service, &["get", "orders", "evt-2"]).await;
    assert_one_line(&missing, 1, "no event evt-2 in topic orders");
    let away = client(
        &format!("http://127.0.0.1:{}", free_port()),
        &["get", "orders", "evt-1"],
    );
    assert_one_line(&away.run().await, 1, "cannot read from");
}

/// The ids of the events that a command printed as JSON.
fn ids(printed: &str) -> Vec<String> {
    printed
        .lines()
        .map(|line| {
            let event: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
            event["event_id"].as_str().expect("an id").to_owned()
        })
        .collect()
}

fn numbered(numbers: impl Iterator<Item = usize>) -> Vec<String> {
    numbers.map(|number| format!("evt-{number}")).collect()
}

/// A service with 1100 orders, each a second after the one before, of which the even ones come from `shop`; and a login of today.
async fn with_events(world: &World) -> Service {
    let service = world.serve().await;
    let mut orders = events("orders", 0..1100);
    for (number, order) in orders.iter_mut().enumerate() {
        order["timestamp"] = format!("2025-10-24T10:{:02}:{:02}Z", number / 60, number % 60).into();
        if number % 2 == 0 {
            order["source"] = "shop".into();
        }
    }
    assert_eq!(service.publish(&Value::from(orders)).await.status, 201);
    assert_eq!(
        run(&service, &["publish", "logins", "{}", "--id", "login"]).await.code,
        Some(0)
    );
    service
}

#[tokio::test]
async fn ls_lists_events_by_filter_order_and_limit() {
    let world = World::embedded();
    let service = with_events(&world).await;
    let ls = async |arguments: &[&str]| {
        let ended = run(&service, &[&["ls", "--json"], arguments].concat()).await;
        ids(&ended.ended_with(0).stdout)
    };
    assert_eq!(ls(&[]).await, numbered(0..100));
    assert_eq!(
        ls(&["--topic", "orders", "--limit", "1090"]).await,
        numbered(0..1090),
        "more than one page"
    );
    assert_eq!(
        ls(&["--topic", "orders", "--reverse", "--limit", "3"]).await,
        numbered((1097..1100).rev())
    );
    assert_eq!(ls(&["--order", "desc", "--limit", "1"]).await, ["login"]);
    assert_eq!(
        ls(&["--source", "shop", "--limit", "3"]).await,
        numbered([0, 2, 4].into_iter())
    );
    assert_eq!(ls(&["--event-id", "evt-7"]).await, ["evt-7"]);
    let window = ["--since", "2025-10-24T10:00:05Z", "--until", "2025-10-24T10:00:07Z"];
    assert_eq!(ls(&window).await, numbered(5..7));
    assert_eq!(ls(&["--since", "1h"]).await, ["login"]);

    let table = run(&service, &["ls", "--limit", "2"]).await;
    let lines: Vec<&str> = table.ended_with(0).stdout.lines().collect();
    assert_eq!(lines.len(), 3, "{lines:?}");
    assert!(
        lines[0].starts_with("TIMESTAMP") && lines[2].contains("evt-1"),
        "{lines:?}"
    );
    let wrong = run(&service, &["ls", "--since", "yesterday"]).await;
    assert_eq!(wrong.code, Some(64), "{}", wrong.stderr);
    assert_one_line(&run(&service, &["ls", "--topic", "a b"]).await, 1, "topic");
}

/// What a `tail` prints that ends after so many events.
async fn tail(service: &Service, limit: &str, arguments: &[&str]) -> String {
    let ended = run(service, &[&["tail", "--limit", limit], arguments].concat()).await;
    ended.ended_with(0).stdout.clone()
}

#[tokio::test]
async fn tail_begins_with_the_last_events() {
    let world = World::embedded();
    let service = with_events(&world).await;
    let orders = ["-n", "3", "--topic", "orders"];
    assert_eq!(ids(&tail(&service, "3", &orders).await), numbered(1097..1100));
    let of_shop = [&orders[..], &["--source", "shop"]].concat();
    assert_eq!(
        ids(&tail(&service, "3", &of_shop).await),
        numbered([1094, 1096, 1098].into_iter())
    );
    assert_eq!(
        ids(&tail(&service, "1050", &["-n", "1050", "--topic", "orders"]).await),
        numbered(50..1100),
        "more than one page"
    );

    let following = Program::start(&client(service.url(), &["tail", "-n", "1", "--source", "shop"]));
    following
        .prints("the last event", |output| output.contains("evt-1098"))
        .await;
    for source in ["other", "shop"] {
        let arguments = ["publish", "orders", "{}", "--id", source, "--source", source];
        run(&service, &arguments).await.ended_with(0);
    }
    following
        .prints("a new event", |output| output.contains("\"shop\",\"timestamp\""))
        .await;
    let ended = following.stop(Signal::Interrupt).await;
    assert_eq!(ids(&ended.ended_with(0).stdout), ["evt-1098", "shop"]);
}

#[tokio::test]
async fn tail_begins_with_events_since_a_time() {
    let world = World::embedded();
    let service = with_events(&world).await;
    assert_eq!(ids(&tail(&service, "1", &["--since", "10m"]).await), ["login"]);
    let since = ["--since", "2025-10-24T10:00:01Z", "--source", "shop"];
    assert_eq!(
        ids(&tail(&service, "549", &since).await),
        numbered((2..1100).step_by(2)),
        "more than one page"
    );
    let both = run(&service, &["tail", "--since", "10m", "-n", "1"]).await;
    assert_eq!(both.code, Some(64), "{}", both.stderr);
}

#[tokio::test]
async fn tail_prints_text_and_templates() {
    let world = World::embedded();
    let service = with_events(&world).await;
    let last = ["-n", "1", "--topic", "orders", "--format"];
    for (format, expected) in [
        ("{topic} {event_id}", "orders evt-1099\n".to_owned()),
        ("{payload./of}: {payload./message}", "evt-1099: hello\n".to_owned()),
        (
            "text",
            "2025-10-24T10:18:19Z  orders  evt-1099  integration-tests  {\"message\":\"hello\",\"of\":\"evt-1099\"}\n"
                .to_owned(),
        ),
    ] {
        assert_eq!(tail(&service, "1", &[&last[..], &[format]].concat()).await, expected);
    }
    let wrong = run(&service, &["tail", "--format", "{id}"]).await;
    assert_eq!(wrong.code, Some(64), "{}", wrong.stderr);
    let drives = "{\"a\":\"\u{9b}31m\"}";
    let body = event_with_payload("orders", "evt-2000", drives);
    service.publish_bytes("application/json", body).await;
    let text = tail(&service, "1", &[&last[..], &["text"]].concat()).await;
    assert!(text.contains("\\u009b31m") && !text.contains('\u{9b}'), "{text}");
}
