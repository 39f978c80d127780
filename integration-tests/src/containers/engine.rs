//! The Docker engine, through its command line.

use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use tokio::process::Command;
use tokio::time::timeout;

use crate::service::Finished;

/// The prefix of all names.
const PREFIX: &str = "eventsieve-test-";

/// How long a command of the engine may take: the slowest one builds an image without a cache.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(40 * 60);

/// The prefix of the names of this run.
pub fn run_name() -> String {
    format!("{}{}-", prefix(), std::process::id())
}

/// The prefix of the names of all runs in the same PID namespace: one engine may serve several containers that run tests.
fn prefix() -> String {
    let namespace = std::fs::read_link("/proc/self/ns/pid").expect("Linux shows the namespace");
    let digits: String = namespace
        .to_string_lossy()
        .chars()
        .filter(char::is_ascii_digit)
        .collect();
    format!("{PREFIX}{digits}-")
}

/// A command of the engine.
pub fn command(arguments: &[&str]) -> Command {
    clean_command("docker", arguments)
}

/// A program with only those variables of our environment that the Docker command needs: a `PORT` of ours would change the compose
/// file's.
pub fn clean_command(program: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    let kept = std::env::vars().filter(|(name, _)| name == "PATH" || name == "HOME" || name.starts_with("DOCKER_"));
    command
        .args(arguments)
        .env_clear()
        .envs(kept)
        .stdin(Stdio::null())
        .kill_on_drop(true);
    command
}

/// Runs a command to its end.
pub async fn finish(mut command: Command) -> Finished {
    let output = timeout(COMMAND_TIMEOUT, command.output())
        .await
        .unwrap_or_else(|_| panic!("{command:?} did not end"))
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    Finished {
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Runs a command of the engine that may fail.
pub async fn attempt(arguments: &[&str]) -> Finished {
    finish(command(arguments)).await
}

/// Runs a command of the engine that must succeed, and returns its output.
pub async fn docker(arguments: &[&str]) -> String {
    let finished = attempt(arguments).await;
    assert_eq!(
        finished.code,
        Some(0),
        "docker {arguments:?}: {}{}",
        finished.stdout,
        finished.stderr
    );
    finished.stdout.trim().to_owned()
}

/// The output of `docker inspect` for a container, an image or a network.
pub async fn inspect(what: &str) -> Value {
    let text = docker(&["inspect", what]).await;
    let list: Value = serde_json::from_str(&text).expect("docker inspect prints JSON");
    list[0].clone()
}

/// Removes everything that this run has created.
pub async fn clean_up() {
    remove(&run_name()).await;
}

/// Removes what runs that were killed have left behind.
pub async fn clean_up_after_the_dead() {
    let containers = docker(&["ps", "-a", "--format", "{{.Names}}"]).await;
    let networks = docker(&["network", "ls", "--format", "{{.Name}}"]).await;
    let volumes = docker(&["volume", "ls", "--format", "{{.Name}}"]).await;
    for name in [containers, networks, volumes].iter().flat_map(|names| names.lines()) {
        let process = name.strip_prefix(&prefix()).and_then(|rest| rest.split('-').next());
        if let Some(process) = process
            && !std::path::Path::new("/proc").join(process).exists()
        {
            remove(&format!("{}{process}-", prefix())).await;
        }
    }
}

/// Removes the containers, networks, volumes and images with this prefix, if they still exist.
pub async fn remove(prefix: &str) {
    let filter = format!("name=^{prefix}");
    for (list, removal) in [
        (&["ps", "-aq"][..], &["rm", "-fv"][..]),
        (&["network", "ls", "-q"], &["network", "rm"]),
        (&["volume", "ls", "-q"], &["volume", "rm", "-f"]),
    ] {
        let found = attempt(&[list, &["--filter", &filter]].concat()).await.stdout;
        let found: Vec<&str> = found.split_whitespace().collect();
        if !found.is_empty() {
            attempt(&[removal, &found].concat()).await;
        }
    }
    let images = attempt(&["images", "-q", "--filter", &format!("reference={prefix}*")])
        .await
        .stdout;
    for image in images.lines() {
        attempt(&["rmi", "-f", image]).await;
    }
}
