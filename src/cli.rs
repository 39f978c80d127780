//! The command line: one variant and one file for each command.
//!
//! Every flag has an environment variable, and the flag wins. A command ends with exit code 0 when it succeeded, 64 when its usage or
//! configuration is wrong, and 1 when it failed.

pub(crate) mod completions;
pub(crate) mod conflicts;
pub(crate) mod demo;
pub(crate) mod error;
pub(crate) mod event_text;
#[cfg(test)]
mod fake;
pub(crate) mod get;
pub(crate) mod healthcheck;
pub(crate) mod keys;
pub(crate) mod load;
pub(crate) mod ls;
pub(crate) mod man;
pub(crate) mod migrate;
pub(crate) mod openapi;
pub(crate) mod outbox;
pub(crate) mod print;
mod progress;
pub(crate) mod prune;
pub(crate) mod publish;
pub(crate) mod send;
pub(crate) mod serve;
pub(crate) mod since;
pub(crate) mod stats;
pub(crate) mod table;
pub(crate) mod tail;
pub(crate) mod target;
pub(crate) mod text;
pub(crate) mod topics;
pub(crate) mod verify;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use self::error::EXIT_USAGE;

pub use self::error::exit_code;
pub use self::print::complain;

/// An event log: publish as often as you like; each event is stored once, counted once, and delivered to every subscriber
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
    Publish(publish::Args),
    Get(get::Args),
    Ls(ls::Args),
    Topics(topics::Args),
    Conflicts(conflicts::Args),
    Tail(Box<tail::Args>),
    Stats(stats::Args),
    Load(load::Args),
    Verify(verify::Args),
    Outbox(outbox::Args),
    Migrate(migrate::Args),
    Prune(prune::Args),
    Keys(keys::Args),
    Healthcheck(healthcheck::Args),
    Openapi(openapi::Args),
    #[command(hide = true)]
    Completions(completions::Args),
    #[command(hide = true)]
    Man(man::Args),
}

/// The flags of the program itself. Any other flag without a command before it is a flag of `serve`.
const OWN_FLAGS: [&str; 4] = ["-h", "--help", "-V", "--version"];

impl Cli {
    /// Reads a command line, the program's name first. Without a command it is `serve`. What clap has to say instead is for
    /// [`explain`].
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

    /// Runs the command until it has ended. [`exit_code`] gives the exit code for an error.
    pub async fn run(self) -> anyhow::Result<()> {
        match self.command {
            Command::Serve(args) => args.run().await,
            Command::Demo(args) => args.run().await,
            Command::Publish(args) => args.run().await,
            Command::Get(args) => args.run().await,
            Command::Ls(args) => args.run().await,
            Command::Topics(args) => args.run().await,
            Command::Conflicts(args) => args.run().await,
            Command::Tail(args) => args.run().await,
            Command::Stats(args) => args.run().await,
            Command::Load(args) => args.run().await,
            Command::Verify(args) => args.run().await,
            Command::Outbox(args) => args.run().await,
            Command::Migrate(args) => args.run().await,
            Command::Prune(args) => args.run().await,
            Command::Keys(args) => args.run().await,
            Command::Healthcheck(args) => args.run().await,
            Command::Openapi(args) => args.run(),
            Command::Completions(args) => args.run(Self::shown()),
            Command::Man(args) => args.run(Self::shown()),
        }
    }

    /// The program without its hidden commands: clap's generators would show those, too.
    fn shown() -> clap::Command {
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

/// Prints what clap has to say instead of running a command: help or the version on standard output, or what is wrong with the flags.
pub fn explain(error: &clap::Error) -> ExitCode {
    let printed = error.print();
    match (error.use_stderr(), printed) {
        (true, _) => ExitCode::from(EXIT_USAGE),
        (false, Ok(())) => ExitCode::SUCCESS,
        (false, Err(_)) => ExitCode::FAILURE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_fit_together() {
        Cli::command().debug_assert();
    }

    #[test]
    fn without_a_command_it_is_serve() {
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
    fn every_flag_has_a_variable_and_a_help_text() {
        for (command_name, command) in all(&Cli::command()) {
            for flag in command.get_arguments() {
                let name = format!("{command_name} {}", flag.get_id());
                assert!(flag.is_positional() || flag.get_env().is_some(), "{name}");
                assert!(flag.get_help().is_some(), "{name}");
            }
        }
    }

    /// All commands, those below another one too, each by its whole name.
    fn all(program: &clap::Command) -> Vec<(String, clap::Command)> {
        let mut all = Vec::new();
        for command in program.get_subcommands() {
            all.push((command.get_name().to_owned(), command.clone()));
            for below in command.get_subcommands() {
                let name = format!("{} {}", command.get_name(), below.get_name());
                all.push((name, below.clone()));
            }
        }
        all
    }

    #[test]
    fn the_help_of_every_command_has_an_example() {
        for (name, mut command) in all(&Cli::command()) {
            let help = command.render_long_help().to_string();
            let examples = help.split("Example").nth(1).unwrap_or_default();
            let call = format!("\n  eventsieve {name}");
            assert!(examples.contains(&call), "{help}");
        }
    }

    /// The help without the width of a terminal and the variables of this process.
    fn help(name: &str, command: &clap::Command) -> String {
        let mut command = command.clone().mut_args(|flag| flag.hide_env_values(true));
        command = command.bin_name(format!("eventsieve {name}"));
        command.render_long_help().to_string()
    }

    #[test]
    fn help_of_every_command_is_as_reviewed() {
        for (name, command) in all(&Cli::command()) {
            insta::assert_snapshot!(format!("help_{}", name.replace(' ', "_")), help(&name, &command));
        }
    }
}
