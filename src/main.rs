//! The program: parse, dispatch, exit code.

use std::{process::ExitCode, time::Duration};

use eventsieve::cli::{self, Cli};
use tokio::runtime::Runtime;

/// What is left behind when a command has ended is a blocking read (of standard input, for example), which nothing can cancel.
const LEFTOVER_TIMEOUT: Duration = Duration::from_millis(100);

fn main() -> ExitCode {
    match Cli::read(std::env::args_os()) {
        Ok(cli) => run(cli).unwrap_or_else(|error| {
            eprintln!("eventsieve: {error:#}");
            cli::exit_code(&error)
        }),
        Err(error) => cli::explain(&error),
    }
}

fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    let runtime = Runtime::new()?;
    let outcome = runtime.block_on(cli.run());
    runtime.shutdown_timeout(LEFTOVER_TIMEOUT);
    outcome.map(|()| ExitCode::SUCCESS)
}
