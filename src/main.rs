//! The program: parse, dispatch, exit code.

use std::{process::ExitCode, time::Duration};

use eventsieve::cli::{self, Cli};
use eventsieve::telemetry;
use tokio::runtime::Runtime;

/// How long the exit waits for blocking reads (of standard input, for example), which cannot be cancelled.
const LEFTOVER_TIMEOUT: Duration = Duration::from_millis(100);

fn main() -> ExitCode {
    match Cli::read(std::env::args_os()) {
        Ok(cli) => run(cli).unwrap_or_else(|error| {
            cli::complain(&format!("eventsieve: {error:#}"));
            cli::exit_code(&error)
        }),
        Err(error) => cli::explain(&error),
    }
}

fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    let runtime = Runtime::new()?;
    let outcome = runtime.block_on(cli.run());
    runtime.shutdown_timeout(LEFTOVER_TIMEOUT);
    telemetry::end_log();
    outcome.map(|()| ExitCode::SUCCESS)
}
