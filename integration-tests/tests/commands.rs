//! The commands, as an operator meets them: what they do, and how they end.

use std::fs;

use futures_util::future::join;
use integration_tests::on_both_stores;
use integration_tests::postgres::free_port;
use integration_tests::proxy::{Network, Proxy};
use integration_tests::publish::{Publish, event, events};
use integration_tests::service::{Finished, Service, Settings};
use integration_tests::world::World;
use serde_json::Value;

const COMMANDS: [&str; 12] = [
    "serve",
    "demo",
    "load",
    "publish",
    "get",
    "ls",
    "tail",
    "stats",
    "verify",
    "migrate",
    "prune",
    "healthcheck",
];

/// Asserts that a failure is told in one line on standard error that names `what`.
#[track_caller]
fn assert_told(ended: &Finished, code: i32, what: &str) {
    ended.ended_with(code);
    let told: Vec<&str> = ended.stderr.trim().lines().collect();
    assert!(
        told.iter().any(|line| line.contains(what)),
        "nothing of {what}: {}",
        ended.stderr
    );
    assert!(!ended.stderr.contains("panicked"), "{}", ended.stderr);
}

async fn migrate_makes_the_schema_and_may_be_run_again(world: World) {
    for _ in 0..2 {
        world.run(&["migrate"]).await.ended_with(0);
        for table in ["events", "batches", "topic_counts", "log"] {
            assert!(world.has_table(table).await, "{table}");
        }
    }
    let service = world
        .serve_with(world.settings().arguments(&["serve", "--no-migrate"]))
        .await;
    assert_eq!(service.publish(&event("orders", "evt-1")).await.status, 201);
    world.run(&["migrate"]).await.ended_with(0);
    world.check(1).await;
}

async fn serve_without_migrating_refuses_an_old_schema(world: World) {
    let ended = world.run(&["serve", "--no-migrate"]).await;
    assert_told(&ended, 1, "migrate");
    assert!(!world.has_table("events").await, "it made nothing");
    let ended = world.settings().with("EVENTSIEVE_NO_MIGRATE", "true").run().await;
    assert_told(&ended, 1, "migrate");
}

#[tokio::test]
async fn a_database_that_cannot_hold_every_character_is_refused() {
    let world = World::in_encoding("SQL_ASCII").await;
    assert_told(&world.run(&["migrate"]).await, 1, "UTF8");
    assert_told(&world.run(&["serve"]).await, 1, "UTF8");
}

async fn verify_finds_every_drift_and_none_where_there_is_none(world: World) {
    let service = world.serve().await;
    service.publish(&Value::from(events("orders", 0..10))).await;
    service.publish(&Value::from(events("orders", 5..12))).await;
    service.publish(&Value::from(events("logins", 0..3))).await;
    world.check(15).await;
    for (drift, mend) in [
        (
            "update topic_counts set received = received + 1, unique_processed = unique_processed + 1 where topic = 'logins'",
            "update topic_counts set received = received - 1, unique_processed = unique_processed - 1 where topic = 'logins'",
        ),
        (
            "create table kept as select * from topic_counts; delete from topic_counts where topic = 'logins'",
            "insert into topic_counts select * from kept where topic = 'logins'; drop table kept",
        ),
        (
            "create table kept as select * from events where event_id = 'evt-1' and topic = 'orders';
             delete from events where event_id = 'evt-1' and topic = 'orders'",
            "insert into events select * from kept; drop table kept",
        ),
    ] {
        world.execute(drift).await;
        let ended = world.run(&["verify"]).await;
        assert_eq!(ended.code, Some(1), "{drift}: {}{}", ended.stdout, ended.stderr);
        world.execute(mend).await;
        world.check(15).await;
    }
}

async fn verify_may_run_while_events_are_being_stored(world: World) {
    let service = world.serve().await;
    let publishing = async {
        for number in 0..100 {
            let batch = Value::from(events("orders", number * 10..number * 10 + 15));
            assert_eq!(service.publish(&batch).await.status, 201);
        }
    };
    let verifying = async {
        for _ in 0..5 {
            world.run(&["verify"]).await.ended_with(0);
        }
    };
    join(publishing, verifying).await;
    world.check(1005).await;
}

#[tokio::test]
async fn healthcheck_ends_with_zero_only_for_a_service_that_is_ready() {
    let world = World::new().await;
    let service = world.serve().await;
    let check = async |url: &str| world.run(&["healthcheck", "--url", url]).await;
    check(service.url()).await.ended_with(0);
    let port = service
        .address()
        .rsplit(':')
        .next()
        .expect("an address has a port")
        .to_owned();
    let by_port = Settings::new(world.database_url())
        .with("PORT", &port)
        .arguments(&["healthcheck"])
        .run()
        .await;
    by_port.ended_with(0);
    let nobody = check(&format!("http://127.0.0.1:{}", free_port())).await;
    assert_told(&nobody, 1, "eventsieve");

    let proxy = Proxy::with(world.database_url(), Network::Refuse).await;
    let settings = Settings::new(&proxy.through(world.database_url()));
    let starting = Service::start(settings).await;
    let unready = check(starting.url()).await;
    assert_told(&unready, 1, "not ready");
}

