//! The command line: one variant and one file for each command.
//!
//! Every flag has an environment variable, and the flag wins. A command ends with exit code 0 when it did what it should, 64 when it was
//! called wrongly, and 1 when it failed.

pub mod completions;
pub mod demo;
pub mod healthcheck;
pub mod load;
pub mod man;
pub mod migrate;
pub mod openapi;
pub mod outbox;
pub mod prune;
pub mod serve;
pub mod stats;
pub mod tail;
pub mod target;
pub mod verify;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use crate::config::ConfigError;

/// `EX_USAGE` of BSD's `sysexits.h`.
const EXIT_USAGE: u8 = 64;

/// A production event log: publish as often as you like; each event is stored once, counted once, and handed to every subscriber
#[derive(Debug, Parser)]
#[command(version)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Serve(Box<serve::Args>),
    Demo(demo::Args),
    Load(load::Args),
    Tail(tail::Args),
    Stats(stats::Args),
    Verify(verify::Args),
    Outbox(outbox::Args),
    Migrate(migrate::Args),
    Prune(prune::Args),
    Healthcheck(healthcheck::Args),
    Openapi(openapi::Args),
    #[command(hide = true)]
    Completions(completions::Args),
    #[command(hide = true)]
    Man(man::Args),
}

/// The flags that are the program's own. Any other one without a command before it is a flag of `serve`.
const OWN_FLAGS: [&str; 4] = ["-h", "--help", "-V", "--version"];

impl Cli {
    /// Reads a command line, the program's name first. Without a command it is `serve`.
    ///
    /// # Errors
    /// What clap has to say instead, for [`explain`].
    pub fn read(arguments: impl IntoIterator<Item = OsString>) -> Result<Self, clap::Error> {
        let mut arguments: Vec<OsString> = arguments.into_iter().collect();
        let is_serve = arguments.get(1).is_none_or(|first| {
            let first = first.to_string_lossy();
            first.starts_with('-') && !OWN_FLAGS.contains(&first.as_ref())
        });
        if is_serve {
            arguments.insert(1.min(arguments.len()), "serve".into());
        }
        Self::try_parse_from(arguments)
    }

    /// Runs the command that was asked for, until it has ended.
    ///
    /// # Errors
    /// What the command failed with; [`exit_code`] says how the process should end then.
    pub async fn run(self) -> anyhow::Result<()> {
        match self.command {
            Command::Serve(args) => args.run().await,
            Command::Demo(args) => args.run().await,
            Command::Load(args) => args.run().await,
            Command::Tail(args) => args.run().await,
            Command::Stats(args) => args.run().await,
            Command::Verify(args) => args.run().await,
            Command::Outbox(args) => args.run().await,
            Command::Migrate(args) => args.run().await,
            Command::Prune(args) => args.run().await,
            Command::Healthcheck(args) => args.run().await,
            Command::Openapi(args) => args.run(),
            Command::Completions(args) => args.run(),
            Command::Man(args) => args.run(),
        }
    }

    /// The program without its hidden commands, for what is generated from it: clap's own generators name these, too.
    #[must_use]
    pub fn shown() -> clap::Command {
        let all = Self::command();
        let mut shown = clap::Command::new(env!("CARGO_PKG_NAME"))
            .version(env!("CARGO_PKG_VERSION"))
            .subcommand_required(true)
            .subcommands(all.get_subcommands().filter(|command| !command.is_hide_set()).cloned());
        if let Some(about) = all.get_about() {
            shown = shown.about(about.clone());
        }
        shown
    }
}

/// Flags that are fine one by one and wrong together; the text says what to change.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct UsageError(pub String);

/// The exit code that tells of `error`.
#[must_use]
pub fn exit_code(error: &anyhow::Error) -> ExitCode {
    if error.is::<UsageError>() || error.is::<ConfigError>() {
        ExitCode::from(EXIT_USAGE)
    } else {
        ExitCode::FAILURE
    }
}

/// Shows what clap has to say instead of running a command: help or the version on standard output, or what is wrong with the flags.
#[must_use]
pub fn explain(error: &clap::Error) -> ExitCode {
    let shown = error.print();
    match (error.use_stderr(), shown) {
        (true, _) => ExitCode::from(EXIT_USAGE),
        (false, Ok(())) => ExitCode::SUCCESS,
        (false, Err(_)) => ExitCode::FAILURE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_flags_fit_together() {
        Cli::command().debug_assert();
    }

    #[test]
    fn without_a_command_it_is_serve_and_its_flags_are_those_of_serve() {
        let read = |line: &str| Cli::read(line.split(' ').map(OsString::from));
        for line in ["eventsieve", "eventsieve --port 9000", "eventsieve serve --port 9000"] {
            assert!(matches!(read(line).unwrap().command, Command::Serve(_)), "{line}");
        }
        assert!(matches!(
            read("eventsieve migrate").unwrap().command,
            Command::Migrate(_)
        ));
        assert_eq!(
            read("eventsieve --version").unwrap_err().kind(),
            clap::error::ErrorKind::DisplayVersion
        );
        assert_eq!(
            read("eventsieve sevre").unwrap_err().kind(),
            clap::error::ErrorKind::InvalidSubcommand
        );
    }

    #[test]
    fn every_flag_has_an_environment_variable_and_a_help_text() {
        for command in Cli::command().get_subcommands() {
            for flag in command.get_arguments() {
                let name = format!("{} {}", command.get_name(), flag.get_id());
                assert!(flag.is_positional() || flag.get_env().is_some(), "{name}");
                assert!(flag.get_help().is_some(), "{name}");
            }
        }
    }

    #[test]
    fn the_long_help_of_every_command_has_an_example() {
        for mut command in Cli::command().get_subcommands().cloned() {
            let help = command.render_long_help().to_string();
            let examples = help.split("Example").nth(1).unwrap_or_default();
            let call = format!("\n  eventsieve {}", command.get_name());
            assert!(examples.contains(&call), "{help}");
        }
    }
}
