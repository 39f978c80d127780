//! A Markdown page as the tests read it.

use std::collections::{BTreeMap, BTreeSet};

use pulldown_cmark::{Event, Options, Parser, Tag, TagEnd};

/// What is of interest on a page.
#[derive(Debug, Default)]
pub struct Page {
    /// Where its links and images lead.
    pub links: Vec<String>,
    /// The anchors of its headings, as code hosts make them.
    pub anchors: BTreeSet<String>,
    /// Its tables.
    pub tables: Vec<Table>,
}

/// A table, as far as it is of interest.
#[derive(Debug, Default)]
pub struct Table {
    /// The headings of its columns.
    pub headings: Vec<String>,
    /// What is in code font in the last column, below the heading.
    pub last_column_code: Vec<String>,
}

/// The table that is being read, and how far.
#[derive(Debug, Default)]
struct OpenTable {
    table: Table,
    is_in_body: bool,
    column: usize,
}

impl Page {
    /// Reads a page.
    pub fn of(text: &str) -> Self {
        let mut page = Self::default();
        let mut anchors = BTreeMap::new();
        let mut open = OpenTable::default();
        // Of the heading or the cell that is being read.
        let mut words = String::new();
        for event in Parser::new_ext(text, Options::ENABLE_TABLES) {
            match event {
                Event::Start(Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. }) => {
                    page.links.push(dest_url.into_string());
                }
                Event::Html(html) | Event::InlineHtml(html) => page.links.extend(html_links(&html)),
                Event::Start(Tag::Heading { .. } | Tag::TableCell) => words.clear(),
                Event::End(TagEnd::Heading(_)) => {
                    page.anchors.insert(anchor(&words, &mut anchors));
                }
                Event::End(TagEnd::TableCell) => open.end_cell(&words),
                Event::End(TagEnd::TableHead | TagEnd::TableRow) => {
                    open.is_in_body = true;
                    open.column = 0;
                }
                Event::End(TagEnd::Table) => page.tables.push(std::mem::take(&mut open).table),
                Event::Text(text) => words.push_str(&text),
                Event::Code(code) => {
                    words.push_str(&code);
                    open.code(&code);
                }
                _ => {}
            }
        }
        page
    }
}

impl OpenTable {
    fn end_cell(&mut self, words: &str) {
        if !self.is_in_body {
            self.table.headings.push(words.to_owned());
        }
        self.column += 1;
    }

    fn code(&mut self, code: &str) {
        if self.is_in_body && self.column + 1 == self.table.headings.len() {
            self.table.last_column_code.push(code.to_owned());
        }
    }
}

/// The anchor of a heading: lower case, without punctuation, with a number if there is one like it already.
fn anchor(heading: &str, seen: &mut BTreeMap<String, usize>) -> String {
    let kept = heading
        .trim()
        .chars()
        .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    let anchor: String = kept.collect::<String>().to_lowercase().replace(' ', "-");
    let number = seen.entry(anchor.clone()).or_default();
    *number += 1;
    match *number {
        1 => anchor,
        number => format!("{anchor}-{}", number - 1),
    }
}

/// The values of `href` and `src` in HTML.
fn html_links(html: &str) -> Vec<String> {
    let values = ["href=\"", "src=\""]
        .iter()
        .flat_map(|attribute| html.split(attribute).skip(1));
    values
        .filter_map(|rest| rest.split('"').next().map(ToOwned::to_owned))
        .collect()
}

#[test]
fn page_is_read_with_its_links_anchors_and_tables() {
    let page = Page::of(
        "# A `b` (c)!\n\n[x](y.md#z) ![i](i.png) `[no](link)` <a href=\"h\">\n\n```\n[no](link)\n```\n\n## Same\n\n## Same\n\n\
         | promise | `p` test |\n|---|---|\n| `no` | `yes`, `also` |\n\n`no`\n",
    );
    assert_eq!(page.links, ["y.md#z", "i.png", "h"]);
    assert_eq!(page.anchors, ["a-b-c", "same", "same-1"].map(ToOwned::to_owned).into());
    assert_eq!(page.tables.len(), 1);
    assert_eq!(page.tables[0].headings, ["promise", "p test"]);
    assert_eq!(page.tables[0].last_column_code, ["yes", "also"]);
}
