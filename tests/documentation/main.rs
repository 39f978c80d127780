//! The documentation: its links lead somewhere, its summary is complete, and the tests that it names exist.

mod markdown;
mod tests_named;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Component, Path, PathBuf};

use markdown::{Page, Table};
use tests_named::Tests;

/// The most lines of the README.
const README_LINES_MAX: usize = 250;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every Markdown file of the repository, by its path from the root.
fn pages() -> BTreeMap<PathBuf, Page> {
    let in_folders = ["docs", "examples", ".github"].map(|folder| root().join(folder));
    let in_folders = in_folders.iter().flat_map(|folder| files(folder));
    entries(root())
        .into_iter()
        .chain(in_folders)
        .filter(|path| path.extension().is_some_and(|end| end == "md"))
        .map(|path| {
            let page = Page::of(&text(&path));
            (
                path.strip_prefix(root()).expect("a path below the root").to_owned(),
                page,
            )
        })
        .collect()
}

/// All files below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    entries(folder)
        .into_iter()
        .flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] })
        .collect()
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    entries.map(|entry| entry.expect("an entry").path()).collect()
}

fn text(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The path that a relative link on a page leads to; nothing if it leads out of the repository.
fn target(page: &Path, link: &str) -> Option<PathBuf> {
    let mut target = page.parent().expect("a page is in a folder").to_owned();
    for part in Path::new(link).components() {
        match part {
            Component::Normal(name) => target.push(name),
            Component::CurDir => {}
            Component::ParentDir if target.pop() => {}
            _ => return None,
        }
    }
    Some(target)
}

#[test]
fn links_lead_to_files_and_headings_that_exist() {
    let pages = pages();
    let mut wrong = Vec::new();
    let mut count = 0;
    for (path, page) in &pages {
        for link in &page.links {
            if ["https://", "http://", "mailto:"]
                .iter()
                .any(|scheme| link.starts_with(scheme))
            {
                continue;
            }
            count += 1;
            let (file, anchor) = link
                .split_once('#')
                .map_or((link.as_str(), None), |(file, anchor)| (file, Some(anchor)));
            let target = if file.is_empty() {
                Some(path.clone())
            } else {
                target(path, file)
            };
            let Some(target) = target.filter(|target| root().join(target).exists()) else {
                wrong.push(format!("{}: {link} leads to no file", path.display()));
                continue;
            };
            if let Some(anchor) = anchor
                && !pages.get(&target).is_some_and(|page| page.anchors.contains(anchor))
            {
                wrong.push(format!("{}: {link} leads to no heading", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(count > 50, "{count} links");
}

#[test]
fn summary_lists_every_page() {
    let pages = pages();
    let summary = Path::new("docs/SUMMARY.md");
    let listed: BTreeSet<PathBuf> = pages[summary]
        .links
        .iter()
        .filter_map(|link| target(summary, link))
        .collect();
    let written: BTreeSet<PathBuf> = pages
        .into_keys()
        .filter(|path| path.starts_with("docs") && path != summary)
        .collect();
    assert_eq!(listed, written, "the pages in docs/SUMMARY.md, and those in docs");
}

#[test]
fn decisions_are_listed_in_their_index() {
    let pages = pages();
    let index = Path::new("docs/adr/README.md");
    let listed: BTreeSet<PathBuf> = pages[index]
        .links
        .iter()
        .filter_map(|link| target(index, link))
        .collect();
    for path in pages
        .keys()
        .filter(|path| path.starts_with("docs/adr") && *path != index)
    {
        assert!(
            listed.contains(path),
            "{} is not in {}",
            path.display(),
            index.display()
        );
    }
}

#[test]
fn tests_in_tables_of_promises_exist() {
    let tests = Tests::read(root());
    let pages = pages();
    let mut count = 0;
    for (path, page) in &pages {
        for name in page
            .tables
            .iter()
            .filter(|table| is_of_promises(table))
            .flat_map(|table| &table.last_column_code)
        {
            count += 1;
            assert!(tests.contain(name), "{}: there is no test {name}", path.display());
        }
    }
    assert!(count > 30, "{count} tests are named");
    let readme = &pages[Path::new("README.md")];
    assert!(
        readme.tables.iter().any(is_of_promises),
        "README.md has no table of promises"
    );
}

/// A table of promises has the tests that prove them in its last column, whose heading says so.
fn is_of_promises(table: &Table) -> bool {
    table.headings.first().is_some_and(|heading| heading == "promise")
        && table.headings.last().is_some_and(|heading| heading.contains("test"))
}

#[test]
fn readme_is_short() {
    let lines = fs::read_to_string(root().join("README.md")).unwrap().lines().count();
    assert!(lines <= README_LINES_MAX, "{lines} lines");
}

#[test]
fn contributing_lists_the_make_targets() {
    let makefile = text(&root().join("Makefile"));
    let lines = makefile.lines().filter(|line| !line.starts_with('\t'));
    let targets = lines.filter_map(|line| {
        let (target, help) = line.split_once("## ")?;
        Some(format!("{:<14}{help}", target.split_once(':')?.0))
    });
    let targets = targets.collect::<Vec<String>>().join("\n");
    let contributing = text(&root().join("CONTRIBUTING.md"));
    assert!(
        contributing.contains(&format!("$ make help\n{targets}\n```")),
        "CONTRIBUTING.md should show:\n{targets}"
    );
}
