//! The crate documentation, as the tests read it.

use std::collections::BTreeMap;

use syn::{Expr, ExprLit, Lit, Meta};

/// The text of the crate documentation.
pub struct Documentation(String);

impl Documentation {
    /// The documentation in the text of a crate's root.
    pub fn of(root: &str) -> Self {
        let parsed = syn::parse_file(root).expect("the root of the crate parses");
        let lines = parsed.attrs.iter().filter_map(|attribute| match &attribute.meta {
            Meta::NameValue(pair) if pair.path.is_ident("doc") => match &pair.value {
                Expr::Lit(ExprLit {
                    lit: Lit::Str(line), ..
                }) => Some(line.value() + "\n"),
                _ => None,
            },
            _ => None,
        });
        Self(lines.collect())
    }

    /// The layer of each module, from the table whose rows are a number, the modules as links, and what they are for.
    pub fn layers(&self) -> BTreeMap<String, u8> {
        let mut layers = BTreeMap::new();
        for line in self.0.lines() {
            let cells: Vec<&str> = line.split('|').map(str::trim).collect();
            let (Some(number), Some(modules)) = (cells.get(1), cells.get(2)) else {
                continue;
            };
            let Ok(layer) = number.parse() else {
                continue;
            };
            let names = modules.split("[`").skip(1).filter_map(|rest| rest.split('`').next());
            layers.extend(names.map(|name| (name.to_owned(), layer)));
        }
        layers
    }

    /// How many words it has. What has neither a letter nor a digit in it is none, such as the bars of a table.
    pub fn words(&self) -> usize {
        let words = self.0.split_whitespace();
        words.filter(|word| word.contains(char::is_alphanumeric)).count()
    }
}

#[test]
fn layers_are_read_from_the_table() {
    let documentation =
        Documentation::of("//! | 2 | [`relay`], [`ingest`] | text with [`store`] |\n//! | x | [`http`] |");
    let layers: Vec<(String, u8)> = documentation.layers().into_iter().collect();
    assert_eq!(layers, [("ingest".to_owned(), 2), ("relay".to_owned(), 2)]);
    assert_eq!(documentation.words(), 8);
}
