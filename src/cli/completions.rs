//! `eventsieve completions`: what makes a shell complete the program's commands and flags.

use std::io::{Write, stdout};

use anyhow::{Context, Result};
use clap_complete::{Shell, generate};

use crate::cli::Cli;

/// Print what makes a shell complete the commands and flags of eventsieve
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  eventsieve completions bash > ~/.local/share/bash-completion/completions/eventsieve\n  eventsieve completions fish > ~/.config/fish/completions/eventsieve.fish"
)]
pub struct Args {
    /// The shell
    shell: Shell,
}

impl Args {
    /// Prints the shell's script on standard output.
    ///
    /// # Errors
    /// When standard output takes no more.
    pub fn run(self) -> Result<()> {
        // Into memory first, because the generator panics when it cannot write.
        let mut script = Vec::new();
        generate(self.shell, &mut Cli::shown(), env!("CARGO_PKG_NAME"), &mut script);
        stdout().write_all(&script).context("cannot print the script")
    }
}
