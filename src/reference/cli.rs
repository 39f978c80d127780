//! `cli.md`: the help of every command.

use clap::CommandFactory;

use super::{check, code, head, row};
use crate::cli::Cli;

const INTRODUCTION: &str = "\
# Commands

`eventsieve COMMAND --help` prints the help of a command. Without a command, `eventsieve` is `eventsieve serve`. Exit codes: 0 done, 1 failed,
64 wrong usage or configuration. `eventsieve completions SHELL` prints completions for bash, zsh, fish, elvish or powershell;
`eventsieve man FOLDER` writes the manual pages.
";

#[test]
fn command_page_is_current() {
    let mut program = Cli::command().disable_help_subcommand(true);
    program.build();
    let mut list = head(&["command", "purpose"]);
    let mut sections = String::new();
    for command in program.get_subcommands().filter(|command| !command.is_hide_set()) {
        let name = command.get_name();
        let about = command.get_about().map(ToString::to_string).unwrap_or_default();
        list.push_str(&row(&[&format!("[{}](#{name})", code(name)), &about]));
        // The help otherwise shows what a variable is set to here and now.
        let command = command.clone().mut_args(|flag| flag.hide_env_values(true));
        let help = command.clone().render_long_help().to_string();
        let lines: Vec<&str> = help.lines().map(str::trim_end).collect();
        sections.push_str(&format!(
            "\n## {name}\n\n```text\n{}\n```\n",
            lines.join("\n").trim_end()
        ));
        for below in command.get_subcommands() {
            let below = below.clone().mut_args(|flag| flag.hide_env_values(true));
            let help = below.clone().render_long_help().to_string();
            let lines: Vec<&str> = help.lines().map(str::trim_end).collect();
            let below = below.get_name();
            sections.push_str(&format!(
                "\n### {name} {below}\n\n```text\n{}\n```\n",
                lines.join("\n").trim_end()
            ));
        }
    }
    check("cli.md", &format!("{INTRODUCTION}\n{list}{sections}"));
}
