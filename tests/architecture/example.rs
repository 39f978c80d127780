//! The analysis itself, on small crates made for one test each.

use std::collections::BTreeSet;
use std::fs;

use tempfile::TempDir;

use crate::circles::{circles, graph};
use crate::references::Target;
use crate::tree::Tree;

/// A crate of these files, and the imports between them as `from -> to`.
fn imports(files: &[(&str, &str)]) -> Vec<String> {
    let tree = tree(files);
    let graph = graph(&tree);
    let edges = graph
        .iter()
        .flat_map(|(from, to)| to.iter().map(move |to| format!("{from} -> {to}")));
    edges.collect()
}

fn tree(files: &[(&str, &str)]) -> Tree {
    let folder = TempDir::new().expect("a temporary folder");
    for (name, text) in files {
        let file = folder.path().join(name);
        fs::create_dir_all(file.parent().expect("a folder")).expect("a folder of our own");
        fs::write(file, text).expect("a file in a folder of our own");
    }
    Tree::read(folder.path())
}

#[test]
fn reexport_is_followed_and_is_no_import_of_the_parent() {
    let imports = imports(&[
        ("lib.rs", "mod a;"),
        ("a.rs", "mod b; mod c; pub use self::b::B; pub(crate) fn common() {}"),
        ("a/b.rs", "use super::common; pub struct B; fn f() { common() }"),
        ("a/c.rs", "fn f(b: crate::a::B) {}"),
    ]);
    assert_eq!(imports, ["a/b.rs -> a.rs", "a/c.rs -> a/b.rs"]);
}

#[test]
fn reexport_that_the_parent_uses_closes_a_circle() {
    let tree = tree(&[
        ("lib.rs", "mod a;"),
        (
            "a.rs",
            "mod b; pub use self::b::B; pub struct A; impl A { fn b(&self) -> B { B } }",
        ),
        ("a/b.rs", "use super::A; pub struct B; fn f(a: A) {}"),
    ]);
    let circles = circles(&tree);
    assert_eq!(circles.len(), 1);
    assert_eq!(
        circles[0].to_string(),
        "a.rs\na/b.rs\n    a.rs -> a/b.rs\n    a/b.rs -> a.rs\n"
    );
}

#[test]
fn circle_through_three_files_is_found() {
    let tree = tree(&[
        ("lib.rs", "mod a; mod b; mod c; mod d;"),
        ("a.rs", "pub fn a() { crate::b::b() }"),
        ("b.rs", "use crate::c; pub fn b() { c::c() }"),
        ("c.rs", "pub fn c() { super::a::a() }"),
        ("d.rs", "use crate::a::a; fn d() { a() }"),
    ]);
    let circles = circles(&tree);
    assert_eq!(circles.len(), 1);
    assert_eq!(circles[0].files, BTreeSet::from(["a.rs", "b.rs", "c.rs"]));
}

#[test]
fn paths_are_found_in_macros_attributes_and_types() {
    let imports = imports(&[
        ("lib.rs", "mod a; mod b; mod c; mod d; mod e;"),
        ("a.rs", "pub fn f() {}"),
        ("b.rs", "fn g() { println!(\"{}\", crate::a::f()) }"),
        ("c.rs", "use crate::a; #[attribute(with(a::f))] struct C;"),
        ("d.rs", "trait T { type D; } fn g() -> impl T<D = Vec<crate::a::f>> {}"),
        (
            "e.rs",
            "use crate::a::{self as other}; fn g() { assert!(x.a.f(y) == other::f()) }",
        ),
    ]);
    assert_eq!(
        imports,
        ["b.rs -> a.rs", "c.rs -> a.rs", "d.rs -> a.rs", "e.rs -> a.rs"]
    );
}

#[test]
fn code_for_tests_is_left_out() {
    let imports = imports(&[
        ("lib.rs", "mod a; #[cfg(test)] mod not_there;"),
        (
            "a.rs",
            "mod b; pub fn f() { b::g() } #[cfg(test)] mod tests { use super::b::g; }",
        ),
        (
            "a/b.rs",
            "pub struct B; #[cfg(test)] use super::f; #[cfg(test)] fn h() { super::f() } pub fn g() {} impl B { #[cfg(test)] fn k() { super::f() } }",
        ),
    ]);
    assert_eq!(imports, ["a.rs -> a/b.rs"]);
}

#[test]
fn glob_import_leads_to_the_names_that_are_used() {
    let imports = imports(&[
        ("lib.rs", "mod a; mod b; mod c;"),
        ("a.rs", "pub fn f() {}"),
        ("b.rs", "pub use crate::a::*;"),
        ("c.rs", "use crate::b::*; fn g() { f(); f::h() }"),
    ]);
    assert_eq!(imports, ["c.rs -> a.rs"]);
}

#[test]
fn library_is_told_from_a_module_of_the_same_name() {
    let tree = tree(&[
        ("lib.rs", "mod sink;"),
        (
            "sink.rs",
            "mod redis; use std::{env, fmt::Debug}; fn f() { redis::g(); env::var(x) }",
        ),
        (
            "sink/redis.rs",
            "use redis::Client; use ::other; pub fn g() { redis::cmd(); other::f() }",
        ),
    ]);
    let libraries = |index: usize| -> Vec<String> {
        let targets = tree.references(index).into_iter();
        let paths = targets.filter_map(|target| match target {
            Target::Library(path) => Some(path.join("::")),
            _ => None,
        });
        paths.collect()
    };
    assert_eq!(libraries(1), ["std::env", "std::env::var", "std::fmt::Debug"]);
    assert_eq!(libraries(2), ["other", "other::f", "redis::Client", "redis::cmd"]);
}
