//! The commands: what they do, and how they exit.

use std::fs;

use futures_util::future::join;
use integration_tests::on_both_stores;
use integration_tests::postgres::free_port;
use integration_tests::proxy::{Network, Proxy};
use integration_tests::publish::{Publish, event, events};
use integration_tests::service::{Finished, Service, Settings};
use integration_tests::world::World;
use serde_json::Value;

const COMMANDS: [&str; 15] = [
    "serve",
    "demo",
    "load",
    "publish",
    "get",
    "ls",
    "topics",
    "conflicts",
    "tail",
    "stats",
    "verify",
    "outbox",
    "migrate",
    "prune",
    "healthcheck",
];

/// Asserts that a command failed, and that standard error names `what`.
#[track_caller]
fn assert_failed(ended: &Finished, code: i32, what: &str) {
    ended.ended_with(code);
    assert!(ended.stderr.contains(what), "no {what} in {}", ended.stderr);
    assert!(!ended.stderr.contains("panicked"), "{}", ended.stderr);
}

async fn migrate_creates_schema_and_is_idempotent(world: World) {
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

async fn serve_no_migrate_rejects_old_schema(world: World) {
    let ended = world.run(&["serve", "--no-migrate"]).await;
    assert_failed(&ended, 1, "migrate");
    assert!(!world.has_table("events").await, "it created nothing");
    let ended = world.settings().with("EVENTSIEVE_NO_MIGRATE", "true").run().await;
    assert_failed(&ended, 1, "migrate");
}

#[tokio::test]
async fn database_with_other_encoding_is_rejected() {
    let world = World::in_encoding("SQL_ASCII").await;
    assert_failed(&world.run(&["migrate"]).await, 1, "UTF8");
    assert_failed(&world.run(&["serve"]).await, 1, "UTF8");
}

async fn verify_finds_each_kind_of_drift(world: World) {
    let service = world.serve().await;
    service.publish(&Value::from(events("orders", 0..10))).await;
    service.publish(&Value::from(events("orders", 5..12))).await;
    service.publish(&Value::from(events("logins", 0..3))).await;
    world.check(15).await;
    for (drift, repair) in [
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
        world.execute(repair).await;
        world.check(15).await;
    }
}

async fn verify_passes_while_events_are_stored(world: World) {
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
async fn healthcheck_succeeds_only_if_service_is_ready() {
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
    let missing = check(&format!("http://127.0.0.1:{}", free_port())).await;
    assert_failed(&missing, 1, "eventsieve");

    let proxy = Proxy::with(world.database_url(), Network::Refuse).await;
    let settings = Settings::new(&proxy.through(world.database_url()));
    let starting = Service::start(settings).await;
    let unready = check(starting.url()).await;
    assert_failed(&unready, 1, "not ready");
}

#[tokio::test]
async fn wrong_usage_exits_with_64_and_help_with_0() {
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
async fn all_configuration_errors_are_reported_at_once() {
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
        assert_failed(&ended, 64, variable);
    }
    assert!(!ended.stderr.contains("secret-Sw0rdfish"), "{}", ended.stderr);
    let small = Settings::new("postgres://localhost/x")
        .with("EVENTSIEVE_QUEUE_EVENTS", "10")
        .run()
        .await;
    assert_failed(&small, 64, "EVENTSIEVE_QUEUE_EVENTS");
}

async fn serve_is_default_and_takes_url_from_file(world: World) {
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

async fn load_sends_what_was_asked_and_its_table_adds_up(world: World) {
    let service = world.serve().await;
    let load = async |arguments: &[&str]| {
        let arguments = [&["load", "--url", service.url()], arguments].concat();
        world.run(&arguments).await
    };
    let singles = load(&["--events", "200", "--duplicate-rate", "0.25", "--batch-size", "1"]).await;
    singles.ended_with(0);
    for (name, count) in [("sent", 200), ("unique", 150), ("duplicates", 50), ("resent", 0)] {
        assert_eq!(singles.count(name), count, "{name}: {}", singles.stdout);
    }
    world.check(150).await;
    let rounded = load(&["--events", "7", "--duplicate-rate", "0.5"]).await;
    rounded.ended_with(0);
    assert_eq!(rounded.count("unique") + rounded.count("duplicates"), 7);
    assert_eq!(rounded.count("duplicates"), 4, "3.5 is rounded up");
    world.check(153).await;
    load(&["--events", "50", "--duplicate-rate", "0"]).await.ended_with(0);
    world.check(203).await;

    let seeded = ["--events", "40", "--duplicate-rate", "0", "--seed", "7"];
    load(&seeded).await.ended_with(0);
    world.check(243).await;
    let again = load(&seeded).await;
    assert_eq!(
        again.code,
        Some(1),
        "its events are not unique any more: {}",
        again.stdout
    );
    world.check(243).await;
}

async fn publish_sends_lines_of_a_file(world: World) {
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
    assert_eq!((ended.count("stored"), ended.count("duplicate")), (120, 10));
    let totals = world.check(120).await;
    assert_eq!(totals.received, 130);
    let missing = world
        .run(&["publish", "--url", service.url(), "--file", "no-such-file"])
        .await;
    assert_failed(&missing, 1, "no-such-file");
}

async fn load_waits_for_service_to_come_up(world: World) {
    let port = free_port().to_string();
    let url = format!("http://127.0.0.1:{port}");
    let arguments = ["load", "--url", &url, "--events", "100", "--duplicate-rate", "0.1"];
    let starting = async {
        // Creating the schema first makes sure that the first attempts fail.
        world.run(&["migrate"]).await.ended_with(0);
        world.serve_with(world.settings().with("PORT", &port)).await
    };
    let (load, _service) = join(world.run(&arguments), starting).await;
    load.ended_with(0);
    assert_eq!(load.count("unique"), 90);
    world.check(90).await;
}

on_both_stores! {
    migrate_creates_schema_and_is_idempotent
    serve_no_migrate_rejects_old_schema
    verify_finds_each_kind_of_drift
    verify_passes_while_events_are_stored
    serve_is_default_and_takes_url_from_file
    load_sends_what_was_asked_and_its_table_adds_up
    publish_sends_lines_of_a_file
    load_waits_for_service_to_come_up
}
