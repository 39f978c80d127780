//! What breaks between hosts, while a publisher sends events through the balancer to three replicas. After each, the events
//! are all there once, in the log and in the stream, and the counters are exact.

use std::time::Duration;

use anyhow::ensure;
use tokio::time::Instant;

use super::account::Publisher;
use super::engine::{command, docker, finish, run_name};
use super::stack::{Stack, UP};
use crate::eventually::eventually;

/// How long `storage` stands still.
const PAUSE: Duration = Duration::from_secs(10);

/// How long packets vanish: longer than a request may wait for its commit.
const SILENCE: Duration = Duration::from_secs(20);

/// Lets a fault last, and meanwhile looks again and again whether all replicas are alive: none may end because of it.
async fn last(stack: &Stack, duration: Duration) {
    let end = Instant::now() + duration;
    eventually(duration + UP, async || {
        for replica in stack.containers("aggregator").await {
            let running = docker(&["inspect", "-f", "{{.State.Running}} {{.RestartCount}}", &replica]).await;
            assert_eq!(running, "true 0", "{replica}");
        }
        ensure!(Instant::now() >= end, "the fault has not lasted its time");
        Ok(())
    })
    .await;
}

/// `docker kill` and `docker start`.
pub async fn storage_killed_and_started_again_loses_nothing() {
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

/// `docker pause`: connections stay open, and nothing is answered.
pub async fn storage_paused_for_ten_seconds_loses_nothing() {
    let stack = Stack::scaled().await;
    let publisher = Publisher::start(stack, Duration::from_secs(20)).await;
    let storage = stack.container("storage").await;
    docker(&["pause", &storage]).await;
    last(stack, PAUSE).await;
    publisher.still_publishes().await;
    docker(&["unpause", &storage]).await;
    publisher.settle().await;
}

/// `docker network disconnect` and `connect`: publishing goes on meanwhile.
pub async fn a_broker_that_is_cut_off_and_joined_again_gets_every_event() {
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
    assert_eq!(finished.figure("resent"), 0, "requests that failed");
}

/// `docker kill` of one and `docker stop` of another; the third goes on.
pub async fn one_replica_killed_and_another_stopped_lose_nothing() {
    let stack = Stack::scaled().await;
    let publisher = Publisher::start(stack, Duration::from_secs(35)).await;
    let replicas = stack.containers("aggregator").await;
    docker(&["kill", &replicas[1]]).await;
    docker(&["stop", "-t", "40", &replicas[2]]).await;
    assert_eq!(stack.docker_wait(&replicas[2]).await, "0", "how the stopped one ended");
    publisher.goes_on().await;
    publisher.still_publishes().await;
    publisher.settle().await;
    docker(&["start", &replicas[1], &replicas[2]]).await;
    for replica in &replicas {
        stack.healthy(replica).await;
    }
}

/// Nothing passes between the replicas and `storage`, in neither direction, and nobody is told.
pub async fn packets_that_vanish_for_twenty_seconds_lose_nothing() {
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

/// An image with a packet filter: ours have none.
async fn filter_image() -> String {
    let file = "FROM debian:trixie-slim\n\
        RUN apt-get -o Acquire::Retries=5 update -qq && \
        apt-get -o Acquire::Retries=5 install -y -qq --no-install-recommends nftables >/dev/null\n";
    let folder = tempfile::tempdir().expect("a temporary folder");
    std::fs::write(folder.path().join("Dockerfile"), file).expect("a file of our own");
    let folder = folder.path().to_str().expect("temporary folders have UTF-8 names");
    docker(&["build", "-q", "-t", &format!("{}filter", run_name()), folder]).await
}

/// Gives the packet filter of a container's network namespace a command.
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
