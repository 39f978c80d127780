//! The crate as a tree of modules, read by a parser. Code under `#[cfg(test)]` is left out.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use syn::{Attribute, Item, Meta, UseTree, Visibility};

/// What a name in a module stands for.
#[derive(Debug, Clone)]
pub enum Binding {
    /// An item that the module itself defines.
    Item,
    /// A child module, by its index in [`Tree::modules`].
    Module(usize),
    /// An imported name: the path that it was imported by, and whether the import is visible outside the module.
    Import { path: Vec<String>, is_reexport: bool },
}

/// A module: a file, or a block inside a file.
pub struct Module {
    /// The file that holds its code, relative to `src`.
    pub file: String,
    /// The path from the root of the crate: `["store", "sqlite"]`.
    pub path: Vec<String>,
    /// The parent module; the root has none.
    pub parent: Option<usize>,
    /// The names that its code can use, but for those of the prelude.
    pub names: HashMap<String, Binding>,
    /// The modules from which it imports everything.
    pub globs: Vec<Vec<String>>,
    /// Its items, without child modules.
    pub items: Vec<Item>,
}

/// All modules of a crate; the root comes first.
#[derive(Default)]
pub struct Tree {
    pub modules: Vec<Module>,
}

impl Tree {
    /// Reads a crate whose root is `folder/lib.rs`.
    pub fn read(folder: &Path) -> Self {
        let mut tree = Self::default();
        let root = folder.join("lib.rs");
        tree.add(
            folder,
            &root,
            Position {
                path: Vec::new(),
                parent: None,
            },
            parse(&root),
        );
        tree
    }

    fn add(&mut self, folder: &Path, file: &Path, position: Position, items: Vec<Item>) -> usize {
        let index = self.modules.len();
        let inside = file.strip_prefix(folder).expect("a file of the crate");
        self.modules.push(Module {
            file: inside.to_str().expect("file names are UTF-8").to_owned(),
            path: position.path.clone(),
            parent: position.parent,
            names: HashMap::new(),
            globs: Vec::new(),
            items: Vec::new(),
        });
        for item in items {
            if is_test(attributes(&item)) {
                continue;
            }
            match item {
                Item::Mod(child) => {
                    let name = child.ident.to_string();
                    let position = Position {
                        path: position.path.iter().cloned().chain([name.clone()]).collect(),
                        parent: Some(index),
                    };
                    let child = match child.content {
                        Some((_, items)) => self.add(folder, file, position, items),
                        None => {
                            let file = file_of(folder, &position.path);
                            let items = parse(&file);
                            self.add(folder, &file, position, items)
                        }
                    };
                    self.modules[index].names.insert(name, Binding::Module(child));
                }
                item => self.modules[index].add(item),
            }
        }
        index
    }
}

struct Position {
    path: Vec<String>,
    parent: Option<usize>,
}

impl Module {
    fn add(&mut self, item: Item) {
        if let Item::Use(import) = &item {
            let is_reexport = !matches!(import.vis, Visibility::Inherited);
            let mut prefix = Vec::new();
            if import.leading_colon.is_some() {
                prefix.push(String::new());
            }
            self.import(&import.tree, &mut prefix, is_reexport);
        } else if let Some(name) = name(&item) {
            self.names.insert(name, Binding::Item);
        }
        self.items.push(item);
    }

    fn import(&mut self, tree: &UseTree, path: &mut Vec<String>, is_reexport: bool) {
        match tree {
            UseTree::Path(part) => {
                path.push(part.ident.to_string());
                self.import(&part.tree, path, is_reexport);
                path.pop();
            }
            UseTree::Group(group) => {
                for tree in &group.items {
                    self.import(tree, path, is_reexport);
                }
            }
            UseTree::Glob(_) => self.globs.push(path.clone()),
            UseTree::Name(part) => self.bind(&part.ident.to_string(), &part.ident.to_string(), path, is_reexport),
            UseTree::Rename(part) => self.bind(&part.ident.to_string(), &part.rename.to_string(), path, is_reexport),
        }
    }

    fn bind(&mut self, original: &str, name: &str, path: &[String], is_reexport: bool) {
        let mut path = path.to_vec();
        let mut name = name.to_owned();
        if original != "self" {
            path.push(original.to_owned());
        } else if name == "self" {
            name = path.last().cloned().unwrap_or_default();
        }
        if name == "_" {
            // A trait whose methods alone are used; it needs an entry of its own.
            name = format!("_ {}", path.join("::"));
        }
        self.names.insert(name, Binding::Import { path, is_reexport });
    }
}

fn parse(file: &Path) -> Vec<Item> {
    let text = fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let parsed = syn::parse_file(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    parsed.items
}

/// The file of a module that is declared with `mod name;`.
fn file_of(folder: &Path, path: &[String]) -> PathBuf {
    let file = folder.join(path.join("/")).with_extension("rs");
    assert!(
        file.exists(),
        "{} is not there: the modules of this crate lie in NAME.rs, with their children in NAME/",
        file.display()
    );
    file
}

/// Whether an item is compiled for tests only: `#[cfg(test)]`, or `#[cfg(all(test, …))]`.
pub fn is_test(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| match &attribute.meta {
        Meta::List(list) if list.path.is_ident("cfg") => {
            let condition = list.tokens.to_string().replace(' ', "");
            condition == "test" || condition.starts_with("all(test,")
        }
        meta => meta.path().is_ident("test"),
    })
}

/// The attributes of an item.
pub fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Macro(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::Type(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

fn name(item: &Item) -> Option<String> {
    let ident = match item {
        Item::Const(item) => &item.ident,
        Item::Enum(item) => &item.ident,
        Item::Fn(item) => &item.sig.ident,
        Item::Macro(item) => item.ident.as_ref()?,
        Item::Static(item) => &item.ident,
        Item::Struct(item) => &item.ident,
        Item::Trait(item) => &item.ident,
        Item::Type(item) => &item.ident,
        _ => return None,
    };
    Some(ident.to_string())
}
