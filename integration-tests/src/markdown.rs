//! The project's Markdown pages as the tests read them: their code blocks, and the commands in these.

use std::fs;
use std::path::{Path, PathBuf};

/// A comment directly before a block of commands says that no test runs it, and why: `<!-- not run: it takes an hour -->`.
const NOT_RUN: &str = "<!-- not run: ";

/// A command of a page, and the output that the page shows below it.
#[derive(Debug)]
pub struct Example {
    /// The command.
    pub command: String,
    /// Its output.
    pub output: String,
}

/// The root of the repository.
pub fn root() -> PathBuf {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent();
    workspace.expect("this crate is in a folder of the repository").into()
}

/// Every page of the repository, as its path from the root: those in the root itself, in `docs` and in `examples`.
pub fn pages() -> Vec<String> {
    let mut pages = Vec::new();
    let mut folders = vec![String::new()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(root().join(&folder)).expect("a folder of the repository") {
            let entry = entry.expect("an entry of a folder");
            let name = entry.file_name().into_string().expect("our names are UTF-8");
            let path = format!("{folder}{name}");
            if entry.path().is_dir() {
                if !folder.is_empty() || ["docs", "examples"].contains(&name.as_str()) {
                    folders.push(format!("{path}/"));
                }
            } else if name.ends_with(".md") {
                pages.push(path);
            }
        }
    }
    pages.sort();
    pages
}

/// The text of a page, given its path from the root of the repository.
pub fn page(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The part of a page between two texts.
pub fn section<'a>(page: &'a str, from: &str, to: &str) -> &'a str {
    let from = page.split_once(from).unwrap_or_else(|| panic!("no {from}")).1;
    from.split_once(to).unwrap_or_else(|| panic!("no {to}")).0
}

/// The blocks of one language in a text, without those that are marked as not run.
pub fn blocks<'a>(text: &'a str, language: &str) -> Vec<&'a str> {
    let fence = format!("```{language}\n");
    let parts: Vec<&str> = text.split(fence.as_str()).collect();
    let is_run = |before: &str| {
        let last = before.trim_end().lines().next_back().unwrap_or_default();
        !last.starts_with(NOT_RUN)
    };
    let bodies = parts.windows(2).filter(|pair| is_run(pair[0])).map(|pair| pair[1]);
    bodies.map(|body| body.split("```").next().unwrap_or(body)).collect()
}

/// The commands of a page, from its `console` blocks in their order.
pub fn examples(page: &str) -> Vec<Example> {
    blocks(page, "console").into_iter().flat_map(block_examples).collect()
}

/// The commands of a block: each begins with a prompt, and continues while a quotation is open.
fn block_examples(block: &str) -> Vec<Example> {
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
            (None, None) => panic!("a block that does not begin with a prompt: {line}"),
        }
    }
    examples
}
