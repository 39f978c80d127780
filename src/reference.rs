//! The reference in `docs/reference`: pages that are made from the code.
//!
//! A test for each page compares it with what the code says. `make reference` writes all pages.

mod alerts;
mod cli;
mod configuration;
mod http;
mod metrics;

use std::fs;
use std::path::{Path, PathBuf};

/// Set to write the pages instead of comparing them.
const UPDATE: &str = "UPDATE_DOCS";

/// Begins every page.
const NOTE: &str = "<!-- Made from the code by `make reference`. Do not edit. -->\n\n";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The text of a file of this repository.
fn file(name: &str) -> String {
    fs::read_to_string(root().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Compares a page with its text, or writes it.
#[expect(clippy::disallowed_methods, reason = "a switch of the tests, not of the program")]
fn check(page: &str, text: &str) {
    let path = root().join("docs/reference").join(page);
    let text = format!("{NOTE}{}\n", text.trim());
    if std::env::var_os(UPDATE).is_some() {
        fs::write(path, text).unwrap();
        return;
    }
    let current = fs::read_to_string(path).unwrap_or_default();
    if let Some((number, line)) = text
        .lines()
        .enumerate()
        .find(|(number, line)| current.lines().nth(*number) != Some(line))
    {
        panic!(
            "docs/reference/{page} is not what the code says: `make reference` writes it. Line {} should be:\n{line}",
            number + 1
        );
    }
    assert!(
        current == text,
        "docs/reference/{page} has lines too many: `make reference` writes it"
    );
}

/// A row of a table.
fn row(cells: &[&str]) -> String {
    let cells: Vec<String> = cells.iter().map(|cell| escaped(cell)).collect();
    format!("| {} |\n", cells.join(" | ").trim())
}

/// The first two lines of a table.
fn head(cells: &[&str]) -> String {
    row(cells) + "|" + &"---|".repeat(cells.len()) + "\n"
}

/// A text for one cell of a table.
fn escaped(cell: &str) -> String {
    cell.trim().replace('\n', " ").replace('|', "\\|")
}

/// A name in code font; nothing for an empty one.
fn code(name: &str) -> String {
    if name.is_empty() {
        String::new()
    } else {
        format!("`{name}`")
    }
}

/// The README and the pages in `docs`.
fn documents() -> Vec<PathBuf> {
    let mut pages = vec![root().join("README.md")];
    let mut folders = vec![root().join("docs")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|end| end == "md") {
                pages.push(path);
            }
        }
    }
    pages
}
