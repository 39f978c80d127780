//! Faults between hosts, while a publisher sends events through the balancer to three replicas. After each fault every event is once
//! in the log and in the stream, and the counters are exact.

use std::time::Duration;

use anyhow::ensure;
use tokio::time::Instant;

use super::engine::{command, docker, finish, run_name};
use super::publisher::Publisher;
use super::stack::{Stack, UP};
use crate::eventually::eventually;

/// How long `storage` is paused.
const PAUSE: Duration = Duration::from_secs(10);

/// How long packets are dropped: longer than a request may wait for its commit.
const SILENCE: Duration = Duration::from_secs(20);

/// Lets a fault last, and checks meanwhile that no replica ends because of it.
async fn last(stack: &Stack, duration: Duration) {
    let end = Instant::now() + duration;
    eventually(duration + UP, async || {
        for replica in stack.containers("aggregator").await {
            let running = docker(&["inspect", "-f", "{{.State.Running}} {{.RestartCount}}", &replica]).await;
            assert_eq!(running, "true 0", "{replica}");
        }
        ensure!(Instant::now() >= end, "the fault must last longer");
        Ok(())
    })
    .await;
}

/// `docker kill` and `docker start`.
pub async fn killed_storage_loses_nothing() {
    let stack = Stack::scaled().await;
    let publisher = Publisher::start(stack, Duration::from_secs(15)).await;
    let storage = stack.container("storage").await;
    docker(&["kill", &storage]).await;
    eventually(UP, async || {
        let answer = stack.try_get("/readyz").await?;
        ensure!(answer.status == 503, "{}", answer.status);
        Ok(())
    })
    .await;
    publisher.still_publishes().await;
    docker(&["start", &storage]).await;
    publisher.settle().await;
}

/// `docker pause`: connections stay open, and no query is answered.
pub async fn storage_paused_for_10s_loses_nothing() {
    let stack = Stack::scaled().await;
    let publisher = Publisher::start(stack, Duration::from_secs(20)).await;
    let storage = stack.container("storage").await;
    docker(&["pause", &storage]).await;
    last(stack, PAUSE).await;
    publisher.still_publishes().await;
    docker(&["unpause", &storage]).await;
    publisher.settle().await;
}

/// `docker network disconnect` and `connect`: publishing continues meanwhile.
pub async fn disconnected_broker_gets_each_event() {
    let stack = Stack::scaled().await;
    let publisher = Publisher::start(stack, Duration::from_secs(35)).await;
    let (broker, network) = (stack.container("broker").await, format!("{}_back", stack.project()));
    docker(&["network", "disconnect", &network, &broker]).await;
    eventually(UP, async || {
        let health = stack.try_json("/health").await?;
        ensure!(health["status"] == "degraded", "{health}");
        Ok(())
    })
    .await;
    publisher.goes_on().await;
    publisher.still_publishes().await;
    docker(&["network", "connect", "--alias", "broker", &network, &broker]).await;
    let finished = publisher.settle().await;
    assert_eq!(finished.count("resent"), 0, "requests that failed");
}

/// `docker kill` of one replica and `docker stop` of another; the third continues.
pub async fn killed_and_stopped_replicas_lose_nothing() {
    let stack = Stack::scaled().await;
    let publisher = Publisher::start(stack, Duration::from_secs(35)).await;
    let replicas = stack.containers("aggregator").await;
    docker(&["kill", &replicas[1]]).await;
    docker(&["stop", "-t", "40", &replicas[2]]).await;
    assert_eq!(
        stack.docker_wait(&replicas[2]).await,
        "0",
        "the exit code of the stopped replica"
    );
    publisher.goes_on().await;
    publisher.still_publishes().await;
    publisher.settle().await;
    docker(&["start", &replicas[1], &replicas[2]]).await;
    for replica in &replicas {
        stack.healthy(replica).await;
    }
}

/// All packets between the replicas and `storage` are dropped silently, in both directions.
pub async fn packets_dropped_for_20s_lose_nothing() {
    let stack = Stack::scaled().await;
    let image = filter_image().await;
    let publisher = Publisher::start(stack, Duration::from_secs(30)).await;
    let storage = stack.address(&stack.container("storage").await).await;
    let replicas = stack.containers("aggregator").await;
    let dropping = format!(
        "add table inet faults; \
         add chain inet faults sent {{ type filter hook output priority 0; }}; \
         add rule inet faults sent ip daddr {storage} counter drop; \
         add chain inet faults received {{ type filter hook input priority 0; }}; \
         add rule inet faults received ip saddr {storage} counter drop"
    );
    for replica in &replicas {
        filter(&image, replica, &dropping).await;
    }
    last(stack, SILENCE).await;
    publisher.still_publishes().await;
    for replica in &replicas {
        let rules = filter(&image, replica, "list table inet faults").await;
        assert!(
            rules.matches("packets 0 ").count() < 2,
            "no packet was dropped: {rules}"
        );
        filter(&image, replica, "delete table inet faults").await;
    }
    publisher.settle().await;
}

/// An image with a packet filter, which our images do not have.
async fn filter_image() -> String {
    let file = "FROM debian:trixie-slim\n\
        RUN apt-get -o Acquire::Retries=5 update -qq && \
        apt-get -o Acquire::Retries=5 install -y -qq --no-install-recommends nftables >/dev/null\n";
    let folder = tempfile::tempdir().expect("a temporary folder");
    std::fs::write(folder.path().join("Dockerfile"), file).expect("a file of our own");
    let folder = folder.path().to_str().expect("temporary folders have UTF-8 names");
    docker(&["build", "-q", "-t", &format!("{}filter", run_name()), folder]).await
}

/// Runs a command of the packet filter in the network namespace of a container.
async fn filter(image: &str, container: &str, rules: &str) -> String {
    let network = format!("container:{container}");
    let run = [
        "run",
        "--rm",
        "--network",
        &network,
        "--cap-add",
        "NET_ADMIN",
        image,
        "nft",
        rules,
    ];
    finish(command(&run)).await.ended_with(0).stdout.clone()
}
