//! Several replicas behind one port.

use std::cell::Cell;
use std::time::Duration;

use anyhow::{Context, ensure};
use futures_util::future::{join, join_all};
use serde_json::Value;

use super::engine::{attempt, docker};
use super::publisher::Publisher;
use super::stack::{Stack, UP};
use crate::eventually::eventually;
use crate::publish::event;

/// Five replicas instead of three, and three again, during publishing: new replicas get requests, and removed ones lose none.
pub async fn scaling_during_publishing_loses_nothing() {
    let stack = Stack::scaled().await;
    let publisher = Publisher::start(stack, Duration::from_secs(50)).await;
    scale(stack, 5).await;
    let replicas = stack.containers("aggregator").await;
    assert_eq!(replicas.len(), 5);
    for replica in &replicas {
        eventually(UP, async || {
            ensure!(received_by(replica).await? > 0, "{replica} has received no event");
            Ok(())
        })
        .await;
    }
    publisher.still_publishes().await;
    scale(stack, 3).await;
    assert_eq!(stack.containers("aggregator").await.len(), 3);
    publisher.still_publishes().await;
    let finished = publisher.settle().await;
    assert_eq!(finished.count("resent"), 0, "requests that failed");
}

async fn scale(stack: &Stack, count: u8) {
    let replicas = format!("aggregator={count}");
    stack
        .compose(&[
            "up",
            "-d",
            "--no-recreate",
            "--no-deps",
            "--scale",
            &replicas,
            "aggregator",
        ])
        .await;
}

/// The number of events that this replica has received, by its own `/stats`.
async fn received_by(replica: &str) -> anyhow::Result<u64> {
    let ask = "exec 3<>/dev/tcp/127.0.0.1/8080; printf 'GET /stats HTTP/1.0\\r\\n\\r\\n' >&3; cat <&3";
    let answer = attempt(&["exec", replica, "bash", "-c", ask]).await.stdout;
    let (_, body) = answer.split_once("\r\n\r\n").context("no answer")?;
    let stats: Value = serde_json::from_str(body)?;
    stats["uptime_stats"]["received"]
        .as_u64()
        .context("no number of received events")
}

/// `docker compose run --rm tester`, whose requests reach all three replicas.
pub async fn tester_passes_through_balancer() {
    let tested = Stack::scaled().await.attempt(&["run", "--rm", "tester"]).await;
    tested.ended_with(0);
}

/// Each replica is stopped and started again, and the next one when it is healthy.
pub async fn rolling_restart_fails_no_request() {
    let stack = Stack::scaled().await;
    let publisher = Publisher::start(stack, Duration::from_secs(100)).await;
    let balancer = stack.container("balancer").await;
    let before = failures(&balancer).await;
    let is_over = Cell::new(false);
    let rolling = async {
        for replica in stack.containers("aggregator").await {
            docker(&["restart", "-t", "40", &replica]).await;
            stack.healthy(&replica).await;
        }
        is_over.set(true);
    };
    // A reader and a publisher of single events, which must see no failed request, beside the publisher of batches.
    let asking = async {
        let topic = format!("rolling-{}", uuid::Uuid::new_v4());
        for number in 0.. {
            if is_over.get() {
                break;
            }
            let read = stack.try_get("/stats").await.expect("an answer");
            assert_eq!(read.status, 200, "{}", read.text());
            let written = stack
                .try_publish(&event(&topic, &format!("evt-{number}")))
                .await
                .expect("an answer");
            assert_eq!(written.status, 201, "{}", written.text());
            publisher.note_one_beside();
        }
    };
    join(rolling, asking).await;
    publisher.still_publishes().await;
    assert_eq!(failures(&balancer).await, before, "requests that failed");
    let finished = publisher.settle().await;
    assert_eq!(finished.count("resent"), 0, "requests that failed");
}

/// A read may be what its replica died of: then it must not be the end of the others, too.
pub async fn read_whose_replica_dies_is_not_sent_again() {
    let stack = Stack::scaled().await;
    let (storage, replica) = (
        stack.container("storage").await,
        stack.containers("aggregator").await.remove(0),
    );
    // The reads wait for the database, some on each replica.
    docker(&["pause", &storage]).await;
    let reads = join_all((0..12).map(|_| stack.try_get("/events?limit=1")));
    let killing = async {
        eventually(UP, async || {
            let open = connections_of(&replica).await?;
            ensure!(open > 2, "{open} connections");
            Ok(())
        })
        .await;
        docker(&["kill", &replica]).await;
        docker(&["unpause", &storage]).await;
    };
    let (answers, ()) = join(reads, killing).await;
    docker(&["start", &replica]).await;
    stack.healthy(&replica).await;
    // On a connection that it has used before, the balancer closes that of the client instead of answering for the replica.
    let statuses: Vec<Option<u16>> = answers
        .into_iter()
        .map(|answer| answer.ok().map(|answer| answer.status))
        .collect();
    let count = |status| statuses.iter().filter(|other| **other == status).count();
    let failed = count(Some(502)) + count(None);
    assert!(
        failed >= 1 && failed + count(Some(200)) == statuses.len(),
        "{statuses:?}"
    );
}

/// The open connections of this replica, by its own `/metrics`.
async fn connections_of(replica: &str) -> anyhow::Result<u64> {
    let ask = "exec 3<>/dev/tcp/127.0.0.1/8080; printf 'GET /metrics HTTP/1.0\\r\\n\\r\\n' >&3; cat <&3";
    let answer = attempt(&["exec", replica, "bash", "-c", ask]).await.stdout;
    let line = answer
        .lines()
        .find_map(|line| line.strip_prefix("eventsieve_http_connections_open "));
    Ok(line.context("no answer")?.parse()?)
}

/// The failed requests: the balancer logs those, and those that it has sent to another replica.
async fn failures(balancer: &str) -> Vec<String> {
    let log = docker(&["logs", balancer]).await;
    let requests = log.lines().filter(|line| line.contains(" HTTP/1."));
    let failed = requests.filter(|line| {
        let status = line.split_whitespace().nth(5).unwrap_or_default();
        !status.starts_with('2')
    });
    failed.map(str::to_owned).collect()
}

/// With all replicas stopped, the balancer answers by itself.
pub async fn no_replica_is_503_with_retry_after() {
    let stack = Stack::scaled().await;
    let balancer = stack.container("balancer").await;
    stack.compose(&["stop", "aggregator"]).await;
    let answer = stack.try_get("/stats").await.expect("the balancer answers");
    eventually(UP, async || {
        let failed = failures(&balancer).await;
        let is_logged = failed.iter().any(|line| line.contains("GET /stats "));
        ensure!(is_logged, "it is not in the log: {failed:?}");
        Ok(())
    })
    .await;
    stack.compose(&["start", "aggregator"]).await;
    for replica in stack.containers("aggregator").await {
        stack.healthy(&replica).await;
    }
    answer.problem(503);
}
