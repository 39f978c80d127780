//! What the code of a module names: every path in it, resolved to the file that defines the item or to a library.
//!
//! A path is followed through imports and re-exports to the definition. A private `use` counts as a reference, because the
//! compiler reports an import that is not used. A re-export (`pub use`) alone does not: it counts only if the code of the
//! module uses the name, too. Paths in macro calls and attributes are found in their tokens.

use std::collections::BTreeSet;

use proc_macro2::{TokenStream, TokenTree};
use syn::visit::{self, Visit};
use syn::{Attribute, ImplItem, Item, ItemUse, Macro, Meta, Path};

use crate::tree::{Binding, Module, Tree, attributes, is_test};

/// What a path leads to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Target {
    /// An item that is defined in the module with this index.
    Item(usize),
    /// The module with this index itself.
    Module(usize),
    /// An item of a library or of `std`, with its whole path.
    Library(Vec<String>),
}

/// A path of imports and re-exports is never longer; what is longer leads in a circle.
const STEPS_MAX: usize = 16;

impl Tree {
    /// Everything that the code of a module names, outside itself.
    pub fn references(&self, module: usize) -> BTreeSet<Target> {
        let mut paths = Paths::default();
        for item in &self.modules[module].items {
            paths.visit_item(item);
        }
        let imports = self.modules[module].names.values().filter_map(|binding| match binding {
            Binding::Import {
                path,
                is_reexport: false,
            } => Some(path.clone()),
            _ => None,
        });
        paths.found.extend(imports);
        paths.found.extend(self.modules[module].globs.iter().cloned());
        let targets = paths
            .found
            .iter()
            .flat_map(|path| self.resolve(module, path, STEPS_MAX));
        targets.collect()
    }

    /// What a path in the code of a module leads to: the item, and every module on the way to it that the path names.
    fn resolve(&self, module: usize, path: &[String], steps: usize) -> Vec<Target> {
        let Some(steps) = steps.checked_sub(1) else {
            return Vec::new();
        };
        let (mut module, mut rest) = match path.first().map(String::as_str) {
            None | Some("Self") => return Vec::new(),
            Some("") => return vec![Target::Library(path[1..].to_vec())],
            Some("crate") => (0, &path[1..]),
            Some("self") => (module, &path[1..]),
            Some("super") => (self.parent(module), &path[1..]),
            Some(first) if self.lookup(module, first).is_none() => return self.foreign(module, path, steps),
            Some(_) => (module, path),
        };
        while rest.first().is_some_and(|part| part == "super") {
            module = self.parent(module);
            rest = &rest[1..];
        }
        let mut targets = Vec::new();
        while let Some(name) = rest.first() {
            match self.lookup(module, name) {
                Some(Binding::Module(child)) => {
                    module = *child;
                    targets.push(Target::Module(module));
                    rest = &rest[1..];
                }
                Some(Binding::Import { path, .. }) => {
                    let whole: Vec<String> = path.iter().chain(&rest[1..]).cloned().collect();
                    // `use redis;` would name itself for ever.
                    if whole == rest {
                        return vec![Target::Library(whole)];
                    }
                    targets.extend(self.resolve(module, &whole, steps));
                    return targets;
                }
                Some(Binding::Item) => {
                    targets.push(Target::Item(module));
                    return targets;
                }
                None => {
                    targets.extend(self.through_globs(module, rest, steps));
                    return targets;
                }
            }
        }
        targets
    }

    /// A path whose first name the module does not know: what a glob import brings, or a library.
    fn foreign(&self, module: usize, path: &[String], steps: usize) -> Vec<Target> {
        let found = self.through_globs(module, path, steps);
        if found.is_empty() && path.len() > 1 {
            return vec![Target::Library(path.to_vec())];
        }
        found
    }

    fn through_globs(&self, module: usize, path: &[String], steps: usize) -> Vec<Target> {
        let globs = self.modules[module].globs.iter();
        let of_crate = globs.filter(|glob| matches!(glob[0].as_str(), "crate" | "self" | "super"));
        let found = of_crate.flat_map(|glob| {
            let whole: Vec<String> = glob.iter().chain(path).cloned().collect();
            self.resolve(module, &whole, steps)
        });
        found.filter(|target| matches!(target, Target::Item(_))).collect()
    }

    fn lookup(&self, module: usize, name: &str) -> Option<&Binding> {
        self.modules[module].names.get(name)
    }

    fn parent(&self, module: usize) -> usize {
        self.modules[module].parent.expect("super of a module below the root")
    }

    /// The top-level module that a module belongs to; the root itself belongs to none.
    pub fn top_level(&self, module: usize) -> Option<&str> {
        self.modules[module].path.first().map(String::as_str)
    }
}

impl Module {
    /// The path as it is written in code.
    pub fn name(&self) -> String {
        self.path.join("::")
    }
}

/// Collects paths, imports aside.
#[derive(Default)]
struct Paths {
    found: BTreeSet<Vec<String>>,
}

impl Paths {
    /// Paths among tokens: `name::name`, and names that stand alone.
    fn tokens(&mut self, tokens: TokenStream) {
        let mut path: Vec<String> = Vec::new();
        // Colons since the last name: two go on with a path.
        let mut colons = 0;
        let mut before = None;
        for token in tokens {
            match &token {
                TokenTree::Ident(ident) => {
                    if colons != 2 {
                        self.end(&mut path);
                        // The name of a method or a field.
                        if before == Some('.') {
                            before = None;
                            colons = 0;
                            continue;
                        }
                    }
                    path.push(ident.to_string());
                    colons = 0;
                    before = None;
                }
                TokenTree::Punct(punct) => {
                    colons = if punct.as_char() == ':' { colons + 1 } else { 0 };
                    if colons == 0 {
                        self.end(&mut path);
                    }
                    before = Some(punct.as_char());
                }
                TokenTree::Group(group) => {
                    self.end(&mut path);
                    colons = 0;
                    before = None;
                    self.tokens(group.stream());
                }
                TokenTree::Literal(_) => {
                    self.end(&mut path);
                    colons = 0;
                    before = None;
                }
            }
        }
        self.end(&mut path);
    }

    fn end(&mut self, path: &mut Vec<String>) {
        if !path.is_empty() {
            self.found.insert(std::mem::take(path));
        }
    }
}

impl<'ast> Visit<'ast> for Paths {
    fn visit_item(&mut self, item: &'ast Item) {
        if !is_test(attributes(item)) {
            visit::visit_item(self, item);
        }
    }

    fn visit_impl_item(&mut self, item: &'ast ImplItem) {
        let is_test = match item {
            ImplItem::Fn(function) => is_test(&function.attrs),
            ImplItem::Const(constant) => is_test(&constant.attrs),
            _ => false,
        };
        if !is_test {
            visit::visit_impl_item(self, item);
        }
    }

    fn visit_item_use(&mut self, _: &'ast ItemUse) {
        // Imports are bound to names by the tree.
    }

    fn visit_path(&mut self, path: &'ast Path) {
        let mut names: Vec<String> = path.segments.iter().map(|part| part.ident.to_string()).collect();
        if path.leading_colon.is_some() {
            names.insert(0, String::new());
        }
        self.found.insert(names);
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, call: &'ast Macro) {
        self.visit_path(&call.path);
        self.tokens(call.tokens.clone());
    }

    fn visit_attribute(&mut self, attribute: &'ast Attribute) {
        match &attribute.meta {
            Meta::List(list) => self.tokens(list.tokens.clone()),
            Meta::Path(_) | Meta::NameValue(_) => {}
        }
    }
}
