//! A record of the log is one line, whatever is in it.
//!
//! What others have sent (names, paths, headers, errors of servers) is in the log, and may hold anything. The formatters quote
//! what is a field of its own, but not what is part of a message, and not everything that a terminal obeys. So each record is
//! looked at once more when it is written: this is the one place that sees all of them.

use std::borrow::Cow;
use std::io::{self, Write, stderr};

/// Standard error, on which each record becomes one line.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lines {
    /// Whether the formatter colours its lines. Then colours are let through, and no other escapes.
    pub(super) is_coloured: bool,
}

impl Write for Lines {
    /// Takes a whole record, as the formatter writes it.
    fn write(&mut self, record: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(record);
        stderr()
            .lock()
            .write_all(one_line(&text, self.is_coloured).as_bytes())?;
        Ok(record.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        stderr().flush()
    }
}

/// The record with everything replaced that could end its line, or change how it is shown. What comes instead is right within
/// JSON's strings, too.
fn one_line(record: &str, is_coloured: bool) -> Cow<'_, str> {
    let (text, end) = match record.strip_suffix('\n') {
        Some(text) => (text, "\n"),
        None => (record, ""),
    };
    let directs = |c: char| matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let is_unfit = |c: char| c.is_control() || directs(c);
    if !text.contains(is_unfit) {
        return Cow::Borrowed(record);
    }
    let mut line = String::with_capacity(record.len() + 16);
    for (at, c) in text.char_indices() {
        if is_unfit(c) && !(is_coloured && is_colour(&text[at..])) {
            line.push_str(&format!("\\u{:04x}", u32::from(c)));
        } else {
            line.push(c);
        }
    }
    line.push_str(end);
    Cow::Owned(line)
}

/// Whether a text begins with what sets a colour (ECMA-48, "select graphic rendition").
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
    fn a_record_cannot_end_its_line_nor_speak_to_a_terminal() {
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
    fn a_record_without_such_characters_is_written_as_it_is() {
        assert!(matches!(
            one_line("all is well: é \u{1f600}\n", false),
            Cow::Borrowed(_)
        ));
    }

    #[test]
    fn what_comes_instead_is_the_same_character_in_json() {
        let record = "{\"message\":\"\u{9b}\u{7f}\"}\n";
        let line = one_line(record, false);
        let parsed: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(parsed["message"], "\u{9b}\u{7f}");
        assert!(!line.contains('\u{9b}'));
    }
}
