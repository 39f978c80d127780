//! Keeps each record of the log on one line, whatever it contains.
//!
//! Text from outside (names, paths, headers, errors of servers) is in the log, and may contain anything. The formatters escape
//! fields of their own, but not parts of a message, and not every control sequence of a terminal. So each record is checked once
//! more when it is written: every record passes here.

use std::borrow::Cow;
use std::io::{self, Write};

use super::queue;

/// Standard error, on which each record becomes one line.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lines {
    /// Whether the formatter colours its lines. Then colours are kept, and no other escapes.
    pub(super) is_coloured: bool,
}

impl Write for Lines {
    /// Takes a whole record, as the formatter writes it.
    fn write(&mut self, record: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(record);
        queue::send(one_line(&text, self.is_coloured).into_owned());
        Ok(record.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The record with all characters escaped that could end its line, or change how it is displayed. The escapes are also valid in
/// strings of JSON.
fn one_line(record: &str, is_coloured: bool) -> Cow<'_, str> {
    let (text, end) = match record.strip_suffix('\n') {
        Some(text) => (text, "\n"),
        None => (record, ""),
    };
    if !text.contains(is_unsafe) {
        return Cow::Borrowed(record);
    }
    let mut line = String::with_capacity(record.len() + 16);
    for (at, c) in text.char_indices() {
        if is_unsafe(c) && !(is_coloured && is_colour(&text[at..])) {
            line.push_str(&format!("\\u{:04x}", u32::from(c)));
        } else {
            line.push(c);
        }
    }
    line.push_str(end);
    Cow::Owned(line)
}

/// Whether a character could drive a terminal, end a line, or reorder it: control characters, line and paragraph separators, and the
/// controls of bidirectional text.
pub(crate) fn is_unsafe(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{061c}' | '\u{200e}' | '\u{200f}'
        )
}

/// Whether a text begins with a colour (ECMA-48, "select graphic rendition").
fn is_colour(text: &str) -> bool {
    let parameters = text.strip_prefix("\u{1b}[").unwrap_or_default();
    parameters
        .trim_start_matches(|c: char| c.is_ascii_digit() || c == ';')
        .starts_with('m')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_line_breaks_and_control_sequences() {
        let record = "a\nb\r\u{1b}[31m\u{9b}31m\u{7f}\0\t\u{2028}\u{202e}é\n";
        assert_eq!(
            one_line(record, false),
            "a\\u000ab\\u000d\\u001b[31m\\u009b31m\\u007f\\u0000\\u0009\\u2028\\u202eé\n"
        );
        assert_eq!(
            one_line("\u{1b}[1;31mred\u{1b}[0m\u{9b}\u{1b}[2J\u{1b}c\n", true),
            "\u{1b}[1;31mred\u{1b}[0m\\u009b\\u001b[2J\\u001bc\n"
        );
    }

    #[test]
    fn writes_other_records_unchanged() {
        assert!(matches!(
            one_line("all is well: é \u{1f600}\n", false),
            Cow::Borrowed(_)
        ));
    }

    #[test]
    fn escapes_are_valid_in_json() {
        let record = "{\"message\":\"\u{9b}\u{7f}\"}\n";
        let line = one_line(record, false);
        let parsed: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(parsed["message"], "\u{9b}\u{7f}");
        assert!(!line.contains('\u{9b}'));
    }
}
