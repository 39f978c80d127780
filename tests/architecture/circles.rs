//! Circles of imports between files.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::references::Target;
use crate::tree::Tree;

/// The files of the crate, each with the files that define what its code names.
pub type Graph<'a> = BTreeMap<&'a str, BTreeSet<&'a str>>;

/// Files of which each leads to each other, and the imports that close the circle.
#[derive(Debug)]
pub struct Circle<'a> {
    pub files: BTreeSet<&'a str>,
    pub imports: Vec<(&'a str, &'a str)>,
}

impl fmt::Display for Circle<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for file in &self.files {
            writeln!(formatter, "{file}")?;
        }
        for (from, to) in &self.imports {
            writeln!(formatter, "    {from} -> {to}")?;
        }
        Ok(())
    }
}

/// Which file names items of which other files.
pub fn graph(tree: &Tree) -> Graph<'_> {
    let mut graph = Graph::new();
    for (index, module) in tree.modules.iter().enumerate() {
        let named = graph.entry(&module.file).or_default();
        for target in tree.references(index) {
            if let Target::Item(other) = target {
                named.insert(&tree.modules[other].file);
            }
        }
        named.remove(module.file.as_str());
    }
    graph
}

/// The circles of a crate: files that lead to each other, as large as they are.
pub fn circles(tree: &Tree) -> Vec<Circle<'_>> {
    let graph = graph(tree);
    let reached: BTreeMap<&str, BTreeSet<&str>> = graph.keys().map(|file| (*file, reach(&graph, file))).collect();
    let mut circles = Vec::new();
    let mut seen = BTreeSet::new();
    for file in graph.keys() {
        let files: BTreeSet<&str> = reached[file]
            .iter()
            .filter(|other| reached[*other].contains(file))
            .copied()
            .collect();
        if files.len() > 1 && seen.insert(files.clone()) {
            let imports = files
                .iter()
                .flat_map(|from| graph[from].intersection(&files).map(|to| (*from, *to)))
                .collect();
            circles.push(Circle { files, imports });
        }
    }
    circles
}

fn reach<'a>(graph: &Graph<'a>, from: &str) -> BTreeSet<&'a str> {
    let mut reached = BTreeSet::new();
    let mut next: Vec<&str> = graph[from].iter().copied().collect();
    while let Some(file) = next.pop() {
        if reached.insert(file) {
            next.extend(graph[file].iter().copied());
        }
    }
    reached
}
