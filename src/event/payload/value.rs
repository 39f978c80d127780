//! When two payloads are the same JSON value: the rules of PostgreSQL's `jsonb`, for stores that have none.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::value::RawValue;

/// Whether two JSON texts are the same value: member order and white space do not matter, of a repeated member the last
/// counts, numbers are equal when their exact values are, and strings when they are after their escapes are read.
///
/// Both must be texts that [`super::Payload`] accepted: its limit of levels bounds the recursion.
pub(super) fn is_same(one: &str, other: &str) -> bool {
    let (one, other) = (one.trim_ascii(), other.trim_ascii());
    if one == other {
        return true;
    }
    match (kind(one), kind(other)) {
        (Kind::Object, Kind::Object) => pair(one, other, |one: Members<'_>, other: Members<'_>| {
            one.len() == other.len()
                && one.iter().zip(&other).all(|((one_key, one), (other_key, other))| {
                    one_key.0 == other_key.0 && is_same(one.get(), other.get())
                })
        }),
        (Kind::Array, Kind::Array) => pair(one, other, |one: Vec<&RawValue>, other: Vec<&RawValue>| {
            one.len() == other.len()
                && one
                    .iter()
                    .zip(&other)
                    .all(|(one, other)| is_same(one.get(), other.get()))
        }),
        (Kind::String, Kind::String) => pair(one, other, |one: Text<'_>, other: Text<'_>| one.0 == other.0),
        (Kind::Number, Kind::Number) => Decimal::of(one) == Decimal::of(other),
        // true, false and null have one spelling each, and were met as equal texts.
        _ => false,
    }
}

/// The members of an object, by name; of those with one name the last.
type Members<'a> = BTreeMap<Text<'a>, &'a RawValue>;

/// A string with its escapes read.
#[derive(PartialEq, Eq, PartialOrd, Ord, Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

#[derive(Clone, Copy)]
enum Kind {
    Object,
    Array,
    String,
    Number,
    Word,
}

fn kind(json: &str) -> Kind {
    match json.as_bytes().first() {
        Some(b'{') => Kind::Object,
        Some(b'[') => Kind::Array,
        Some(b'"') => Kind::String,
        Some(b'-' | b'0'..=b'9') => Kind::Number,
        _ => Kind::Word,
    }
}

/// Reads both texts as `T` and compares them; texts that are no such JSON are never the same.
fn pair<'a, T: Deserialize<'a>>(one: &'a str, other: &'a str, is_same: impl FnOnce(T, T) -> bool) -> bool {
    match (serde_json::from_str(one), serde_json::from_str(other)) {
        (Ok(one), Ok(other)) => is_same(one, other),
        _ => false,
    }
}

/// A number's exact value: ±0.DIGITS × 10^EXPONENT, without zeros at either end. Zero has no digits and no sign.
#[derive(PartialEq, Eq)]
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

    #[test]
    fn numbers_are_the_same_when_their_exact_values_are() {
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
    fn the_last_of_a_repeated_member_counts_however_its_name_is_written() {
        assert!(is_same(r#"{"a":1,"\u0061":2}"#, r#"{"a":2}"#));
        assert!(!is_same(r#"{"a":1,"\u0061":2}"#, r#"{"a":1}"#));
    }

    #[test]
    fn values_of_different_kinds_are_never_the_same() {
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
        fn a_number_is_the_same_with_its_point_moved(digits in "[1-9][0-9]{0,20}", shift in -30i32..30, zeros in 0usize..5) {
            let moved = format!("{digits}{}e{}", "0".repeat(zeros), -i64::from(shift) - i64::try_from(zeros).unwrap());
            let (same, other) = (format!("{digits}e{}", -shift), format!("{digits}1"));
            prop_assert!(is_same(&same, &moved), "{} {}", same, moved);
            prop_assert!(!is_same(&other, &digits), "{}", digits);
        }
    }
}
