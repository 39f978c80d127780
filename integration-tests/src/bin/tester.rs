//! The tester: black-box checks of a running deployment, over HTTP and on its Redis channel.
//!
//! ```text
//! BASE_URL=http://127.0.0.1:8080 REDIS_URL=redis://127.0.0.1:6379/0 tester
//! ```
//!
//! | variable | default | meaning |
//! |---|---|---|
//! | `BASE_URL` | `http://127.0.0.1:8080` | the URL of the deployment |
//! | `REDIS_URL` | unset | the Redis that it publishes to; required if `/stats` has `"fanout":"redis"` |
//! | `REDIS_CHANNEL` | `events` | the channel |
//! | `EVENTSIEVE_TESTER_PATIENCE` | `60` | the number of seconds in which the deployment must become ready |
//!
//! `--list` prints the names of the checks, a part of a name as an argument selects checks, and `--help` shows all options. The tester
//! can run repeatedly and beside other traffic, because it uses topics of its own. The events of these topics stay in the log. The
//! exit code is 0 only if all checks passed.
//!
//! The checks themselves are in [`integration_tests::checks`].

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use integration_tests::checks::{CHANNEL, CHECKS, Check};
use integration_tests::deployment::{Deployment, Endpoints};
use integration_tests::trial::{show_failures_below_their_names, trial};
use libtest_mimic::{Arguments, Failed, Trial};
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;

/// The number of checks that run at once without `--test-threads`: most of them wait for answers most of the time.
const THREADS: usize = 4;

/// How long one check may take: far longer than any check needs, and short enough to report a hanging deployment soon.
const CHECK_TIMEOUT: Duration = Duration::from_secs(45);

/// The default of `EVENTSIEVE_TESTER_PATIENCE`.
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
    let endpoints = endpoints()?;
    let mut checks: Vec<&'static Check> = CHECKS.iter().collect();
    if !arguments.list {
        let has_redis = runtime().block_on(wait_until_ready(&endpoints))?;
        let count = checks.len();
        checks.retain(|check| has_redis || check.subject != CHANNEL);
        println!("{} checks of {}", checks.len(), endpoints.base_url);
        if !has_redis {
            let left_out = count - checks.len();
            println!("no Redis: {left_out} checks of the channel do not apply");
        }
        show_failures_below_their_names();
    }
    let endpoints = Arc::new(endpoints);
    let trials = checks
        .into_iter()
        .map(|check| trial_of(check, endpoints.clone()))
        .collect();
    let conclusion = libtest_mimic::run(arguments, trials);
    ensure!(
        arguments.list || conclusion.num_passed + conclusion.num_failed > 0,
        "no check has this name, --list shows all"
    );
    Ok(!conclusion.has_failed())
}

/// The addresses of the deployment in the environment.
fn endpoints() -> anyhow::Result<Endpoints> {
    let base_url = variable("BASE_URL").unwrap_or_else(|| "http://127.0.0.1:8080".to_owned());
    let parsed = reqwest::Url::parse(&base_url).with_context(|| format!("BASE_URL is not a URL: {base_url}"))?;
    ensure!(
        parsed.scheme() == "http" && parsed.has_host() && parsed.path() == "/" && parsed.query().is_none(),
        "BASE_URL is not of the form http://HOST:PORT: {base_url}"
    );
    Ok(Endpoints {
        base_url: base_url.trim_end_matches('/').to_owned(),
        redis_url: variable("REDIS_URL"),
        channel: variable("REDIS_CHANNEL").unwrap_or_else(|| "events".to_owned()),
    })
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// Waits until the deployment is ready, and returns whether it publishes to a Redis.
async fn wait_until_ready(endpoints: &Endpoints) -> anyhow::Result<bool> {
    let seconds = variable("EVENTSIEVE_TESTER_PATIENCE").unwrap_or_else(|| PATIENCE_SECONDS.to_owned());
    let seconds = seconds
        .parse()
        .with_context(|| format!("EVENTSIEVE_TESTER_PATIENCE is not a number of seconds: {seconds}"))?;
    let deployment = Deployment::at(endpoints);
    let url = &endpoints.base_url;
    deployment
        .ready_within(Duration::from_secs(seconds))
        .await
        .with_context(|| {
            format!("{url} was not ready within {seconds} s: set BASE_URL to the URL of the deployment")
        })?;
    deployment
        .has_redis()
        .await
        .with_context(|| format!("{url} is not an eventsieve"))
}

/// One runtime for each check, on one thread, to which its panics belong.
fn runtime() -> Runtime {
    Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime needs nothing but some memory and a few file descriptors")
}

fn trial_of(check: &'static Check, endpoints: Arc<Endpoints>) -> Trial {
    let run = move || {
        let deployment = Deployment::at(&endpoints);
        let checking = runtime().block_on(async { timeout(CHECK_TIMEOUT, check.run(&deployment)).await });
        checking.map_err(|_| Failed::from(format!("the check did not end within {CHECK_TIMEOUT:?}")))
    };
    trial(check.name(), run).with_kind(check.subject)
}
