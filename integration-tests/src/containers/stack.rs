//! A deployment of a test's own: the compose files of this repository, under a name and on a port of its own.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, ensure};
use reqwest::Client;
use serde_json::Value;
use tokio::sync::OnceCell;
use tokio::time::timeout;

use super::engine::{attempt, command, docker, finish, run_name};
use crate::eventually::eventually;
use crate::http::{Answer, client, try_ask};
use crate::postgres::free_port;
use crate::service::Finished;

/// How long the deployment may take from `up` to the last event.
pub const UP: Duration = Duration::from_secs(120);

/// How long a container may take to end by itself: the slowest is a publisher during a fault.
const END: Duration = Duration::from_secs(240);

/// The Redis stream that the deployments of the tests append to.
pub const STREAM: &str = "log";

/// The root of the repository, which is the project folder of both compose files.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("this crate is a folder of the workspace")
        .to_owned()
}

/// One deployment. It is not removed with this value, but at the end of the run.
#[derive(Debug)]
pub struct Stack {
    project: String,
    port: u16,
    files: &'static [&'static str],
    client: Client,
}

/// Several replicas behind a balancer.
const SCALED_FILES: [&str; 2] = ["docker-compose.yml", "deploy/compose.scale.yml"];

static PLAIN: OnceCell<Stack> = OnceCell::const_new();
static SCALED: OnceCell<Stack> = OnceCell::const_new();

