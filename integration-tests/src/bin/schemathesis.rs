//! Compares the answers of the service with its OpenAPI document: schemathesis generates valid and invalid requests from the
//! document, and validates the answers. Then `verify` must find that rows and counters agree.
//!
//! `make schemathesis` runs it on a temporary PostgreSQL and Redis, and on the embedded store. `integration-tests/schemathesis`
//! contains its configuration, and rules that a schema cannot express. Arguments are passed on to schemathesis.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use integration_tests::redis::RedisTarget;
use integration_tests::service::{Service, Settings};
use integration_tests::world::World;
use tokio::process::Command;
use tokio::time::timeout;

/// Where `integration-tests/setup schemathesis` installs the program.
const PROGRAM: &str = "target/schemathesis/bin/schemathesis";

/// A run takes half a minute on two slow cores. One that takes this long has met a service that does not answer.
const RUN_MAX: Duration = Duration::from_secs(600);

/// The key of the requests: those that are generated have none, or another one, too.
const KEY: &str = "a-key-for-everything-of-32-characters";

const CONFIGURATION: &str = "integration-tests/schemathesis/schemathesis.toml";

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let target = RedisTarget::shared();
    let postgres = World::new().await;
    let service = postgres.serve_with(closed(&postgres).with_redis(&target)).await;
    let mut agrees = compare(&postgres, &service).await?;
    target.clean_up().await;
    let sqlite = World::embedded();
    agrees &= compare(&sqlite, &sqlite.serve_with(closed(&sqlite)).await).await?;
    Ok(if agrees { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Settings under which every route that names a scope needs a key.
fn closed(world: &World) -> Settings {
    let settings = world.settings().with("EVENTSIEVE_ANONYMOUS", "");
    settings.with("EVENTSIEVE_ADMIN_KEY", KEY)
}

/// Whether all answers of `service` agree with its document.
async fn compare(world: &World, service: &Service) -> anyhow::Result<bool> {
    println!("{}", world.store_name());
    let mut program = Command::new(PROGRAM);
    program
        .args(["--config-file", CONFIGURATION, "run"])
        .arg(format!("{}/openapi.json", service.url()))
        .args(["--header", &format!("Authorization: Bearer {KEY}")])
        .args(std::env::args().skip(1))
        .kill_on_drop(true);
    let status = timeout(RUN_MAX, program.status())
        .await
        .with_context(|| format!("schemathesis did not end within {RUN_MAX:?}"))??;
    world.run(&["verify"]).await.ended_with(0);
    Ok(status.success())
}
