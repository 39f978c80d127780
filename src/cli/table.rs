//! Tables and numbers as the commands print them.

use comfy_table::{CellAlignment, Table, presets};
use indicatif::HumanCount;

/// A number with its digits in groups: `20,000`.
pub(crate) fn count(number: u64) -> String {
    HumanCount(number).to_string()
}

/// A number of a store, which may be negative where the store is damaged.
pub(crate) fn signed(number: i64) -> String {
    let sign = if number < 0 { "-" } else { "" };
    format!("{sign}{}", count(number.unsigned_abs()))
}

/// A rate without its fraction: `1,235`.
#[expect(
    clippy::cast_possible_truncation,
    reason = "a rate is rounded, and a rate beyond the range of the type becomes its end"
)]
pub(crate) fn rate(number: f64) -> String {
    count(number.round() as u64)
}

/// One line for each label and its value, the values aligned to the right.
pub(crate) fn values<L: Into<String>>(rows: impl IntoIterator<Item = (L, String)>) -> String {
    let mut table = plain();
    for (label, value) in rows {
        table.add_row([label.into(), value]);
    }
    if let Some(values) = table.column_mut(1) {
        values.set_cell_alignment(CellAlignment::Right);
    }
    lines(&table)
}

/// One line for each label and its text, both aligned to the left. Line breaks in a text are the caller's to escape.
pub(crate) fn fields<'a>(rows: impl IntoIterator<Item = (&'a str, String)>) -> String {
    let mut table = plain();
    table.add_rows(rows.into_iter().map(|(label, text)| [label.to_owned(), text]));
    lines(&table)
}

/// One line for each row below a line of headings, all aligned to the left. Line breaks in a cell are the caller's to escape.
pub(crate) fn columns<const N: usize>(headings: [&str; N], rows: impl IntoIterator<Item = [String; N]>) -> String {
    let mut table = plain();
    table.set_header(headings);
    table.add_rows(rows);
    lines(&table)
}

/// A table without lines, its columns two spaces apart.
fn plain() -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table
}

fn lines(table: &Table) -> String {
    let mut text = String::new();
    for line in table.lines() {
        // The first column has a space on its left.
        text.push_str(line.strip_prefix(' ').unwrap_or(&line).trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_aligned_to_the_right() {
        let table = values([
            ("sent", count(20_000)),
            ("events/s", rate(1234.56)),
            ("drift", signed(-1)),
        ]);
        assert_eq!(table, "sent      20,000\nevents/s   1,235\ndrift         -1\n");
    }

    #[test]
    fn columns_have_headings_and_no_trailing_spaces() {
        let table = columns(["topic", "id"], [["order.created".to_owned(), "1".to_owned()]]);
        assert_eq!(table, "topic          id\norder.created  1\n");
    }
}