#[tokio::test]
async fn wrong_usage_ends_with_64_and_help_with_0() {
    let world = World::new().await;
    for arguments in [
        &["serve", "--no-such-flag"][..],
        &["no-such-command"],
        &["load", "--duplicate-rate", "2"],
        &["load", "--events", "many"],
        &["healthcheck", "--url", "no url"],
    ] {
        let ended = world.run(arguments).await;
        assert_eq!(ended.code, Some(64), "{arguments:?}: {}", ended.stderr);
        assert!(!ended.stderr.is_empty(), "{arguments:?}");
    }
    for command in COMMANDS {
        let help = world.run(&[command, "--help"]).await;
        help.ended_with(0);
        assert!(help.stdout.contains("Usage"), "{}", help.stdout);
        assert!(
            !help.stdout.contains(world.database_url()),
            "help shows the database's URL: {}",
            help.stdout
        );
    }
    let all = world.run(&["--help"]).await;
    all.ended_with(0);
    for command in COMMANDS {
        assert!(all.stdout.contains(command), "{}", all.stdout);
    }
}

#[tokio::test]
async fn every_problem_of_the_configuration_is_told_at_once() {
    let wrong = [
        ("EVENTSIEVE_REQUEST_DEADLINE", "soon"),
        ("EVENTSIEVE_WRITERS", "none"),
        ("EVENTSIEVE_MAX_BODY", "huge"),
        ("PORT", "70000"),
        ("DATABASE_URL", "mysql://user:secret-Sw0rdfish@localhost/x"),
    ];
    let settings = wrong.iter().fold(Settings::new(""), |settings, (variable, value)| {
        settings.with(variable, value)
    });
    let ended = settings.run().await;
    for (variable, _) in wrong {
        assert_told(&ended, 64, variable);
    }
    assert!(!ended.stderr.contains("secret-Sw0rdfish"), "{}", ended.stderr);
    let small = Settings::new("postgres://localhost/x")
        .with("EVENTSIEVE_QUEUE_EVENTS", "10")
        .run()
        .await;
    assert_told(&small, 64, "EVENTSIEVE_QUEUE_EVENTS");
}

async fn serve_is_what_runs_without_a_command_and_its_url_may_come_from_a_file(world: World) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("url");
    fs::write(&file, format!("{}\n", world.database_url())).expect("a file in a folder of our own");
    let settings = Settings::new("")
        .with("DATABASE_URL_FILE", file.to_str().expect("UTF-8"))
        .arguments(&[]);
    let service = world.serve_with(settings).await;
    assert_eq!(service.publish(&event("orders", "evt-1")).await.status, 201);
    world.check(1).await;
}

async fn load_sends_what_it_was_told_and_its_table_adds_up(world: World) {
    let service = world.serve().await;
    let publish = async |arguments: &[&str]| {
        let arguments = [&["load", "--url", service.url()], arguments].concat();
        world.run(&arguments).await
    };
    let singles = publish(&["--events", "200", "--duplicate-rate", "0.25", "--batch-size", "1"]).await;
    singles.ended_with(0);
    for (figure, count) in [("sent", 200), ("unique", 150), ("duplicates", 50), ("resent", 0)] {
        assert_eq!(singles.figure(figure), count, "{figure}: {}", singles.stdout);
    }
    world.check(150).await;
    let rounded = publish(&["--events", "7", "--duplicate-rate", "0.5"]).await;
    rounded.ended_with(0);
    assert_eq!(rounded.figure("unique") + rounded.figure("duplicates"), 7);
    assert_eq!(rounded.figure("duplicates"), 4, "3.5 is rounded to the nearest");
    world.check(153).await;
    publish(&["--events", "50", "--duplicate-rate", "0"])
        .await
        .ended_with(0);
    world.check(203).await;

    let seeded = ["--events", "40", "--duplicate-rate", "0", "--seed", "7"];
    publish(&seeded).await.ended_with(0);
    world.check(243).await;
    let again = publish(&seeded).await;
    assert_eq!(
        again.code,
        Some(1),
        "its events are not unique any more: {}",
        again.stdout
    );
    world.check(243).await;
}

async fn publish_sends_the_lines_of_a_file(world: World) {
    let service = world.serve().await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("events.ndjson");
    let lines: String = events("orders", 0..120)
        .iter()
        .chain(&events("orders", 100..110))
        .map(|event| format!("{event}\n\n"))
        .collect();
    fs::write(&file, lines).expect("a file in a folder of our own");
    let name = file.to_str().expect("UTF-8");
    let ended = world
        .run(&["publish", "--url", service.url(), "--file", name, "--batch-size", "50"])
        .await;
    ended.ended_with(0);
    assert_eq!((ended.figure("stored"), ended.figure("duplicate")), (120, 10));
    let totals = world.check(120).await;
    assert_eq!(totals.received, 130);
    let missing = world
        .run(&["publish", "--url", service.url(), "--file", "no-such-file"])
        .await;
    assert_told(&missing, 1, "no-such-file");
}

async fn load_waits_for_the_service_to_come_up(world: World) {
    let port = free_port().to_string();
    let url = format!("http://127.0.0.1:{port}");
    let arguments = ["load", "--url", &url, "--events", "100", "--duplicate-rate", "0.1"];
    let starting = async {
        // The schema being made elsewhere takes the publisher's first tries with certainty.
        world.run(&["migrate"]).await.ended_with(0);
        world.serve_with(world.settings().with("PORT", &port)).await
    };
    let (publisher, _service) = join(world.run(&arguments), starting).await;
    publisher.ended_with(0);
    assert_eq!(publisher.figure("unique"), 90);
    world.check(90).await;
}

on_both_stores! {
    migrate_makes_the_schema_and_may_be_run_again
    serve_without_migrating_refuses_an_old_schema
    verify_finds_every_drift_and_none_where_there_is_none
    verify_may_run_while_events_are_being_stored
    serve_is_what_runs_without_a_command_and_its_url_may_come_from_a_file
    load_sends_what_it_was_told_and_its_table_adds_up
    publish_sends_the_lines_of_a_file
    load_waits_for_the_service_to_come_up
}
