//! `eventsieve man`: the manual pages, made from the same texts as `--help`.

use std::fs;
use std::io::{self};
use std::path::PathBuf;

use crate::cli::print::print;
use anyhow::{Context, Result};
use clap::Command;
use clap_mangen::Man;

/// Print the manual page eventsieve(1), or write the pages of all commands into a directory
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  eventsieve man | man -l -\n  eventsieve man ~/.local/share/man/man1")]
pub(crate) struct Args {
    /// Directory to write eventsieve.1, eventsieve-serve.1 and so on into; it is created if it does not exist
    folder: Option<PathBuf>,
}

impl Args {
    /// Prints or writes the pages of `program`.
    pub(crate) fn run(self, program: Command) -> Result<()> {
        let mut program = program.disable_help_subcommand(true);
        program.build();
        let Some(folder) = self.folder else {
            let page = Page::new(&program)?;
            return print(&page.text, "the page").map(drop);
        };
        fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
        let commands = program.get_subcommands();
        let commands = commands.flat_map(|command| std::iter::once(command).chain(command.get_subcommands()));
        for command in std::iter::once(&program).chain(commands) {
            let page = Page::new(command)?;
            let file = folder.join(format!("{}.1", page.name));
            fs::write(&file, page.text).with_context(|| format!("cannot write {}", file.display()))?;
        }
        Ok(())
    }
}

/// A manual page in roff.
struct Page {
    /// What it is of: `eventsieve-serve`.
    name: String,
    text: String,
}

impl Page {
    fn new(command: &Command) -> io::Result<Self> {
        let name = command.get_display_name().unwrap_or(command.get_name()).to_owned();
        let mut text = Vec::new();
        Man::new(command.clone())
            .title(name.to_uppercase())
            .source(concat!("eventsieve ", env!("CARGO_PKG_VERSION")))
            .render(&mut text)?;
        // The examples stand after the help, and clap_mangen has no better word for what stands there.
        let text = ["Examples:", "Example:"]
            .iter()
            .fold(String::from_utf8_lossy(&text).into_owned(), |text, head| {
                text.replace(&format!("\n.SH EXTRA\n{head}\n"), "\n.SH EXAMPLES\n")
            });
        Ok(Self { name, text })
    }
}
