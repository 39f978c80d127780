//! When two payloads are the same JSON value.

use proptest::prelude::*;
use proptest::sample::Index;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

use super::postgres::on_postgres;
use super::{TestDatabase, Writer, event, kinds, migrated};
use crate::event::{Event, Payload};

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

pub(super) async fn equal_values_are_duplicates(db: &dyn TestDatabase) {
    compare(db, &EQUAL, "duplicate").await;
}

pub(super) async fn different_values_are_conflicts(db: &dyn TestDatabase) {
    compare(db, &DIFFERENT, "conflict").await;
}

/// Sends each pair in both orders, as two batches and as one.
async fn compare(db: &dyn TestDatabase, pairs: &[(&str, &str)], expected: &str) {
    let store = migrated(db).await;
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

/// Spellings of the same value in one line, of others in the others.
const SPELLINGS: [&[&str]; 12] = [
    &["null", " null"],
    &["true"],
    &["0", "-0", "0.00", "0e7"],
    &["1", "1.0", "10e-1", "0.1E1"],
    &["-1", "-1.000", "-0.01e2"],
    &["9007199254740993", "9007199254740993.0", "9007199254740.993e3"],
    &["9007199254740992", "900719925474099200e-2"],
    &["1e-300", "0.1e-299"],
    &[r#""a""#, r#""\u0061""#],
    &[r#""A""#, r#""\u0041""#],
    &[r#""1""#],
    &[r#""😀/""#, r#""\ud83d\ude00\/""#],
];

/// The names of members, in the same way.
const NAMES: [&[&str]; 3] = [&[r#""a""#, r#""\u0061""#], &[r#""b""#], &[r#""A""#]];

/// A value spelled twice. Most often it is the same value.
type Twice = (String, String);

fn spelled_twice(lines: &'static [&'static [&'static str]]) -> impl Strategy<Value = Twice> {
    (any::<Index>(), any::<Index>(), any::<[Index; 2]>(), 0..20u8).prop_map(move |(line, other, spellings, luck)| {
        let one = line.get(lines);
        let other = if luck == 0 { other.get(lines) } else { one };
        (spellings[0].get(one).to_string(), spellings[1].get(other).to_string())
    })
}

fn value_twice() -> impl Strategy<Value = Twice> {
    let leaf = spelled_twice(&SPELLINGS);
    leaf.prop_recursive(3, 12, 4, |value| {
        let array = prop::collection::vec(value.clone(), 0..4).prop_map(|values| {
            let join = |texts: Vec<String>| format!("[{}]", texts.join(", "));
            let (one, other): (Vec<_>, Vec<_>) = values.into_iter().unzip();
            (join(one), join(other))
        });
        prop_oneof![array, object_twice(value)]
    })
}

fn object_twice(value: impl Strategy<Value = Twice>) -> impl Strategy<Value = Twice> {
    let members = prop::collection::vec((spelled_twice(&NAMES), value), 0..4);
    (members, any::<bool>()).prop_map(|(members, turned)| {
        let join = |texts: Vec<String>| format!("{{{}}}", texts.join(","));
        let spell = |((one_name, other_name), (one, other)): (Twice, Twice)| {
            (format!("{one_name}:{one}"), format!("{other_name} : {other}"))
        };
        let (one, mut other): (Vec<_>, Vec<_>) = members.into_iter().map(spell).unzip();
        if turned {
            other.reverse();
        }
        (join(one), join(other))
    })
}

/// Two digests are the same where PostgreSQL's `jsonb` finds the values equal.
#[test]
fn random_payloads_compare_as_in_postgresql() {
    on_postgres(async |db| {
        let (mut runner, payload) = (TestRunner::default(), object_twice(value_twice()));
        let pairs: Vec<Twice> = (0..5000)
            .map(|_| payload.new_tree(&mut runner).unwrap().current())
            .collect();
        let (ones, others): (Vec<_>, Vec<_>) = pairs.iter().cloned().unzip();
        let equal: Vec<bool> = sqlx::query_scalar(
            "select one::jsonb = other::jsonb from unnest($1::text[], $2::text[]) with ordinality as pair(one, other, number)
             order by number",
        )
        .bind(&ones)
        .bind(&others)
        .fetch_all(&mut db.connect().await)
        .await
        .unwrap();
        let mut same = 0;
        for ((one, other), expected) in pairs.into_iter().zip(equal) {
            let payload = |text: &str| Payload::parse(text.to_owned()).unwrap();
            assert_eq!(
                payload(&one).digest() == payload(&other).digest(),
                expected,
                "{one} {other}"
            );
            same += u32::from(expected);
        }
        assert!(
            (500..4500).contains(&same),
            "both outcomes occur: {same} of 5000 are the same"
        );
    });
}
