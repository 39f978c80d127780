//! The digest of a payload's JSON value. Payloads are the same value by the rules of PostgreSQL's `jsonb`.

use std::borrow::Cow;
use std::collections::BTreeMap;

use ring::digest::{SHA256, digest};

/// The first 8 bytes of the SHA-256 of a JSON value in its canonical form: member order and white space do not matter, of a repeated
/// member the last counts, numbers are equal when their exact values are, and strings when they are after their escapes are read.
///
/// The text is that of an accepted payload: it is JSON, and the limit of levels bounds the recursion. A text that is not JSON has
/// the digest of its bytes.
pub(super) fn digest_of(json: &str) -> i64 {
    let mut canonical = Vec::with_capacity(json.len() + 64);
    match Value::read(json) {
        Some(value) => value.write(&mut canonical),
        None => canonical.extend_from_slice(json.as_bytes()),
    }
    let hash = digest(&SHA256, &canonical);
    i64::from_be_bytes(*hash.as_ref().first_chunk().expect("a SHA-256 has 32 bytes"))
}

/// A JSON value, to be written in its canonical form.
enum Value<'a> {
    Object(BTreeMap<Cow<'a, str>, Value<'a>>),
    Array(Vec<Value<'a>>),
    String(Cow<'a, str>),
    Number(Decimal),
    /// `true`, `false` or `null`.
    Word(&'a str),
}

impl<'a> Value<'a> {
    fn read(json: &'a str) -> Option<Self> {
        Reader { rest: json }.value()
    }

    /// Appends the canonical form: a letter for the type, then the parts, each with its length before it, so that no two values have
    /// the same form. Members are in the order of their names' bytes.
    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Object(members) => {
                write_length(b'o', members.len(), out);
                for (name, value) in members {
                    write_length(b's', name.len(), out);
                    out.extend_from_slice(name.as_bytes());
                    value.write(out);
                }
            }
            Self::Array(values) => {
                write_length(b'a', values.len(), out);
                values.iter().for_each(|value| value.write(out));
            }
            Self::String(text) => {
                write_length(b's', text.len(), out);
                out.extend_from_slice(text.as_bytes());
            }
            Self::Number(number) => {
                write_length(if number.is_negative { b'm' } else { b'n' }, number.digits.len(), out);
                out.extend_from_slice(&number.digits);
                out.extend_from_slice(&number.exponent.to_be_bytes());
            }
            // Three words with three first letters of their own.
            Self::Word(word) => out.extend(word.bytes().take(1).map(|letter| letter.to_ascii_uppercase())),
        }
    }
}

fn write_length(kind: u8, length: usize, out: &mut Vec<u8>) {
    let length = u32::try_from(length).expect("a payload is shorter than 4 GiB");
    out.push(kind);
    out.extend_from_slice(&length.to_be_bytes());
}

/// Reads a JSON text that is known to be one, from its front to its end, once.
struct Reader<'a> {
    rest: &'a str,
}

impl<'a> Reader<'a> {
    fn value(&mut self) -> Option<Value<'a>> {
        match self.next()? {
            b'{' => self.object(),
            b'[' => self.array(),
            b'"' => self.string().map(Value::String),
            b'-' | b'0'..=b'9' => {
                let literal = self.take(|byte| matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E'));
                Some(Value::Number(Decimal::of(literal)))
            }
            _ => {
                let word = self.take(|byte| byte.is_ascii_alphabetic());
                (!word.is_empty()).then_some(Value::Word(word))
            }
        }
    }

    fn object(&mut self) -> Option<Value<'a>> {
        let mut members = BTreeMap::new();
        self.skip(b'{')?;
        while self.next()? != b'}' {
            let name = self.string()?;
            self.skip(b':')?;
            // The last of repeated members counts.
            members.insert(name, self.value()?);
            if self.next()? == b',' {
                self.skip(b',')?;
            }
        }
        self.skip(b'}')?;
        Some(Value::Object(members))
    }

    fn array(&mut self) -> Option<Value<'a>> {
        let mut values = Vec::new();
        self.skip(b'[')?;
        while self.next()? != b']' {
            values.push(self.value()?);
            if self.next()? == b',' {
                self.skip(b',')?;
            }
        }
        self.skip(b']')?;
        Some(Value::Array(values))
    }

    /// A string with its escapes read.
    fn string(&mut self) -> Option<Cow<'a, str>> {
        self.next().filter(|byte| *byte == b'"')?;
        let mut is_escaped = false;
        let end = self.rest.bytes().skip(1).position(|byte| {
            let is_end = byte == b'"' && !is_escaped;
            is_escaped = byte == b'\\' && !is_escaped;
            is_end
        })?;
        let (string, rest) = self.rest.split_at(end + 2);
        self.rest = rest;
        if string.contains('\\') {
            serde_json::from_str(string).ok().map(Cow::Owned)
        } else {
            Some(Cow::Borrowed(&string[1..=end]))
        }
    }

    /// Skips white space, and returns the next byte.
    fn next(&mut self) -> Option<u8> {
        self.rest = self.rest.trim_ascii_start();
        self.rest.bytes().next()
    }

    fn skip(&mut self, byte: u8) -> Option<()> {
        self.next().filter(|next| *next == byte)?;
        self.rest = &self.rest[1..];
        Some(())
    }

    fn take(&mut self, belongs: impl Fn(u8) -> bool) -> &'a str {
        let end = self
            .rest
            .bytes()
            .position(|byte| !belongs(byte))
            .unwrap_or(self.rest.len());
        let (taken, rest) = self.rest.split_at(end);
        self.rest = rest;
        taken
    }
}

