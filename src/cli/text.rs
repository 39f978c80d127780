//! Stored texts on a terminal.

use std::fmt::Write;

use crate::telemetry::is_unsafe;

/// The text with every character escaped that could drive a terminal or reorder its line ([`is_unsafe`]). Escapes are those of JSON,
/// such as `\u001b`.
pub(crate) fn printable(text: &str) -> String {
    escaped(text, is_unsafe)
}

/// The same for several lines.
pub(crate) fn printable_lines(text: &str) -> String {
    escaped(text, |character| character != '\n' && is_unsafe(character))
}

fn escaped(text: &str, is_escaped: impl Fn(char) -> bool) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        if is_escaped(character) {
            write!(shown, "\\u{:04x}", u32::from(character)).expect("writing to a string cannot fail");
        } else {
            shown.push(character);
        }
    }
    shown
}

/// At most `chars_max` characters of `text`. A text that is cut ends with `…`.
pub(crate) fn cut(text: &str, chars_max: usize) -> String {
    match text.char_indices().nth(chars_max) {
        None => text.to_owned(),
        Some((end, _)) => {
            let last = text[..end].char_indices().next_back().map_or(0, |(start, _)| start);
            format!("{}…", &text[..last])
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_escaped_and_others_stay() {
        let text = "a\u{1b}[31m\r\n\t\u{7f}\u{9b}é😀\u{2028}\u{202e}";
        assert_eq!(
            printable(text),
            "a\\u001b[31m\\u000d\\u000a\\u0009\\u007f\\u009bé😀\\u2028\\u202e"
        );
    }

    #[test]
    fn long_texts_are_cut_at_a_character() {
        assert_eq!(cut("äöü", 3), "äöü");
        assert_eq!(cut("äöüß", 3), "äö…");
    }
}
