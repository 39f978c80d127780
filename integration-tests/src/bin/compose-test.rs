//! Runs the tests of the deployment, one after the other, on the Docker engine of this machine. The images must have been built;
//! `make compose-test` does both.

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::bail;
use integration_tests::containers::engine::{clean_up, clean_up_after_the_dead};
use integration_tests::containers::scenarios;
use integration_tests::trial::{show_failures_at_once_and_below_their_names, trial};
use libtest_mimic::Arguments;
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

fn main() -> ExitCode {
    let arguments = Arguments {
        // They share containers.
        test_threads: Some(1),
        ..Arguments::from_args()
    };
    let runtime = Arc::new(Runtime::new().expect("threads for a runtime"));
    let (interruption, interrupted) = watch::channel(false);
    let signals = async move {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut hangup = signal(SignalKind::hangup())?;
        tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {}, _ = hangup.recv() => {} }
        interruption.send_replace(true);
        anyhow::Ok(())
    };
    let trials = scenarios()
        .into_iter()
        .map(|scenario| {
            let (runtime, mut interrupted) = (Arc::clone(&runtime), interrupted.clone());
            trial(scenario.name, move || {
                let outcome = runtime.block_on(async {
                    tokio::select! {
                        biased;
                        _ = interrupted.wait_for(|interrupted| *interrupted) => bail!("interrupted"),
                        () = (scenario.run)() => Ok(()),
                    }
                });
                Ok(outcome?)
            })
        })
        .collect();
    if arguments.list {
        return libtest_mimic::run(&arguments, trials).exit_code();
    }
    show_failures_at_once_and_below_their_names();
    runtime.spawn(signals);
    runtime.block_on(clean_up_after_the_dead());
    let conclusion = libtest_mimic::run(&arguments, trials);
    runtime.block_on(clean_up());
    if conclusion.num_passed + conclusion.num_failed == 0 {
        eprintln!("compose-test: no test has this name, --list shows all");
        return ExitCode::FAILURE;
    }
    conclusion.exit_code()
}
