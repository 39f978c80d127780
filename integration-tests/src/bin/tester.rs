//! The tester: the black-box checks of a deployment that runs, over HTTP and on its Redis channel.
//!
//! ```text
//! BASE_URL=http://127.0.0.1:8080 REDIS_URL=redis://127.0.0.1:6379/0 tester
//! ```
//!
//! | variable | default | meaning |
//! |---|---|---|
//! | `BASE_URL` | `http://127.0.0.1:8080` | where the deployment answers |
//! | `REDIS_URL` | unset | the Redis that it publishes to; needed where `/stats` says `"fanout":"redis"` |
//! | `REDIS_CHANNEL` | `events` | the channel |
//! | `EVENTSIEVE_TESTER_PATIENCE` | `60` | how many seconds the deployment may take to become ready |
//!
//! `--list` names the checks, a word of a name runs some of them, `--help` tells the rest. It may run again and beside the
//! traffic of others, for it uses topics of its own, which stay behind. The exit code is 0 only if all checks passed.
//!
//! The checks themselves are in [`integration_tests::checks`].

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use integration_tests::checks::{CHANNEL, CHECKS, Check};
use integration_tests::deployment::{Deployment, Place};
use integration_tests::trial::{show_failures_below_their_names, trial};
use libtest_mimic::{Arguments, Failed, Trial};
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;

/// How many checks run at once unless `--test-threads` says otherwise: most of them wait for answers most of the time.
const THREADS: usize = 4;

/// How long one check may take: far longer than any needs, and short enough that a deployment which hangs is reported soon.
const CHECK_TIMEOUT: Duration = Duration::from_secs(45);

/// How long the deployment may take to become ready, in seconds.
const PATIENCE_SECONDS: &str = "60";

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads = arguments.test_threads.or(Some(THREADS));
    match run(&arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("tester: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whether all checks passed.
fn run(arguments: &Arguments) -> anyhow::Result<bool> {
    let place = place()?;
    let mut checks: Vec<&'static Check> = CHECKS.iter().collect();
    if !arguments.list {
        let has_redis = runtime().block_on(wait_until_ready(&place))?;
        let count = checks.len();
        checks.retain(|check| has_redis || check.subject != CHANNEL);
        println!("{} checks of {}", checks.len(), place.base_url);
        if !has_redis {
            let left_out = count - checks.len();
            println!("no Redis: {left_out} checks of the channel do not apply");
        }
        show_failures_below_their_names();
    }
    let place = Arc::new(place);
    let trials = checks.into_iter().map(|check| trial_of(check, place.clone())).collect();
    let conclusion = libtest_mimic::run(arguments, trials);
    ensure!(
        arguments.list || conclusion.num_passed + conclusion.num_failed > 0,
        "no check has such a name: --list names them all"
    );
    Ok(!conclusion.has_failed())
}

/// Where the environment says that the deployment is.
fn place() -> anyhow::Result<Place> {
    let base_url = variable("BASE_URL").unwrap_or_else(|| "http://127.0.0.1:8080".to_owned());
    let parsed = reqwest::Url::parse(&base_url).with_context(|| format!("BASE_URL is no URL: {base_url}"))?;
    ensure!(
        parsed.scheme() == "http" && parsed.has_host() && parsed.path() == "/" && parsed.query().is_none(),
        "BASE_URL is not of the form http://HOST:PORT: {base_url}"
    );
    Ok(Place {
        base_url: base_url.trim_end_matches('/').to_owned(),
        redis_url: variable("REDIS_URL"),
        channel: variable("REDIS_CHANNEL").unwrap_or_else(|| "events".to_owned()),
    })
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// Waits until the deployment is ready, and tells whether it publishes to a Redis.
async fn wait_until_ready(place: &Place) -> anyhow::Result<bool> {
    let seconds = variable("EVENTSIEVE_TESTER_PATIENCE").unwrap_or_else(|| PATIENCE_SECONDS.to_owned());
    let seconds = seconds
        .parse()
        .with_context(|| format!("EVENTSIEVE_TESTER_PATIENCE is no number of seconds: {seconds}"))?;
    let deployment = Deployment::at(place);
    let url = &place.base_url;
    deployment
        .ready_within(Duration::from_secs(seconds))
        .await
        .with_context(|| format!("{url} was not ready within {seconds} s (BASE_URL says where it is)"))?;
    deployment
        .has_redis()
        .await
        .with_context(|| format!("{url} is no eventsieve"))
}

/// One runtime for each check, with all of it on one thread: so is what it panics with.
fn runtime() -> Runtime {
    Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime needs nothing but some memory and a few file descriptors")
}

fn trial_of(check: &'static Check, place: Arc<Place>) -> Trial {
    let run = move || {
        let deployment = Deployment::at(&place);
        let checking = runtime().block_on(async { timeout(CHECK_TIMEOUT, check.run(&deployment)).await });
        checking.map_err(|_| Failed::from(format!("it had not come to an end within {CHECK_TIMEOUT:?}")))
    };
    trial(check.sentence(), run).with_kind(check.subject)
}
