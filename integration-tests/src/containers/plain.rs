//! The deployment of `docker compose up -d`.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use anyhow::ensure;
use serde_json::Value;
use tokio::time::Instant;

use super::engine::{attempt, docker};
use super::publisher::Publisher;
use super::stack::{Stack, UP, root};
use crate::eventually::eventually;
use crate::publish::event;

/// How long `aggregator` runs without `storage` in the test of the start order.
const ALONE: Duration = Duration::from_secs(60);

/// The check of the tester that a store with wrong counters must fail.
const COUNTERS: &str = "the counters of a topic are exact";

/// The long-lived services of the plain deployment.
const SERVERS: [&str; 3] = ["aggregator", "storage", "broker"];

/// A fresh deployment, from `up` to the end of its publisher, within two minutes.
pub async fn first_up_counts_20000_events() {
    let begin = Instant::now();
    let stack = Stack::new(&["docker-compose.yml"]);
    stack.up().await;
    let took = begin.elapsed();
    assert!(took < UP, "it took {took:?}");
    let stats = stack.json("/stats").await;
    let members = [
        "received",
        "unique_processed",
        "duplicate_dropped",
        "database_total_rows",
    ];
    assert_eq!(
        members.map(|name| stats[name].as_u64()),
        [20000, 14000, 6000, 14000].map(Some),
        "{stats}"
    );
    println!("from up to 20 000 events in {:.1} s", took.as_secs_f64());
    stack.compose(&["down", "-v"]).await;
}

/// Its exit code, and its output without a terminal.
pub async fn publisher_exits_with_0_and_logs_lines() {
    let stack = Stack::plain().await;
    let finished = stack.finished(&stack.container("publisher").await).await;
    finished.ended_with(0);
    assert!(
        finished.count("sent") == 20000 && finished.count("unique") == 14000,
        "{}",
        finished.stdout
    );
    let log = docker(&["logs", &stack.container("publisher").await]).await;
    assert!(
        log.lines().last().is_some_and(|line| line.starts_with("latency max")),
        "{log}"
    );
    let text = [finished.stdout, finished.stderr].concat();
    assert!(!text.contains(|c: char| c.is_control() && c != '\n'), "{text:?}");
}

/// `docker compose run --rm tester`, twice.
pub async fn tester_passes_twice_with_data() {
    let stack = Stack::plain().await;
    for turn in ["first", "second"] {
        let begin = Instant::now();
        let tested = stack.attempt(&["run", "--rm", "tester"]).await;
        tested.ended_with(0);
        let last = tested.stdout.trim_end().lines().last().unwrap_or_default();
        assert!(last.starts_with("test result: ok. "), "{}", tested.stdout);
        let took = begin.elapsed();
        assert!(took < Duration::from_secs(60), "it took {took:?}");
        println!("the {turn} run of the tester took {:.1} s: {last}", took.as_secs_f64());
    }
}

/// A store that counts each duplicate as a unique event.
pub async fn tester_reports_a_wrong_counter() {
    let stack = Stack::new(&["docker-compose.yml"]);
    stack
        .compose(&["up", "-d", "--wait", "aggregator", "storage", "broker"])
        .await;
    stack
        .sql(
            "create function count_wrong() returns trigger language plpgsql as $$ begin \
               new.unique_processed := new.received; new.duplicate_dropped := 0; return new; end $$; \
             create trigger wrong before insert or update on topic_counts for each row execute function count_wrong()",
        )
        .await;
    let tested = stack.attempt(&["run", "--rm", "tester"]).await;
    assert_ne!(tested.code, Some(0), "{}", tested.stdout);
    let failed: Vec<&str> = tested.stdout.lines().filter(|line| line.ends_with("FAILED")).collect();
    assert!(failed.iter().any(|line| line.contains(COUNTERS)), "{}", tested.stdout);
    let verified = attempt(&["exec", &stack.container("aggregator").await, "eventsieve", "verify"]).await;
    verified.ended_with(1);
    stack.compose(&["down", "-v"]).await;
}

