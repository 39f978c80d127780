//! The README as the tests read it: its sections, its blocks, and the commands in them.

use std::fs;
use std::path::Path;

/// A command of the README, and what it shows below it.
#[derive(Debug)]
pub struct Example {
    /// The command.
    pub command: String,
    /// What it prints.
    pub output: String,
}

/// All of it.
pub fn readme() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md");
    fs::read_to_string(path).expect("the README lies beside this crate")
}

/// What lies between two headings.
pub fn section<'a>(readme: &'a str, from: &str, to: &str) -> &'a str {
    let from = readme.split_once(from).unwrap_or_else(|| panic!("no heading {from}")).1;
    from.split_once(to).unwrap_or_else(|| panic!("no heading {to}")).0
}

/// The blocks of one language in a text.
pub fn blocks<'a>(text: &'a str, language: &str) -> Vec<&'a str> {
    let fence = format!("```{language}\n");
    let bodies = text.split(fence.as_str()).skip(1);
    bodies.map(|rest| rest.split("```").next().unwrap_or(rest)).collect()
}

/// The commands of a block: each begins with a prompt, and goes on for as long as a quotation is open.
pub fn examples(block: &str) -> Vec<Example> {
    let mut examples: Vec<Example> = Vec::new();
    let is_open = |command: &str| command.matches('\'').count() % 2 == 1;
    for line in block.lines() {
        match (line.strip_prefix("$ "), examples.last_mut()) {
            (_, Some(last)) if is_open(&last.command) => {
                last.command.push('\n');
                last.command.push_str(line);
            }
            (Some(command), _) => examples.push(Example {
                command: command.to_owned(),
                output: String::new(),
            }),
            (None, Some(last)) => {
                last.output.push_str(line);
                last.output.push('\n');
            }
            (None, None) => panic!("a block that begins without a prompt: {line}"),
        }
    }
    examples
}