/// A number's exact value: ±0.DIGITS × 10^EXPONENT, without zeros at either end. Zero has no digits and no sign.
struct Decimal {
    is_negative: bool,
    digits: Vec<u8>,
    exponent: i64,
}

impl Decimal {
    fn of(literal: &str) -> Self {
        let (is_negative, literal) = literal
            .strip_prefix('-')
            .map_or((false, literal), |unsigned| (true, unsigned));
        let (significand, exponent) = literal.split_once(['e', 'E']).unwrap_or((literal, "0"));
        let (whole, fraction) = significand.split_once('.').unwrap_or((significand, ""));
        let all = || whole.bytes().chain(fraction.bytes());
        let zeros = all().take_while(|digit| *digit == b'0').count();
        let mut digits: Vec<u8> = all().skip(zeros).collect();
        while digits.last() == Some(&b'0') {
            digits.pop();
        }
        if digits.is_empty() {
            return Self {
                is_negative: false,
                digits,
                exponent: 0,
            };
        }
        // A number that is neither infinite nor zero as a double has an exponent of four digits at most, and its literal a
        // thousand characters: nothing overflows.
        let point = i64::try_from(whole.len()).unwrap_or(0) - i64::try_from(zeros).unwrap_or(0);
        Self {
            is_negative,
            digits,
            exponent: exponent.parse::<i64>().unwrap_or(0) + point,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn is_same(one: &str, other: &str) -> bool {
        digest_of(one) == digest_of(other)
    }

    /// The form is stored: it must never change.
    #[test]
    fn digest_is_as_stored() {
        assert_eq!(digest_of("{}"), -267_333_767_048_996_440);
        assert_eq!(
            digest_of(r#"{"b":[1.50,-2e3,true,null,false],"a":"x\u0041"}"#),
            -852_647_549_867_277_905
        );
    }

    #[test]
    fn compares_numbers_exactly() {
        for same in [
            "1 1.0 1e0 10e-1 0.1e1 0.01E+2 1.000",
            "-0 0 0.0 0e5 -0.000e-3",
            "1234.5 12345e-1 0.12345e4",
        ] {
            for one in same.split(' ') {
                for other in same.split(' ') {
                    assert!(is_same(one, other), "{one} {other}");
                }
            }
        }
        for (one, other) in [
            ("1", "-1"),
            ("1", "10"),
            ("0.1", "0.01"),
            ("9007199254740993", "9007199254740992"),
            ("1", "1e-1"),
        ] {
            assert!(!is_same(one, other), "{one} {other}");
        }
    }

    #[test]
    fn last_of_repeated_members_counts() {
        assert!(is_same(r#"{"a":1,"\u0061":2}"#, r#"{"a":2}"#));
        assert!(!is_same(r#"{"a":1,"\u0061":2}"#, r#"{"a":1}"#));
    }

    #[test]
    fn values_of_different_types_differ() {
        let kinds = [
            "null",
            "true",
            "false",
            "0",
            "\"\"",
            "[]",
            "{}",
            "\"null\"",
            "[null]",
            "{\"a\":null}",
        ];
        for (number, one) in kinds.iter().enumerate() {
            for (other_number, other) in kinds.iter().enumerate() {
                assert_eq!(is_same(one, other), number == other_number, "{one} {other}");
            }
        }
    }

    proptest! {
        #[test]
        fn number_equals_itself_with_moved_point(digits in "[1-9][0-9]{0,20}", shift in -30i32..30, zeros in 0usize..5) {
            let moved = format!("{digits}{}e{}", "0".repeat(zeros), -i64::from(shift) - i64::try_from(zeros).unwrap());
            let (same, other) = (format!("{digits}e{}", -shift), format!("{digits}1"));
            prop_assert!(is_same(&same, &moved), "{} {}", same, moved);
            prop_assert!(!is_same(&other, &digits), "{}", digits);
        }
    }
}
