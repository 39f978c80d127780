//! Standard output and standard error that do not take what is written: nothing waits for them, and nothing ends because of them.

use anyhow::ensure;
use integration_tests::eventually::{SOON, eventually};
use integration_tests::http::{ask, try_ask};
use integration_tests::publish::{Publish, event};
use integration_tests::service::Service;
use integration_tests::world::World;

/// A service whose standard error is what a shell makes of `redirection`.
async fn serve_with_stderr(world: &World, redirection: &str) -> Service {
    let script = format!("exec {redirection}; exec \"$0\" \"$@\"");
    let settings = world
        .settings()
        .with("RUST_LOG", "debug")
        .by("bash", &["-c".to_owned(), script]);
    world.serve_with(settings).await
}

/// The service serves and stops as ever, however its log is read.
async fn serves_and_stops(world: &World, mut service: Service, lines_are_lost: bool) {
    for number in 0..2000 {
        // A line of the log for each, with much text: a pipe has room for some hundred.
        let path = format!("/nowhere/{}", "x".repeat(90));
        let answer = try_ask(service.get(&path)).await.expect("an answer");
        assert_eq!(answer.status, 404, "{number}");
    }
    assert_eq!(service.publish(&event("orders", "evt-1")).await.status, 201);
    assert_eq!(ask(service.get("/livez")).await.status, 200);
    if lines_are_lost {
        eventually(SOON, async || {
            let lost = service.metric("eventsieve_log_lines_lost_total").await;
            ensure!(lost > 0.0, "no line is lost");
            Ok(())
        })
        .await;
    }
    service.stop().await;
    world.check(1).await;
}

#[tokio::test]
async fn log_that_nobody_reads_stops_nothing() {
    let world = World::embedded();
    // Reads nothing, and ends by itself.
    let service = serve_with_stderr(&world, "2> >(exec sleep 60 >/dev/null 2>&1)").await;
    // 2000 lines do not fill the queue behind the pipe: nothing is lost, only late.
    serves_and_stops(&world, service, false).await;
}

#[tokio::test]
async fn log_whose_reader_has_gone_stops_nothing() {
    let world = World::embedded();
    let service = serve_with_stderr(&world, "2> >(exec head -n 2 >/dev/null)").await;
    serves_and_stops(&world, service, true).await;
}

#[tokio::test]
async fn log_on_a_full_disk_stops_nothing() {
    let world = World::embedded();
    let service = serve_with_stderr(&world, "2>/dev/full").await;
    eventually(SOON, async || {
        ensure!(
            service.metric("eventsieve_log_lines_lost_total").await > 0.0,
            "no line is lost"
        );
        Ok(())
    })
    .await;
    // That a line is lost is no reason for another line, which would be lost, too.
    let lost = service.metric("eventsieve_log_lines_lost_total").await;
    assert!(lost < 1000.0, "{lost} lines");
    serves_and_stops(&world, service, true).await;
}

/// Commands end with 0 when their reader has gone, and with 1 when their output cannot be written; never with a panic.
#[tokio::test]
async fn commands_end_whatever_becomes_of_their_output() {
    let world = World::embedded();
    let service = world.serve().await;
    service.publish(&event("orders", "evt-1")).await;
    let url = service.url().to_owned();
    let run = async |arguments: &[&str], redirection: &str| {
        let script = format!("exec \"$0\" \"$@\" {redirection}");
        let asks = ["stats", "ls", "topics", "get"].contains(&arguments[0]);
        let target = if asks { vec!["--url", &url] } else { Vec::new() };
        let settings = world.settings().arguments(&[arguments, &target].concat());
        let settings = settings.by("bash", &["-c".to_owned(), script]);
        settings.run().await
    };
    let commands: [&[&str]; 10] = [
        &["verify"],
        &["prune", "--older-than", "1h", "--dry-run"],
        &["outbox"],
        &["stats"],
        &["ls"],
        &["topics"],
        &["get", "orders", "evt-1"],
        &["openapi"],
        &["man"],
        &["completions", "bash"],
    ];
    for arguments in commands {
        let gone = run(arguments, "> >(exec true)").await;
        assert!(gone.code == Some(0), "{arguments:?}: {gone:?}");
        let full = run(arguments, ">/dev/full").await;
        assert_eq!(full.code, Some(1), "{arguments:?}: {full:?}");
        assert!(full.stderr.contains("cannot print"), "{arguments:?}: {full:?}");
        let silent = run(arguments, ">/dev/full 2>/dev/full").await;
        assert_eq!(silent.code, Some(1), "{arguments:?}: {silent:?}");
        for output in [gone, full] {
            assert!(!output.stderr.contains("panicked"), "{arguments:?}: {output:?}");
        }
    }
    drop(service);
    world.check(1).await;
}

/// What is stored cannot drive the terminal that it is printed on, and is printed as it is where no terminal reads it.
#[tokio::test]
async fn stored_text_cannot_drive_a_terminal() {
    let world = World::embedded();
    let service = world.serve().await;
    // Sets the title (with the one-character forms of OSC and ST), clears the screen, and turns the text around.
    let nasty = "a\u{9d}0;owned\u{9c}\u{9b}2J\u{202e}z";
    let mut sent = event("orders", "evt-1");
    sent["payload"] = serde_json::json!({ "text": nasty });
    assert_eq!(service.publish(&sent).await.status, 201);
    let commands: [&[&str]; 5] = [
        &["tail", "--after", "", "--limit", "1"],
        &["tail", "--after", "", "--limit", "1", "--format", "text"],
        &["ls"],
        &["ls", "--json"],
        &["get", "orders", "evt-1", "--json"],
    ];
    for arguments in commands {
        let command = [arguments, &["--url", service.url()]].concat();
        let quoted: Vec<String> = command.iter().map(|argument| format!("'{argument}'")).collect();
        // `script` runs it on a terminal of its own.
        let script = format!("exec script -qec \"$0 {}\" /dev/null", quoted.join(" "));
        let settings = world.settings().with("TERM", "xterm").arguments(&[]);
        let on_terminal = settings.by("bash", &["-c".to_owned(), script]).run().await;
        on_terminal.ended_with(0);
        let shown = &on_terminal.stdout;
        assert!(
            !shown.contains(['\u{9d}', '\u{9c}', '\u{9b}', '\u{202e}']),
            "{arguments:?}: {shown:?}"
        );
        assert!(
            shown.contains("a\\u009d0;owned\\u009c\\u009b2J\\u202ez"),
            "{arguments:?}: {shown:?}"
        );
        let piped = world.run(&command).await;
        if arguments.contains(&"--json") {
            assert!(piped.stdout.contains(nasty), "{arguments:?}: {:?}", piped.stdout);
        }
    }
    drop(service);
    world.check(1).await;
}
