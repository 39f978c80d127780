//! The profile `observability`: the rules, the figures, and a Prometheus that puts them together.

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

/// `EventsieveSinkDown` fires after a minute; what comes before is the next probe, scrape and evaluation.
const FIRES: Duration = Duration::from_secs(180);

/// As the image of the compose file has it: the syntax, the rules, and what alerts.test.yml says of each.
pub async fn promtool_accepts_the_configuration_and_shows_each_alert_firing_and_not_firing() {
    let folder = format!("{}:/etc/prometheus:ro", root().join("deploy/prometheus").display());
    for words in [
        ["check", "config", "/etc/prometheus/prometheus.yml"],
        ["check", "rules", "/etc/prometheus/alerts.yml"],
        ["test", "rules", "/etc/prometheus/alerts.test.yml"],
    ] {
        let run = ["run", "--rm", "-v", &folder, "--entrypoint", "promtool", IMAGE];
        let said = docker(&[&run[..], &words].concat()).await;
        assert!(said.contains("SUCCESS"), "{words:?}: {said}");
    }
}

/// Names, units, help texts: it finds nothing to complain of while events flow.
pub async fn promtool_accepts_the_figures_of_a_service_under_load() {
    let stack = Stack::plain().await;
    let publishing = async {
        loop {
            let answer = stack.try_publish(&Value::from(events("load", 0..100))).await;
            assert_eq!(answer.expect("an answer").status / 100, 2);
        }
    };
    let looking = async {
        for _ in 0..3 {
            let figures = stack.try_get("/metrics").await.expect("an answer");
            accepted_by_promtool(&figures.body).await;
        }
    };
    tokio::select! {
        () = publishing => {}
        () = looking => {}
    }
}

async fn accepted_by_promtool(figures: &[u8]) {
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
    input.write_all(figures).await.expect("promtool reads");
    drop(input);
    let output = promtool.wait_with_output().await.expect("promtool ends");
    let said = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    assert!(output.status.success() && said.iter().all(String::is_empty), "{said:?}");
}

/// What Prometheus answers to a query, a line for each series.
async fn query(stack: &Stack, query: &str) -> Vec<String> {
    let url = "http://127.0.0.1:9090";
    let answer = stack
        .exec("prometheus", &["promtool", "query", "instant", url, query])
        .await;
    answer.lines().map(str::to_owned).collect()
}

/// The target is up, the rules are judged, and one that should fire does, and ends when its reason does.
pub async fn prometheus_asks_the_service_and_an_alert_fires_when_the_broker_is_gone() {
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

/// One name stands for all replicas.
pub async fn prometheus_finds_every_replica() {
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
