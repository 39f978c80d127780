//! A pooler between the service and PostgreSQL: PgBouncer with its default settings, in both modes.

use futures_util::StreamExt;
use futures_util::stream;
use integration_tests::eventually::SOON;
use integration_tests::http::ask;
use integration_tests::pgbouncer::{PgBouncer, Version};
use integration_tests::postgres::PostgresServer;
use integration_tests::publish::{Scan, event, events};
use integration_tests::redis::RedisTarget;
use integration_tests::service::{Service, Settings};
use integration_tests::world::World;
use serde_json::Value;
use sqlx::{Executor, PgConnection, Row};

/// What a session of another program must find as the server has it.
const SETTINGS: [&str; 9] = [
    "synchronous_commit",
    "statement_timeout",
    "lock_timeout",
    "idle_in_transaction_session_timeout",
    "client_connection_check_interval",
    "default_transaction_isolation",
    "work_mem",
    "enable_seqscan",
    "search_path",
];

const LINE: &str = "a pooler gives each transaction a connection of its own";

async fn settings_of(connection: &mut PgConnection) -> Vec<String> {
    let mut settings = Vec::new();
    for name in SETTINGS {
        // In one statement without arguments, which any pooler passes on.
        let row = connection.fetch_one(sqlx::AssertSqlSafe(format!("show {name}"))).await;
        settings.push(format!("{name} = {}", row.expect("a setting").get::<String, _>(0)));
    }
    settings
}

/// Publishes in batches and alone, each event twice.
async fn publish_much(service: &Service) -> usize {
    let mut requests: Vec<Value> = Vec::new();
    for batch in 0..20 {
        let batch = events("orders", batch * 50..(batch + 1) * 50);
        requests.extend([Value::from(batch.clone()), Value::from(batch)]);
    }
    for number in 0..100 {
        requests.extend([
            event("single", &number.to_string()),
            event("single", &number.to_string()),
        ]);
    }
    let sent = stream::iter(requests).map(async |body| {
        let answer = ask(service.post("/publish").json(&body)).await;
        assert!(matches!(answer.status, 200 | 201), "{}", answer.text());
    });
    sent.buffer_unordered(16).collect::<Vec<_>>().await;
    1100
}

/// Everything that a service does with its store, through a pooler.
async fn works_through(version: Version, mode: &str, connections: u32) -> (String, Vec<Vec<String>>) {
    let server = PostgresServer::new().await;
    let pooler = PgBouncer::new(&server, version, mode, connections).await;
    let world = World::on(&server).await;
    let target = RedisTarget::shared();
    let url = pooler.through(world.database_url());
    let settings = || Settings::new(&url).with_redis(&target).with("EVENTSIEVE_RETAIN", "30d");
    // Others use the pooler too, and change what they please.
    let mut stranger = pooler.connect(&url).await.expect("another program");
    let before = settings_of(&mut stranger).await;
    let [one, other] = world.serve_all([settings(), settings()]).await;
    let stored = publish_much(&one).await;
    let mut scan = Scan::default();
    scan.until(&other, "", stored, SOON).await;
    let stats = other.fetch("/stats").await.json();
    assert_eq!(
        (stats["received"].as_u64(), stats["unique_processed"].as_u64()),
        (Some(2200), Some(1100))
    );
    assert_eq!(
        other.fetch("/events?topic=orders&limit=1").await.json()["events"][0]["topic"],
        "orders"
    );
    assert_eq!(
        other.fetch("/topics").await.json()["topics"].as_array().map(Vec::len),
        Some(2)
    );
    assert_eq!(other.fetch("/topics/orders/events/orders-1").await.status, 404);
    for command in ["verify", "migrate"] {
        settings().arguments(&[command]).run().await.ended_with(0);
    }
    let log = one.log();
    world.check_published(i64::try_from(stored).expect("a count")).await;
    for command in [&["prune", "--topic", "single", "--older-than", "0s"][..], &["verify"]] {
        settings().arguments(command).run().await.ended_with(0);
    }
    let mut seen = Vec::new();
    for _ in 0..20 {
        let mut stranger = pooler.connect(&url).await.expect("another program");
        seen.push(settings_of(&mut stranger).await);
    }
    seen.push(before);
    (log, seen)
}

/// With four connections for two services and others.
async fn nothing_leaks_in_transaction_mode(version: Version) {
    let (log, seen) = works_through(version, "transaction", 4).await;
    assert!(log.contains(LINE), "{log}");
    for settings in &seen {
        assert_eq!(settings, &seen[0]);
    }
    assert!(seen[0].contains(&"statement_timeout = 0".to_owned()), "{:?}", seen[0]);
}

#[tokio::test]
async fn nothing_leaks_in_transaction_mode_of_the_installed_version() {
    nothing_leaks_in_transaction_mode(Version::Installed).await;
}

#[tokio::test]
async fn nothing_leaks_in_transaction_mode_of_the_next_version() {
    nothing_leaks_in_transaction_mode(Version::Next).await;
}

#[tokio::test]
async fn session_mode_is_no_different_from_none() {
    for version in [Version::Installed, Version::Next] {
        let (log, _) = works_through(version, "session", 40).await;
        assert!(!log.contains(LINE), "{log}");
    }
}
