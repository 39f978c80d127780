//! When two payloads are the same JSON value.

use super::{Bed, Writer, event, kinds, migrated};
use crate::event::Event;

/// Pairs of texts of the same value, as the member `v` of a payload.
const EQUAL: [(&str, &str); 22] = [
    (r#"{"a":1,"b":2}"#, r#"{"b":2,"a":1}"#),
    (
        r#"{"a":{"c":[1,{"d":2,"e":3}],"b":4}}"#,
        r#"{"a":{"b":4,"c":[1,{"e":3,"d":2}]}}"#,
    ),
    ("[1,2]", "[ 1,\r\n\t2 ]"),
    ("1.0", "1"),
    ("1e2", "100"),
    ("1E+2", "1e2"),
    ("1e-2", "0.01"),
    ("0.10", "0.1"),
    ("-0", "0"),
    ("0.000", "0"),
    ("0e10", "-0.0"),
    ("123456789012345678901234567890.0", "123456789012345678901234567890"),
    ("1e40", "10000000000000000000000000000000000000000"),
    (r#"{"a":1,"a":2}"#, r#"{"a":2}"#),
    (r#"{"a":{"b":1},"c":0,"a":{"b":1,"b":2}}"#, r#"{"c":0,"a":{"b":2}}"#),
    (r#"{"a":1,"\u0061":2}"#, r#"{"a":2}"#),
    (r#""\u0041""#, r#""A""#),
    (r#""\/""#, r#""/""#),
    (r#""\ud83d\ude00""#, r#""😀""#),
    (r#""\u00E9""#, r#""é""#),
    (r#""\n""#, r#""\u000a""#),
    (r#"{"\u0041":true}"#, r#"{"A":true}"#),
];

/// Pairs of texts of different values.
const DIFFERENT: [(&str, &str); 26] = [
    ("9007199254740993", "9007199254740992"),
    ("0.1", "0.1000000000000000055511151231257827"),
    ("1e-300", "2e-300"),
    ("1e308", "1.0000000000000000000001e308"),
    ("1", "-1"),
    ("true", r#""true""#),
    ("true", "1"),
    ("false", "0"),
    ("null", "0"),
    ("null", r#""null""#),
    ("null", "false"),
    ("1", r#""1""#),
    (r#""""#, "null"),
    ("[]", "{}"),
    ("[]", "null"),
    ("[]", "[[]]"),
    ("[1]", "1"),
    ("[1,2]", "[2,1]"),
    ("[1]", "[1,1]"),
    (r#"{"a":null}"#, "{}"),
    (r#"{"a":1,"a":2}"#, r#"{"a":1}"#),
    (r#"{"a":1}"#, r#"{"A":1}"#),
    (r#""a""#, r#""A""#),
    (r#""a""#, r#""a ""#),
    ("\"\u{e9}\"", "\"e\u{301}\""),
    (r#""\\u0041""#, r#""A""#),
];

pub(super) async fn equal_values_are_duplicates(bed: &dyn Bed) {
    compare(bed, &EQUAL, "duplicate").await;
}

pub(super) async fn other_values_are_conflicts(bed: &dyn Bed) {
    compare(bed, &DIFFERENT, "conflict").await;
}

/// Sends each pair in both orders, as two flushes and as one.
async fn compare(bed: &dyn Bed, pairs: &[(&str, &str)], expected: &str) {
    let store = migrated(bed).await;
    let mut writer = Writer::of(&store).await;
    let payload = |text: &str| format!(r#"{{"v":{text}}}"#);
    for (number, (one, other)) in pairs.iter().enumerate() {
        for (direction, pair) in [("to", [one, other]), ("fro", [other, one])] {
            let event =
                |way: &str, text: &str| -> Event { event(way, &format!("{number} {direction}"), &payload(text)) };
            assert_eq!(kinds(&writer.send(&[event("apart", pair[0])]).await), ["stored"]);
            assert_eq!(
                kinds(&writer.send(&[event("apart", pair[1])]).await),
                [expected],
                "{pair:?}"
            );
            let together = writer
                .send(&[event("together", pair[0]), event("together", pair[1])])
                .await;
            assert_eq!(kinds(&together), ["stored", expected], "{pair:?}");
        }
    }
}