impl Stack {
    /// The deployment of `docker compose up -d`, after its publisher has ended. All callers get the same one.
    pub async fn plain() -> &'static Self {
        PLAIN
            .get_or_init(async || {
                let stack = Self::new(&["docker-compose.yml"]);
                stack.up().await;
                stack
            })
            .await
            .repaired()
            .await
    }

    /// Three replicas behind a balancer. All callers get the same deployment.
    pub async fn scaled() -> &'static Self {
        SCALED
            .get_or_init(async || {
                let stack = Self::new(&SCALED_FILES);
                stack.up().await;
                stack
            })
            .await
            .repaired()
            .await
    }

    /// The same with all servers running, whatever state a failed test has left.
    async fn repaired(&'static self) -> &'static Self {
        let back = format!("{}_back", self.project);
        for (service, repair) in [
            ("storage", &["unpause"][..]),
            ("broker", &["network", "connect", "--alias", "broker", &back]),
        ] {
            // Fails if there is nothing to repair.
            attempt(&[repair, &[&format!("{}-{service}-1", self.project)]].concat()).await;
        }
        let mut up = vec![
            "up",
            "-d",
            "--no-deps",
            "--no-recreate",
            "storage",
            "broker",
            "aggregator",
        ];
        up.extend(SCALED_FILES.eq(self.files).then_some("balancer"));
        self.compose(&up).await;
        for service in ["storage", "broker", "aggregator"] {
            for container in self.containers(service).await {
                self.healthy(&container).await;
            }
        }
        self
    }

    /// A deployment that is not started yet.
    pub fn new(files: &'static [&'static str]) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        Stack {
            project: format!("{}{}", run_name(), COUNT.fetch_add(1, Ordering::Relaxed)),
            port: free_port(),
            files,
            client: client(),
        }
    }

    /// `docker compose up -d`, and waits until its publisher has ended.
    pub async fn up(&self) {
        self.compose(&["up", "-d"]).await;
        self.docker_wait(&self.container("publisher").await).await;
    }

    /// Starts `prometheus`, if it does not run, and waits until it is ready.
    pub async fn observe(&self) {
        let up = ["--profile", "observability", "up", "-d", "--no-deps", "prometheus"];
        self.compose(&up).await;
        self.healthy(&self.container("prometheus").await).await;
    }

    /// The name of the project, which is the prefix of the names of its containers, networks and volumes.
    pub fn project(&self) -> &str {
        &self.project
    }

    /// Runs a compose command that may fail.
    pub async fn attempt(&self, arguments: &[&str]) -> Finished {
        let mut compose = command(&["compose", "--env-file", "/dev/null", "-p", &self.project]);
        for file in self.files {
            compose.arg("-f").arg(root().join(file));
        }
        compose
            .args(["--project-directory"])
            .arg(root())
            .args(arguments)
            .env("PORT", self.port.to_string())
            .env("REDIS_STREAM", STREAM);
        finish(compose).await
    }

    /// Runs a compose command that must succeed, and returns its output.
    pub async fn compose(&self, arguments: &[&str]) -> String {
        let finished = self.attempt(arguments).await;
        assert_eq!(
            finished.code,
            Some(0),
            "docker compose {arguments:?}: {}{}",
            finished.stdout,
            finished.stderr
        );
        finished.stdout.trim().to_owned()
    }

    /// The containers of a service, in the order of their numbers, including those that have ended.
    pub async fn containers(&self, service: &str) -> Vec<String> {
        let name = format!("name=^{}-{service}-", self.project);
        let names = docker(&["ps", "-a", "--filter", &name, "--format", "{{.Names}}"]).await;
        let mut names: Vec<String> = names.lines().map(str::to_owned).collect();
        names.sort();
        names
    }

    /// The only container of a service.
    pub async fn container(&self, service: &str) -> String {
        let containers = self.containers(service).await;
        assert_eq!(containers.len(), 1, "{service}: {containers:?}");
        containers[0].clone()
    }

    /// Runs a command in a container of a service, which must succeed, and returns its output.
    pub async fn exec(&self, service: &str, words: &[&str]) -> String {
        let containers = self.containers(service).await;
        docker(&[&["exec", &containers[0]], words].concat()).await
    }

    /// The result of a statement on `storage`.
    pub async fn sql(&self, statement: &str) -> String {
        let statement = format!("set search_path = eventsieve, public; {statement}");
        self.exec(
            "storage",
            &["psql", "-U", "eventsieve", "-v", "ON_ERROR_STOP=1", "-Atqc", &statement],
        )
        .await
    }

    /// The answer of `broker` to a command.
    pub async fn redis(&self, words: &[&str]) -> String {
        self.exec("broker", &[&["redis-cli", "--raw"], words].concat()).await
    }

    /// Waits until a container has ended, and returns its exit code.
    pub async fn docker_wait(&self, container: &str) -> String {
        timeout(END, docker(&["wait", container]))
            .await
            .unwrap_or_else(|_| panic!("{container} still runs after {END:?}"))
    }

    /// The output and the exit code of a container that has ended.
    pub async fn finished(&self, container: &str) -> Finished {
        let code = self.docker_wait(container).await;
        let written = attempt(&["logs", container]).await;
        Finished {
            code: code.parse().ok(),
            ..written
        }
    }

    /// Waits until a container is healthy.
    pub async fn healthy(&self, container: &str) {
        eventually(UP, async || {
            let health = docker(&["inspect", "-f", "{{.State.Health.Status}}", container]).await;
            ensure!(health == "healthy", "{container} is {health}");
            Ok(())
        })
        .await;
    }

    /// The address of a container on the network `back`.
    pub async fn address(&self, container: &str) -> String {
        let template = format!(
            "{{{{(index .NetworkSettings.Networks \"{}_back\").IPAddress}}}}",
            self.project
        );
        docker(&["inspect", "-f", &template, container]).await
    }

    /// Its URL on this machine.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The answer to a GET.
    ///
    /// # Errors
    /// No answer came.
    pub async fn try_get(&self, path: &str) -> anyhow::Result<Answer> {
        try_ask(self.client.get(format!("{}{path}", self.url()))).await
    }

    /// The JSON of a GET that must succeed.
    ///
    /// # Errors
    /// No answer came, or the status is not 200.
    pub async fn try_json(&self, path: &str) -> anyhow::Result<Value> {
        let answer = self.try_get(path).await?;
        ensure!(answer.status == 200, "{path}: {} {}", answer.status, answer.text());
        Ok(answer.json())
    }

    /// The JSON of a GET that succeeds soon.
    pub async fn json(&self, path: &str) -> Value {
        eventually(UP, async || self.try_json(path).await).await
    }

    /// A POST of this JSON.
    ///
    /// # Errors
    /// No answer came.
    pub async fn try_publish(&self, body: &Value) -> anyhow::Result<Answer> {
        try_ask(self.client.post(format!("{}/publish", self.url())).json(body)).await
    }

    /// One number of `/stats`.
    ///
    /// # Errors
    /// There is none now.
    pub async fn stat(&self, member: &str) -> anyhow::Result<u64> {
        self.try_json("/stats").await?[member]
            .as_u64()
            .context(member.to_owned())
    }
}
