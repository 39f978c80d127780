//! The tests of this repository by name, read by a parser.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use proc_macro2::{TokenStream, TokenTree};
use syn::visit::{self, Visit};
use syn::{ItemFn, ItemMod, Macro};

use crate::files;

/// All tests, each by its file, its modules and its function: `["integration-tests", "tests", "faults", "name"]`.
#[derive(Debug, Default)]
pub struct Tests {
    functions: Vec<Function>,
    /// The names in macro calls: some macros take a list of tests.
    listed: BTreeSet<String>,
    modules: Vec<String>,
}

#[derive(Debug)]
struct Function {
    path: Vec<String>,
    has_attribute: bool,
}

impl Tests {
    /// Reads the tests of both crates.
    pub fn read(root: &Path) -> Self {
        let mut tests = Self::default();
        let folders = ["src", "tests", "integration-tests/src", "integration-tests/tests"];
        for path in folders.iter().flat_map(|folder| files(&root.join(folder))) {
            if path.extension().is_some_and(|end| end == "rs") {
                let inside = path
                    .strip_prefix(root)
                    .expect("a file below the root")
                    .with_extension("");
                tests.modules = inside.iter().map(|part| part.to_string_lossy().into_owned()).collect();
                let text = fs::read_to_string(&path).expect("a file of this repository");
                let parsed = syn::parse_file(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
                tests.visit_file(&parsed);
            }
        }
        tests
    }

    /// Whether there is a test of this name: that of its function, with its file or modules before it, or without.
    pub fn contain(&self, name: &str) -> bool {
        let name: Vec<&str> = name.split("::").collect();
        self.functions.iter().any(|function| {
            let ends = function.path.iter().rev().zip(name.iter().rev());
            let fits = ends.len() == name.len() && ends.clone().all(|(own, other)| own == other);
            fits && (function.has_attribute || self.listed.contains(name[name.len() - 1]))
        })
    }

    fn list(&mut self, tokens: TokenStream) {
        for token in tokens {
            match token {
                TokenTree::Ident(name) => {
                    self.listed.insert(name.to_string());
                }
                TokenTree::Group(group) => self.list(group.stream()),
                TokenTree::Punct(_) | TokenTree::Literal(_) => {}
            }
        }
    }
}

impl<'ast> Visit<'ast> for Tests {
    fn visit_item_mod(&mut self, module: &'ast ItemMod) {
        self.modules.push(module.ident.to_string());
        visit::visit_item_mod(self, module);
        self.modules.pop();
    }

    fn visit_item_fn(&mut self, function: &'ast ItemFn) {
        let name = function.sig.ident.to_string();
        let mut attributes = function.attrs.iter().map(|attribute| attribute.path().segments.last());
        self.functions.push(Function {
            path: self.modules.iter().cloned().chain([name]).collect(),
            has_attribute: attributes.any(|last| last.is_some_and(|part| part.ident == "test")),
        });
        visit::visit_item_fn(self, function);
    }

    fn visit_macro(&mut self, call: &'ast Macro) {
        self.list(call.tokens.clone());
    }
}

#[test]
fn tests_are_found_by_attribute_or_list() {
    let mut tests = Tests {
        modules: vec!["faults".to_owned()],
        ..Tests::default()
    };
    let text = "#[tokio::test] async fn a() {} async fn b(world: World) {} fn c() {} mod inner { #[test] fn d() {} } on_both_stores! { b }";
    tests.visit_file(&syn::parse_file(text).unwrap());
    for name in ["a", "faults::a", "b", "faults::b", "d", "inner::d", "faults::inner::d"] {
        assert!(tests.contain(name), "{name}");
    }
    for name in ["c", "e", "other::a", "faults::d", "x::faults::a"] {
        assert!(!tests.contain(name), "{name}");
    }
}
