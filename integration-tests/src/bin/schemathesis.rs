//! Compares what the service answers with its OpenAPI document: schemathesis makes requests from the document, within its rules
//! and beyond them, and reads the answers by it. Then the world is checked: whatever was sent, rows and counters agree.
//!
//! `make schemathesis` runs it, on a throwaway PostgreSQL and Redis and on the embedded store. `integration-tests/schemathesis` holds what
//! is asked for, and what a schema cannot say. Arguments are passed on to schemathesis.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use integration_tests::redis::Outlet;
use integration_tests::service::Service;
use integration_tests::world::World;
use tokio::process::Command;
use tokio::time::timeout;

/// Where `integration-tests/setup schemathesis` installs the program.
const PROGRAM: &str = "target/schemathesis/bin/schemathesis";

/// A run takes half a minute on two slow cores. One that takes so long meets a service that does not answer.
const RUN_MAX: Duration = Duration::from_secs(600);

const CONFIGURATION: &str = "integration-tests/schemathesis/schemathesis.toml";

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let outlet = Outlet::shared();
    let postgres = World::new().await;
    let service = postgres.serve_with(postgres.settings().with_redis(&outlet)).await;
    let mut agrees = compare(&postgres, &service).await?;
    outlet.clean_up().await;
    let sqlite = World::embedded();
    agrees &= compare(&sqlite, &sqlite.serve().await).await?;
    Ok(if agrees { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Whether all that `service` answers is in its document.
async fn compare(world: &World, service: &Service) -> anyhow::Result<bool> {
    println!("{}", world.store_name());
    let mut program = Command::new(PROGRAM);
    program
        .args(["--config-file", CONFIGURATION, "run"])
        .arg(format!("{}/openapi.json", service.url()))
        .args(std::env::args().skip(1))
        .kill_on_drop(true);
    let status = timeout(RUN_MAX, program.status())
        .await
        .with_context(|| format!("it had not come to an end within {RUN_MAX:?}"))??;
    world.run(&["verify"]).await.ended_with(0);
    Ok(status.success())
}