/// `docker kill` and `docker start` of the only `aggregator`, while events are published to it.
pub async fn publisher_survives_aggregator_restart() {
    let stack = Stack::plain().await;
    let publisher = Publisher::start(stack, Duration::from_secs(15)).await;
    let aggregator = stack.container("aggregator").await;
    docker(&["kill", &aggregator]).await;
    publisher.still_publishes().await;
    docker(&["start", &aggregator]).await;
    publisher.settle().await;
}

/// `down` and `up`: the data are kept, and the publisher adds other events.
pub async fn down_and_up_keep_all_data() {
    let stack = Stack::plain().await;
    let before = stack.json("/stats").await;
    stack.compose(&["down"]).await;
    stack.up().await;
    let after = stack.json("/stats").await;
    for (name, more) in [
        ("received", 20000),
        ("unique_processed", 14000),
        ("duplicate_dropped", 6000),
        ("database_total_rows", 14000),
    ] {
        let number = |stats: &Value| stats[name].as_u64().expect("a number");
        assert_eq!(number(&after), number(&before) + more, "{name}");
    }
    stack.exec("aggregator", &["eventsieve", "verify"]).await;
}

/// `stop`: each server exits by itself, and `storage` needs no recovery at its next start.
pub async fn containers_stop_within_grace_period() {
    let stack = Stack::plain().await;
    stack.compose(&["stop"]).await;
    for service in SERVERS {
        let code = stack.docker_wait(&stack.container(service).await).await;
        assert_eq!(code, "0", "the exit code of {service}");
    }
    stack
        .compose(&["up", "-d", "--wait", "aggregator", "storage", "broker"])
        .await;
    let log = stack.compose(&["logs", "--no-color", "storage"]).await;
    assert!(log.contains("database system is shut down"), "{log}");
    assert!(!log.contains("not properly shut down"), "{log}");
}

/// `.env.example` contains each variable with its default.
pub async fn env_example_has_each_compose_variable() {
    let read = |name: &str| fs::read_to_string(root().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
    let mut used = BTreeMap::new();
    for file in ["docker-compose.yml", "deploy/compose.scale.yml"] {
        for rest in read(file).split("${").skip(1) {
            let (inside, _) = rest.split_once('}').expect("a variable ends");
            // Without the colon the default is not that of an empty value.
            let parts = inside.split_once(":-").or_else(|| inside.split_once('-'));
            let (name, default) = parts.expect("every variable has a default");
            let before = used.insert(name.to_owned(), default.to_owned());
            assert!(before.is_none_or(|before| before == default), "two defaults for {name}");
        }
    }
    let shown: BTreeMap<String, String> = read(".env.example")
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    assert_eq!(shown, used);
}

/// `publisher` and `aggregator`, a minute later `storage`, and never `broker`.
pub async fn starts_before_storage_and_without_broker() {
    let stack = Stack::new(&["docker-compose.yml"]);
    stack.compose(&["up", "-d", "--no-deps", "publisher"]).await;
    stack.compose(&["up", "-d", "--no-deps", "aggregator"]).await;
    let aggregator = stack.container("aggregator").await;
    stack.json("/livez").await;
    let end = Instant::now() + ALONE;
    eventually(ALONE + UP, async || {
        let [alive, ready] = ["/livez", "/readyz"].map(|path| stack.try_get(path));
        assert_eq!(alive.await.expect("an answer").status, 200);
        assert_eq!(ready.await.expect("an answer").status, 503);
        ensure!(Instant::now() >= end, "the minute is not over");
        Ok(())
    })
    .await;
    stack.compose(&["up", "-d", "--no-deps", "storage"]).await;
    stack.healthy(&aggregator).await;
    let answer = stack
        .try_publish(&event("orders", "evt-1"))
        .await
        .expect("a healthy service answers");
    assert_eq!(answer.status, 201, "{}", answer.text());
    eventually(UP, async || {
        let health = stack.json("/health").await;
        ensure!(health["status"] == "degraded", "{health}");
        Ok(())
    })
    .await;
    assert_eq!(docker(&["inspect", "-f", "{{.RestartCount}}", &aggregator]).await, "0");
    stack.finished(&stack.container("publisher").await).await.ended_with(0);
    assert_eq!(stack.json("/stats").await["unique_processed"], 14001);
    stack.compose(&["down", "-v"]).await;
}
