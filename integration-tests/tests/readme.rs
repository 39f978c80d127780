//! The README: its commands are run as they stand there, and must print what it shows.

use std::fs;

use anyhow::ensure;
use integration_tests::eventually::{SOON, eventually};
use integration_tests::publish::{Publish, event};
use integration_tests::readme::{Example, blocks, examples, readme, section};
use integration_tests::redis::RedisServer;
use integration_tests::service::{Service, Settings, binary};
use integration_tests::world::World;
use reqwest::Url;
use tempfile::TempDir;
use tokio::process::Command;
use tokio::time::timeout;

/// The text without what is another one each time: when an event came, and how much a flush had to wait for.
fn steady(text: &str) -> String {
    let mut steady = text.to_owned();
    for (begin, end) in [("\"received_at\":\"", '"'), ("\"flushed\":", '}')] {
        let parts: Vec<String> = steady
            .split(begin)
            .enumerate()
            .map(|(number, part)| match part.find(end) {
                Some(at) if number > 0 => format!("…{}", &part[at..]),
                _ => part.to_owned(),
            })
            .collect();
        steady = parts.join(begin);
    }
    steady
}

/// Where `integration-tests/setup test` installs the Python of the examples, with its packages.
const PYTHON: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/python/bin");

/// What `timeout` ends with when it had to end the command.
const TIMED_OUT: i32 = 124;

/// A folder in which a newcomer tries the README, with a service on an embedded store.
struct Newcomer {
    folder: TempDir,
    service: Service,
    redis_url: String,
}

impl Newcomer {
    async fn with(settings: impl Fn(Settings) -> Settings, redis_url: &str) -> Self {
        let folder = TempDir::new().expect("a temporary folder");
        let service = Service::start(settings(Settings::new(&Self::database(&folder)))).await;
        service.ready().await;
        Newcomer {
            folder,
            service,
            redis_url: redis_url.to_owned(),
        }
    }

    fn database(folder: &TempDir) -> String {
        format!("sqlite://{}", folder.path().join("data/eventsieve.db").display())
    }

    fn shell(&self, command: &str) -> Command {
        let programs = binary();
        let programs = programs.parent().expect("the binary lies in a folder");
        let path = std::env::var("PATH").expect("programs are found by it");
        let mut shell = Command::new("bash");
        shell
            .args(["-c", &command.replace("http://127.0.0.1:8080", self.service.url())])
            .current_dir(self.folder.path())
            .env("DATABASE_URL", Self::database(&self.folder))
            .env("REDIS_URL", &self.redis_url)
            .env("TARGET_URL", self.service.url())
            .env("PATH", format!("{}:{PYTHON}:{path}", programs.display()))
            .env("NO_PROXY", "*")
            .kill_on_drop(true);
        shell
    }

    /// Runs a command to its end, which may be the end of a `timeout` of its own, and gives back what it has printed.
    async fn run(&self, command: &str) -> String {
        let ran = timeout(SOON, self.shell(command).output())
            .await
            .expect("an example ends")
            .expect("bash is there");
        let is_over = ran.status.success() || (command.starts_with("timeout ") && ran.status.code() == Some(TIMED_OUT));
        assert!(is_over, "{command}: {}", String::from_utf8_lossy(&ran.stderr));
        // curl ends without a line feed.
        String::from_utf8_lossy(&ran.stdout).trim_end().to_owned()
    }
}

#[tokio::test]
async fn every_example_of_the_readme_prints_what_it_shows() {
    let newcomer = Newcomer::with(|settings| settings, "").await;
    let readme = readme();
    let text = section(&readme, "## Use it", "## Subscribe");
    let examples: Vec<Example> = blocks(text, "console").into_iter().flat_map(examples).collect();
    assert!(examples.len() > 10, "the README has examples");
    for Example { command, output } in examples {
        let printed = newcomer.run(&command).await;
        assert_eq!(steady(&printed), steady(output.trim_end()), "{command}");
    }
}

