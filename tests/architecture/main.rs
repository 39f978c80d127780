//! The architecture of the crate, read from its source by a parser.
//!
//! - A module imports only from the layers below its own, as the table in `src/lib.rs` lists them.
//! - A library is named only by the modules in [`ALLOWED`].
//! - Files do not import from each other in a circle. A file imports from another one if its code names an item that the
//!   other one defines; `references.rs` says what counts.
//! - Files and the crate documentation are short.
//!
//! Code under `#[cfg(test)]` is left out everywhere.

mod circles;
mod documentation;
mod example;
mod references;
mod tree;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use circles::circles;
use documentation::Documentation;
use references::Target;
use tree::Tree;

/// Which modules may name which libraries or modules of `std`. A module is a path in the crate, with everything below it.
const ALLOWED: [(&str, &[&str]); 9] = [
    ("prometheus", &["metrics"]),
    ("rustix", &["cli::stats", "metrics", "serve::handles", "store::sqlite"]),
    ("sqlx", &["store"]),
    ("rusqlite", &["store"]),
    ("axum", &["http"]),
    ("redis", &["sink", "cli::tail"]),
    ("opentelemetry", &["telemetry"]),
    ("opentelemetry_sdk", &["telemetry"]),
    ("std::env", &["config", "telemetry"]),
];

/// Circles of imports that are known and not yet removed: the files of each. A circle that has gone must leave this list.
const KNOWN_CIRCLES: [&[&str]; 0] = [];

/// The most lines of a file that is not a test.
const LINES_MAX: usize = 350;

/// The most words of the crate documentation.
const WORDS_MAX: usize = 600;

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

fn documentation() -> Documentation {
    let text = fs::read_to_string(source().join("lib.rs")).expect("the crate has a root");
    Documentation::of(&text)
}

#[test]
fn modules_import_only_from_lower_layers() {
    let tree = Tree::read(&source());
    let layers = documentation().layers();
    let layer = |module: &str| {
        *layers
            .get(module)
            .unwrap_or_else(|| panic!("the table of layers in lib.rs does not name `{module}`"))
    };
    let mut wrong = BTreeSet::new();
    for index in 0..tree.modules.len() {
        let Some(own) = tree.top_level(index) else {
            continue;
        };
        for target in tree.references(index) {
            let (Target::Item(other) | Target::Module(other)) = target else {
                continue;
            };
            if let Some(other) = tree.top_level(other)
                && other != own
                && layer(other) >= layer(own)
            {
                wrong.insert(format!("{} imports from {other}", tree.modules[index].file));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    let modules: BTreeSet<&str> = (0..tree.modules.len())
        .filter_map(|index| tree.top_level(index))
        .collect();
    let listed: BTreeSet<&str> = layers.keys().map(String::as_str).collect();
    assert_eq!(
        listed, modules,
        "the modules in lib.rs's table of layers, and those that exist"
    );
}

#[test]
fn libraries_are_named_only_where_allowed() {
    let tree = Tree::read(&source());
    let mut wrong = BTreeSet::new();
    let mut named = BTreeSet::new();
    for (index, module) in tree.modules.iter().enumerate() {
        for target in tree.references(index) {
            let Target::Library(path) = target else {
                continue;
            };
            let path = path.join("::");
            for (library, modules) in ALLOWED.iter().filter(|(library, _)| is_in(&path, library)) {
                named.insert(*library);
                if !modules.iter().any(|allowed| is_in(&module.name(), allowed)) {
                    wrong.insert(format!("{} names {library}", module.file));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    let listed: BTreeSet<&str> = ALLOWED.iter().map(|(library, _)| *library).collect();
    assert_eq!(named, listed, "the libraries that are named, and those with a rule");
}

/// Whether a path is `outer` or lies below it.
fn is_in(path: &str, outer: &str) -> bool {
    let rest = path.strip_prefix(outer);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

#[test]
fn files_do_not_import_in_circles() {
    let tree = Tree::read(&source());
    let circles = circles(&tree);
    let is_known = |files: &BTreeSet<&str>| {
        KNOWN_CIRCLES
            .iter()
            .any(|known| files.iter().copied().eq(known.iter().copied()))
    };
    let new: String = circles
        .iter()
        .filter(|circle| !is_known(&circle.files))
        .map(|circle| format!("\n{circle}"))
        .collect();
    assert!(new.is_empty(), "files import from each other in a circle:\n{new}");
    assert_eq!(
        circles.len(),
        KNOWN_CIRCLES.len(),
        "a circle of KNOWN_CIRCLES has gone: remove it"
    );
}

#[test]
fn files_that_are_not_tests_are_short() {
    let tree = Tree::read(&source());
    let files: BTreeSet<&str> = tree.modules.iter().map(|module| module.file.as_str()).collect();
    let lines = |file: &str| {
        let text = fs::read_to_string(source().join(file)).expect("a file of the crate");
        text.lines().count()
    };
    let long: Vec<String> = files
        .into_iter()
        .chain(["main.rs"])
        .map(|file| (file, lines(file)))
        .filter(|(_, lines)| *lines > LINES_MAX)
        .map(|(file, lines)| format!("{file} has {lines} lines"))
        .collect();
    assert!(long.is_empty(), "{long:#?}");
}

#[test]
fn the_crate_documentation_is_short() {
    let words = documentation().words();
    assert!((100..=WORDS_MAX).contains(&words), "{words} words");
}
