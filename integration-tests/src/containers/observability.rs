//! The profile `observability`: the rules, the metrics, and Prometheus.

use std::process::Stdio;
use std::time::Duration;

use anyhow::ensure;
use serde_json::Value;
use tokio::io::AsyncWriteExt;

use super::engine::{command, docker};
use super::stack::{Stack, UP, root};
use crate::eventually::eventually;
use crate::publish::events;

const IMAGE: &str = "prom/prometheus:v2.53.3";

/// `EventsieveSinkDown` fires a minute after the next probe, scrape and evaluation.
const FIRES: Duration = Duration::from_secs(180);

/// Checks the syntax, the rules, and their tests in alerts.test.yml, by the image of the compose file.
pub async fn promtool_accepts_rules_and_their_tests() {
    let folder = format!("{}:/etc/prometheus:ro", root().join("deploy/prometheus").display());
    for words in [
        ["check", "config", "/etc/prometheus/prometheus.yml"],
        ["check", "rules", "/etc/prometheus/alerts.yml"],
        ["test", "rules", "/etc/prometheus/alerts.test.yml"],
    ] {
        let run = ["run", "--rm", "-v", &folder, "--entrypoint", "promtool", IMAGE];
        let printed = docker(&[&run[..], &words].concat()).await;
        assert!(printed.contains("SUCCESS"), "{words:?}: {printed}");
    }
}

/// promtool accepts names, units and help texts while events are published.
pub async fn promtool_accepts_metrics_under_load() {
    let stack = Stack::plain().await;
    let publishing = async {
        loop {
            let answer = stack.try_publish(&Value::from(events("load", 0..100))).await;
            assert_eq!(answer.expect("an answer").status / 100, 2);
        }
    };
    let scraping = async {
        for _ in 0..3 {
            let metrics = stack.try_get("/metrics").await.expect("an answer");
            accepted_by_promtool(&metrics.body).await;
        }
    };
    tokio::select! {
        () = publishing => {}
        () = scraping => {}
    }
}

async fn accepted_by_promtool(metrics: &[u8]) {
    let run = [
        "run",
        "--rm",
        "-i",
        "--entrypoint",
        "promtool",
        IMAGE,
        "check",
        "metrics",
    ];
    let mut promtool = command(&run);
    promtool
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut promtool = promtool.spawn().expect("docker starts");
    let mut input = promtool.stdin.take().expect("it is piped");
    input.write_all(metrics).await.expect("promtool reads");
    drop(input);
    let output = promtool.wait_with_output().await.expect("promtool ends");
    let texts = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    assert!(
        output.status.success() && texts.iter().all(String::is_empty),
        "{texts:?}"
    );
}

/// The answer of Prometheus to a query, one line for each series.
async fn query(stack: &Stack, query: &str) -> Vec<String> {
    let url = "http://127.0.0.1:9090";
    let answer = stack
        .exec("prometheus", &["promtool", "query", "instant", url, query])
        .await;
    answer.lines().map(str::to_owned).collect()
}

/// The target is up, the rules are evaluated, and an alert fires during an outage and resolves after it.
pub async fn alert_fires_when_broker_is_gone() {
    const FIRING: &str = "ALERTS{alertname=\"EventsieveSinkDown\",alertstate=\"firing\"}";

    let stack = Stack::plain().await;
    stack.observe().await;
    eventually(UP, async || {
        let up = query(stack, "up{job=\"eventsieve\"} == 1").await;
        ensure!(up.len() == 1, "{up:?}");
        let stored = query(stack, "eventsieve_events_total{outcome=\"stored\"} > 0").await;
        ensure!(stored.len() == 1, "{stored:?}");
        Ok(())
    })
    .await;
    assert_eq!(query(stack, FIRING).await, [""; 0]);
    stack.compose(&["stop", "broker"]).await;
    eventually(FIRES, async || {
        let firing = query(stack, FIRING).await;
        ensure!(
            firing.len() == 1 && firing[0].contains("severity=\"warning\""),
            "{firing:?}"
        );
        Ok(())
    })
    .await;
    stack.compose(&["start", "broker"]).await;
    eventually(FIRES, async || {
        let firing = query(stack, FIRING).await;
        ensure!(firing.is_empty(), "{firing:?}");
        Ok(())
    })
    .await;
}

/// One DNS name has the addresses of all replicas.
pub async fn prometheus_finds_each_replica() {
    let stack = Stack::scaled().await;
    stack.observe().await;
    let replicas = stack.containers("aggregator").await.len();
    assert!(replicas > 1, "{replicas}");
    eventually(UP, async || {
        let up = query(stack, "up{job=\"eventsieve\"} == 1").await;
        ensure!(up.len() == replicas, "{up:?}");
        Ok(())
    })
    .await;
}
