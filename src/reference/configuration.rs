//! `configuration.md`: every setting of every command.

use std::collections::HashSet;

use clap::{Arg, Command, CommandFactory};

use super::{check, code, head, row};
use crate::cli::Cli;
use crate::config::VARIABLES;

const INTRODUCTION: &str = "\
# Configuration

Every setting is a flag and an environment variable; the flag wins. A command has the settings of its own table below. If it opens the
store, it also has `DATABASE_URL`, `DATABASE_URL_FILE` and `DEDUP_DB`. An empty `DATABASE_URL`, `DATABASE_URL_FILE`, `DEDUP_DB`,
`REDIS_URL`, `REDIS_URL_FILE` or `OTEL_EXPORTER_OTLP_ENDPOINT` counts as unset. A setting that several commands share is listed with the
first of them.

A TIME is a number with a unit: `500ms`, `15s`, `2m`, `12h`, `30d`. A SIZE is a number of bytes, with or without a unit: `4096`, `64KiB`,
`10MiB`. All errors in the configuration are reported together at the start, and the command ends with exit code 64.
";

#[test]
fn configuration_page_is_current() {
    let mut page = INTRODUCTION.to_owned();
    let mut seen = HashSet::new();
    for command in Cli::command()
        .get_subcommands()
        .filter(|command| !command.is_hide_set())
    {
        page.push_str(&command_section(command, &mut seen));
    }
    page.push_str("\n## Variables without a flag\n\n");
    page.push_str(&head(&["variable", "meaning"]));
    for (variable, meaning) in VARIABLES {
        page.push_str(&row(&[&code(variable), meaning]));
    }
    check("configuration.md", &page);
}

/// The settings of a command that no command before it has in the same way, by the headings of its help.
fn command_section(command: &Command, seen: &mut HashSet<String>) -> String {
    let mut groups: Vec<(Option<&str>, String)> = Vec::new();
    for flag in command.get_opts().filter(|flag| flag.get_env().is_some()) {
        let setting = setting(flag);
        if !seen.insert(setting.clone()) {
            continue;
        }
        let heading = flag.get_help_heading();
        match groups.iter_mut().find(|(known, _)| *known == heading) {
            Some((_, rows)) => rows.push_str(&setting),
            None => groups.push((heading, setting)),
        }
    }
    if groups.is_empty() {
        return String::new();
    }
    let mut section = format!("\n## {}\n", code(command.get_name()));
    for (heading, rows) in groups {
        if let Some(heading) = heading {
            section.push_str(&format!("\n### {heading}\n"));
        }
        section.push_str(&format!(
            "\n{}{rows}",
            head(&["variable", "flag", "default", "meaning"])
        ));
    }
    section
}

fn setting(flag: &Arg) -> String {
    let variable = flag.get_env().map(|name| name.to_string_lossy().into_owned());
    let long = flag.get_long().map(|name| format!("--{name}"));
    let defaults = flag.get_default_values().iter();
    let defaults: Vec<String> = defaults.map(|value| code(&value.to_string_lossy())).collect();
    let help = flag.get_help().map(ToString::to_string).unwrap_or_default();
    row(&[
        &code(&variable.unwrap_or_default()),
        &code(&long.unwrap_or_default()),
        &defaults.join(" "),
        &help,
    ])
}
