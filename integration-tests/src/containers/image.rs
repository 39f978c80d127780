//! The image on its own.

use std::collections::BTreeSet;
use std::fs;

use serde_json::json;
use tempfile::TempDir;

use super::engine::{attempt, docker, inspect, run_name};
use super::stack::{UP, root};
use crate::eventually::eventually;
use crate::http::{ask, client, try_ask};
use crate::postgres::free_port;
use crate::publish::event;
use crate::service::Finished;

/// The most that the program, certificates and time zones may add.
const ADDED_BYTES: u64 = 60_000_000;

/// Builds the image with a changed file, after a full build: the libraries must not be compiled again.
pub async fn changed_file_recompiles_only_own_crates() {
    let context = TempDir::new().expect("a temporary folder");
    let from = root();
    for path in [
        "Cargo.toml",
        "Cargo.lock",
        ".dockerignore",
        "deploy",
        "migrations",
        "src",
        "integration-tests",
    ] {
        copy(&from.join(path), &context.path().join(path));
    }
    let changed = context.path().join("src/main.rs");
    let text = fs::read_to_string(&changed).expect("the program's source");
    fs::write(&changed, format!("{text}\n// Changed by {}.\n", run_name())).expect("a file of our own");

    let folder = context.path().to_str().expect("temporary folders have UTF-8 names");
    let file = format!("{folder}/deploy/Dockerfile");
    let tag = format!("{}changed", run_name());
    let changes = ["eventsieve", "integration-tests"];
    let revision = format!("REVISION={}", run_name());
    let built = attempt(&[
        "build",
        "--progress=plain",
        "--build-arg",
        &revision,
        "--build-arg",
        "PROFILE=release",
        "-f",
        &file,
        "--target",
        "eventsieve",
        "-t",
        &tag,
        folder,
    ])
    .await;
    built.ended_with(0);
    let log = [built.stdout, built.stderr].concat();
    let compiled: BTreeSet<&str> = log
        .lines()
        .filter_map(|line| line.split_once(" Compiling "))
        .filter_map(|(_, crate_)| crate_.split_whitespace().next())
        .collect();
    assert_eq!(
        compiled,
        BTreeSet::from(changes),
        "are the libraries still in the cache?"
    );
    let labels = inspect(&tag).await["Config"]["Labels"].clone();
    assert_eq!(labels["org.opencontainers.image.revision"], run_name());
}

fn copy(from: &std::path::Path, to: &std::path::Path) {
    if from.is_dir() {
        fs::create_dir_all(to).expect("a folder of our own");
        for entry in fs::read_dir(from).expect("a folder of the repository") {
            let name = entry.expect("a folder that can be read").file_name();
            copy(&from.join(&name), &to.join(&name));
        }
    } else {
        fs::copy(from, to).unwrap_or_else(|error| panic!("{}: {error}", from.display()));
    }
}

/// The image against the one that it is made from.
pub async fn adds_less_than_60_mb_to_its_base() {
    // The base image of a build need not be present under its name; running it makes it so.
    docker(&["run", "--rm", "debian:trixie-slim", "true"]).await;
    let (mut sizes, mut layers) = (Vec::new(), Vec::new());
    for name in ["debian:trixie-slim", "eventsieve"] {
        let image = inspect(name).await;
        sizes.push(image["Size"].as_u64().expect("an image has a size"));
        layers.push(
            image["RootFS"]["Layers"]
                .as_array()
                .expect("an image has layers")
                .clone(),
        );
    }
    assert!(
        layers[1].starts_with(&layers[0]),
        "it is not made from debian:trixie-slim"
    );
    let added = sizes[1] - sizes[0];
    println!("the image adds {added} bytes");
    assert!(added < ADDED_BYTES, "{added} bytes");
}

/// The user, the entry point and the labels of the images.
pub async fn runs_only_the_program_without_root() {
    for name in ["eventsieve", "tester"] {
        let image = inspect(if name == "tester" { "eventsieve-tester" } else { name }).await;
        let config = &image["Config"];
        assert_eq!(config["User"], "10001:10001", "{name}");
        assert_eq!(config["WorkingDir"], "/app", "{name}");
        // Without a shell, so that the program receives the signal to stop.
        assert_eq!(config["Entrypoint"], json!([name]));
        for label in ["title", "description", "licenses", "version", "source", "revision"] {
            let label = format!("org.opencontainers.image.{label}");
            assert!(config["Labels"][&label].is_string(), "{name} has no {label}");
        }
    }
    let image = inspect("eventsieve").await;
    assert_eq!(image["Config"]["Volumes"], json!({"/app/data": {}}));
    assert_eq!(
        image["Config"]["Healthcheck"]["Test"],
        json!(["CMD", "eventsieve", "healthcheck"])
    );
    let version = &image["Config"]["Labels"]["org.opencontainers.image.version"];
    let printed = docker(&["run", "--rm", "eventsieve", "--version"]).await;
    assert_eq!(Some(&*printed.replace("eventsieve ", "")), version.as_str());
}

/// `docker run` with a named volume, twice: the second run has the events of the first.
pub async fn serves_embedded_store_in_named_volume() {
    let volume = format!("{}data", run_name());
    let mut statuses = Vec::new();
    for turn in ["first", "second"] {
        let container = format!("{}alone-{turn}", run_name());
        let port = free_port();
        docker(&[
            "run",
            "-d",
            "--name",
            &container,
            "--read-only",
            "--cap-drop=ALL",
            "-p",
            &format!("127.0.0.1:{port}:8080"),
            "-v",
            &format!("{volume}:/app/data"),
            "eventsieve",
        ])
        .await;
        let (client, url) = (client(), format!("http://127.0.0.1:{port}"));
        eventually(UP, async || {
            let ready = try_ask(client.get(format!("{url}/readyz"))).await?;
            anyhow::ensure!(ready.status == 200, "{}", ready.text());
            Ok(())
        })
        .await;
        let publication = client.post(format!("{url}/publish")).json(&event("orders", "evt-1"));
        statuses.push(ask(publication).await.status);
        let stats = ask(client.get(format!("{url}/stats"))).await.json();
        assert_eq!(stats["store"], "sqlite");
        assert_eq!(stats["unique_processed"], 1);
        docker(&["exec", &container, "eventsieve", "healthcheck"]).await;
        docker(&["stop", "-t", "40", &container]).await;
        assert_eq!(docker(&["wait", &container]).await, "0", "the exit code");
    }
    assert_eq!(statuses, [201, 200], "stored once, and a duplicate after a restart");
}

/// A folder of root instead of the volume.
pub async fn read_only_folder_is_one_line() {
    let folder = TempDir::new().expect("a temporary folder");
    let mount = format!("{}:/app/data", folder.path().display());
    // It belongs to the user that runs the tests, and other users, such as the user of the image, have no access.
    let Finished { code, stdout, stderr } = attempt(&["run", "--rm", "-v", &mount, "eventsieve"]).await;
    assert_eq!((code, stdout.as_str()), (Some(1), ""), "{stderr}");
    let errors: Vec<&str> = stderr.lines().filter(|line| !line.starts_with('{')).collect();
    assert_eq!(errors.len(), 1, "{stderr}");
    assert!(
        errors[0].starts_with("eventsieve: ") && errors[0].contains("data"),
        "{stderr}"
    );
}