/// A command that ends in `&` goes on in the background, and is listening before the next one is run; what a file holds in
/// the end is waited for.
#[tokio::test]
async fn every_example_for_subscribers_prints_what_it_shows() {
    let redis = RedisServer::new().await;
    let settings = |settings: Settings| {
        // At debug each request is told of: so it is known when a follower is there.
        let settings = settings.with("RUST_LOG", "eventsieve=debug");
        settings.with("REDIS_URL", &redis.url()).with("REDIS_STREAM", "log")
    };
    let newcomer = Newcomer::with(settings, &redis.url()).await;
    let readme = readme();
    let text = section(&readme, "## Subscribe", "## What you can rely on");
    for script in blocks(text, "python") {
        let name = script.lines().next().and_then(|line| line.strip_prefix("# "));
        let file = newcomer
            .folder
            .path()
            .join(name.expect("a script begins with its name"));
        let script = script.replace("http://127.0.0.1:8080", newcomer.service.url());
        fs::write(file, script).expect("a file in a folder of our own");
    }
    let examples: Vec<Example> = blocks(text, "console").into_iter().flat_map(examples).collect();
    assert!(examples.len() > 6, "the README has examples for subscribers");
    let mut background = Vec::new();
    for Example { command, output } in examples {
        if let Some(command) = command.strip_suffix(" &") {
            background.push(
                newcomer
                    .shell(&format!("exec {command}"))
                    .spawn()
                    .expect("bash is there"),
            );
            listening(&newcomer, &redis, command).await;
            continue;
        }
        eventually(SOON, async || {
            let printed = newcomer.run(&command).await;
            let (printed, output) = (steady(&printed), steady(output.trim_end()));
            ensure!(printed == output, "{command}\n{printed}\ninstead of\n{output}");
            Ok(())
        })
        .await;
    }
}

/// Waits until a command that listens is heard of by the one it listens to.
async fn listening(newcomer: &Newcomer, redis: &RedisServer, command: &str) {
    eventually(SOON, async || {
        if command.starts_with("redis-cli") {
            let (_, subscribers): (String, u32) = redis.command(&["PUBSUB", "NUMSUB", "events"]).await;
            ensure!(subscribers == 1, "nobody has subscribed");
        } else {
            let log = newcomer.service.log();
            ensure!(log.contains("/events/stream"), "nobody follows");
        }
        Ok(())
    })
    .await;
}

/// The statements of the README give a role all that `serve --no-migrate`, `verify` and `prune` need, and not what `migrate`
/// does.
#[tokio::test]
async fn a_role_with_the_grants_of_the_readme_can_serve_verify_and_prune() {
    let world = World::new().await;
    world.run(&["migrate"]).await.ended_with(0);
    let role = format!("eventsieve_service_{}", std::process::id());
    let readme = readme();
    let grants = blocks(section(&readme, "**Grants.**", "**Prune.**"), "sql").join("\n");
    world.execute(&grants.replace("eventsieve_service", &role)).await;

    let mut url = Url::parse(world.database_url()).expect("a URL");
    url.set_username(&role).expect("a role's name");
    url.set_password(Some("secret")).expect("a password");
    let settings = || Settings::new(url.as_str()).with("EVENTSIEVE_NO_MIGRATE", "true");
    let service = Service::start(settings()).await;
    service.ready().await;
    assert_eq!(service.publish(&event("orders", "evt-1")).await.status, 201);
    assert_eq!(service.publish(&event("orders", "evt-1")).await.status, 200);
    assert_eq!(service.fetch("/events?after=").await.status, 200);
    settings().arguments(&["verify"]).run().await.ended_with(0);
    let pruned = settings().arguments(&["prune", "--older-than", "0s"]).run().await;
    assert!(
        pruned.ended_with(0).stdout.starts_with("pruned 1 "),
        "{}",
        pruned.stdout
    );
    let refused = settings().arguments(&["migrate"]).run().await;
    refused.ended_with(1);
    drop(service);
    world.check(0).await;
    world.execute(&format!("drop owned by {role}; drop role {role}")).await;
}
