//! `eventsieve completions`: the script that makes a shell complete commands and flags.

use crate::cli::print::print;
use anyhow::Result;
use clap::Command;
use clap_complete::{Shell, generate};

/// Print the script that makes a shell complete the commands and flags of eventsieve
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  eventsieve completions bash > ~/.local/share/bash-completion/completions/eventsieve\n  eventsieve completions fish > ~/.config/fish/completions/eventsieve.fish"
)]
pub(crate) struct Args {
    /// Shell to print the script for
    shell: Shell,
}

impl Args {
    /// Prints the script for `program` on standard output.
    pub(crate) fn run(self, mut program: Command) -> Result<()> {
        // Into memory first, because the generator panics when it cannot write.
        let mut script = Vec::new();
        generate(self.shell, &mut program, env!("CARGO_PKG_NAME"), &mut script);
        print(&String::from_utf8_lossy(&script), "the script").map(drop)
    }
}
