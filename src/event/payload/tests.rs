use proptest::prelude::*;

use super::*;

fn kind(text: &str) -> Option<ValidationErrorKind> {
    Payload::parse(text).err().map(|breach| breach.kind)
}

fn kind_of_member(value: &str) -> Option<ValidationErrorKind> {
    kind(&format!("{{\"a\":{value}}}"))
}

fn nested(levels: usize) -> String {
    // The outermost level is the object itself, then arrays and objects in turn.
    let opening: String = (1..levels).map(|level| ["{\"a\":", "["][level % 2]).collect();
    let closing: String = (1..levels).rev().map(|level| ["}", "]"][level % 2]).collect();
    format!("{{\"a\":{opening}1{closing}}}")
}

#[test]
fn a_payload_is_an_object() {
    for text in ["[]", "1", "null", "true", "\"{}\"", "[{}]"] {
        assert_eq!(kind(text), Some(ValidationErrorKind::DictType), "{text}");
    }
    assert_eq!(kind("{}"), None);
}

#[test]
fn a_payload_is_json() {
    for text in [
        "",
        " ",
        "{",
        "}",
        "{]",
        "{a:1}",
        "{'a':1}",
        "{\"a\":01}",
        "{\"a\":+1}",
        "{\"a\":.5}",
        "{\"a\":1.}",
        "{\"a\":1e}",
        "{\"a\":-}",
        "{\"a\":NaN}",
        "{\"a\":Infinity}",
        "{\"a\":1,}",
        "{\"a\":[1,]}",
        "{} {}",
        "{}x",
        "\u{feff}{}",
        "{\"a\":\"\n\"}",
        "{\"a\":\"\0\"}",
        "{\"a\":\"\\x\"}",
        "{\"a\":\"\\u12g4\"}",
        "{\"a\":\"\\u+123\"}",
        "{\"a\":\"",
        "{/**/}",
    ] {
        assert_eq!(kind(text), Some(ValidationErrorKind::JsonInvalid), "{text}");
    }
}

#[test]
fn a_payload_has_at_most_256_kib_as_sent() {
    let sized = |bytes: usize| format!("{{\"a\":\"{}\"}}", "x".repeat(bytes - 8));
    assert_eq!(sized(PAYLOAD_BYTES_MAX).len(), PAYLOAD_BYTES_MAX);
    assert_eq!(kind(&sized(PAYLOAD_BYTES_MAX)), None);
    assert_eq!(
        kind(&sized(PAYLOAD_BYTES_MAX + 1)),
        Some(ValidationErrorKind::PayloadTooLarge)
    );
    let blanks = " ".repeat(PAYLOAD_BYTES_MAX - 2);
    assert_eq!(kind(&format!("{{{blanks}}}")), None);
    assert_eq!(
        kind(&format!("{{{blanks} }}")),
        Some(ValidationErrorKind::PayloadTooLarge)
    );
    assert_eq!(kind(&format!("{blanks}{{}}{blanks}")), None);
}

#[test]
fn a_payload_has_at_most_64_levels() {
    assert_eq!(kind(&nested(1)), None);
    assert_eq!(kind(&nested(64)), None);
    assert_eq!(kind(&nested(65)), Some(ValidationErrorKind::PayloadTooDeep));
    assert_eq!(kind(&nested(10_000)), Some(ValidationErrorKind::PayloadTooDeep));
    let flat = format!("{{\"a\":[{}]}}", "[],{},".repeat(1000) + "{}");
    assert_eq!(kind(&flat), None);
    assert_eq!(kind_of_member(&format!("\"{}\"", "[{".repeat(100))), None);
}

#[test]
fn rejects_nul_and_unpaired_surrogates() {
    for text in [
        r"\u0000",
        r"a\u0000",
        r"\\\u0000",
        r"\ud800",
        r"\uD800",
        r"\udbff",
        r"\udc00",
        r"\uDFFF",
        r"\udc00\ud800",
        r"\ud800\ud800",
        r"\ud800\u0041",
        r"\ud83dx\ude00",
        r"\ud83d\\ude00",
        r"\ud83d\n",
        r"\ud83d\ude00\ude00",
        r"\ud83d\ud83d\ude00",
    ] {
        let rejected = Some(ValidationErrorKind::PayloadUnrepresentable);
        assert_eq!(kind_of_member(&format!("\"{text}\"")), rejected, "{text}");
        assert_eq!(kind(&format!("{{\"{text}\":1}}")), rejected, "{text}");
        assert_eq!(kind(&format!("{{\"a\":[{{\"b\":[\"{text}\"]}}]}}")), rejected, "{text}");
    }
}

#[test]
fn accepts_all_other_strings() {
    for text in [
        "",
        "0",
        r"\u0001",
        r"\\u0000",
        r"\\\\u0000",
        r"\\ud800",
        r#"\"\\"#,
        r"\\",
        r"\/\b\f\n\r\t",
        r"\ud83d\ude00",
        r"\uD800\uDC00",
        r"\udbff\udfff",
        r"\ud7ff\ue000",
        r"\uffff",
        "\u{7f}",
        "é\u{2028}😀",
        "{[",
        "1e999",
    ] {
        assert_eq!(kind_of_member(&format!("\"{text}\"")), None, "{text}");
        assert_eq!(kind(&format!("{{\"{text}\":1}}")), None, "{text}");
    }
}

#[test]
fn accepts_finite_doubles() {
    for number in [
        "1e309",
        "-1e309",
        "1E+309",
        "1.8e308",
        "1e400000",
        "1e131071",
        "1e131072",
        "1e99999999999999999999",
        "0.1e310",
        "1e-324",
        "-1e-324",
        "2.4e-324",
        "1e-400",
        "1e-16384",
        "1e-99999999999999999999",
        "0.0001e-330",
        "1.0e-324",
    ] {
        assert_eq!(
            kind_of_member(number),
            Some(ValidationErrorKind::PayloadUnrepresentable),
            "{number}"
        );
        assert_eq!(
            kind_of_member(&format!("[1,{number}]")),
            Some(ValidationErrorKind::PayloadUnrepresentable),
            "{number}"
        );
    }
    for number in [
        "0",
        "-0",
        "0.0",
        "-0.0",
        "0e0",
        "0E+5",
        "0e-5",
        "1",
        "-1",
        "9007199254740993",
        "1e308",
        "1.7976931348623157e308",
        "-1.7976931348623157E+308",
        "5e-324",
        "2.5e-324",
        "1e-323",
        "0.1e309",
        "10e-324",
        "1e00000000000000000000000005",
        "0.30000000000000004",
        "18446744073709551616",
    ] {
        assert_eq!(kind_of_member(number), None, "{number}");
    }
    let rejected = Some(ValidationErrorKind::PayloadUnrepresentable);
    assert_eq!(kind_of_member(&"9".repeat(308)), None);
    assert_eq!(kind_of_member(&"9".repeat(309)), rejected);
    assert_eq!(kind_of_member(&format!("{}.5", "9".repeat(308))), None);
    assert_eq!(kind_of_member(&format!("0.{}1", "0".repeat(322))), None);
    assert_eq!(kind_of_member(&format!("0.{}1", "0".repeat(323))), rejected);
    assert_eq!(kind_of_member(&format!("1{}e-900", "0".repeat(900))), None);
    assert_eq!(kind_of_member(&format!("0.{}1e900", "0".repeat(900))), None);
}

#[test]
fn a_number_has_at_most_1000_characters() {
    let rejected = Some(ValidationErrorKind::PayloadUnrepresentable);
    assert_eq!(kind_of_member(&format!("0.{}", "1".repeat(998))), None);
    assert_eq!(kind_of_member(&format!("0.{}", "1".repeat(999))), rejected);
    assert_eq!(kind_of_member(&format!("-0.{}", "0".repeat(997))), None);
    assert_eq!(kind_of_member(&format!("-0.{}", "0".repeat(998))), rejected);
    assert_eq!(kind_of_member(&format!("1e{}5", "0".repeat(997))), None);
    assert_eq!(kind_of_member(&format!("1e{}5", "0".repeat(998))), rejected);
}

#[test]
fn bounds_the_exponent_of_a_zero() {
    for number in [
        "0e400000",
        "0e999999",
        "-0E+999999",
        "0e1073741822",
        "0e-16383",
        "0.0e-16382",
        "0.000e16",
        "0e0000000000000000000000000005",
    ] {
        assert_eq!(kind_of_member(number), None, "{number}");
    }
    for number in [
        "0e1073741823",
        "0e2147483647",
        "0e99999999999999999999",
        "0e-16384",
        "0.0e-16383",
        "-0.00E-16382",
        "0e-9223372036854775808",
        "0.0e-9223372036854775808",
        "0e-99999999999999999999",
    ] {
        assert_eq!(
            kind_of_member(number),
            Some(ValidationErrorKind::PayloadUnrepresentable),
            "{number}"
        );
    }
}

#[test]
fn one_line_replaces_line_breaks_only() {
    let payload = Payload::parse("\n{\r\n\"a\\n\" :\n1\t}\r").unwrap();
    assert_eq!(payload.as_str(), "{\r\n\"a\\n\" :\n1\t}");
    assert_eq!(payload.one_line(), "{  \"a\\n\" : 1\t}");
    let plain = Payload::parse(r#"{"a\n":1}"#).unwrap();
    assert!(matches!(plain.one_line(), Cow::Borrowed(r#"{"a\n":1}"#)));
}

#[test]
fn debug_shows_no_payload() {
    let payload = Payload::parse(r#"{"secret":1}"#).unwrap();
    assert_eq!(format!("{payload:?}"), "Payload(12 bytes)");
}

/// A JSON value, and whether a payload may contain it; its depth is counted separately.
#[derive(Debug, Clone)]
struct Sample {
    text: String,
    representable: bool,
    levels: usize,
}

fn string() -> impl Strategy<Value = Sample> {
    let good = [
        "a",
        "é",
        "😀",
        r"\\",
        r#"\""#,
        r"\n",
        r"\u0041",
        r"\\u0000",
        r"\ud83d\ude00",
        r"\u0001",
        "{",
        "]",
        "1e999",
    ];
    let bad = [r"\u0000", r"\ud83d!", r"\ude00"];
    let piece = prop_oneof![
        60 => proptest::sample::select(good.to_vec()).prop_map(|text| (text, true)),
        1 => proptest::sample::select(bad.to_vec()).prop_map(|text| (text, false)),
    ];
    proptest::collection::vec(piece, 0..4).prop_map(|pieces| Sample {
        text: format!("\"{}\"", pieces.iter().map(|(text, _)| *text).collect::<String>()),
        representable: pieces.iter().all(|(_, good)| *good),
        levels: 0,
    })
}

fn number() -> impl Strategy<Value = Sample> {
    let digits = proptest::string::string_regex("-?(0|[1-9][0-9]{0,20})(\\.[0-9]{1,30})?").unwrap();
    let exponent = prop_oneof![30 => -250..250i32, 1 => -400..400i32];
    (digits, proptest::option::of(exponent)).prop_map(|(significand, exponent)| {
        let text = exponent.map_or(significand.clone(), |exponent| format!("{significand}e{exponent}"));
        let double: f64 = text.parse().unwrap();
        let zero = significand.parse::<f64>().unwrap() == 0.0;
        Sample {
            text,
            representable: double.is_finite() && (zero || double != 0.0),
            levels: 0,
        }
    })
}

fn joined(parts: &[Sample], opening: &str, closing: &str) -> Sample {
    let texts: Vec<_> = parts.iter().map(|part| part.text.as_str()).collect();
    Sample {
        text: format!("{opening}{}{closing}", texts.join(",\n")),
        representable: parts.iter().all(|part| part.representable),
        levels: 1 + parts.iter().map(|part| part.levels).max().unwrap_or(0),
    }
}

fn member() -> impl Strategy<Value = Sample> {
    let value = prop_oneof![
        string(),
        number(),
        Just(Sample {
            text: "null".into(),
            representable: true,
            levels: 0
        }),
    ]
    .prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(|parts| joined(&parts, "[", "]")),
            proptest::collection::vec((string(), inner), 0..4).prop_map(|members| object(&members)),
        ]
    });
    // So many arrays around the value that the limit of the depth is near.
    (value, prop_oneof![4 => Just(0), 1 => 55..66usize]).prop_map(|(value, arrays)| Sample {
        text: format!("{}{}{}", "[".repeat(arrays), value.text, "]".repeat(arrays)),
        levels: value.levels + arrays,
        ..value
    })
}

fn object(members: &[(Sample, Sample)]) -> Sample {
    let members: Vec<_> = members
        .iter()
        .map(|(key, value)| Sample {
            text: format!("{}: {}", key.text, value.text),
            representable: key.representable && value.representable,
            levels: value.levels,
        })
        .collect();
    joined(&members, "{", "}")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn accepts_payloads_of_allowed_parts(
        sample in proptest::collection::vec((string(), member()), 0..4).prop_map(|members| object(&members))
    ) {
        let accepted = Payload::parse(sample.text.as_str());
        prop_assert_eq!(accepted.is_ok(), sample.representable && sample.levels <= PAYLOAD_DEPTH_MAX, "{}", sample.text);
        if let Ok(payload) = accepted {
            prop_assert_eq!(payload.as_str(), sample.text);
        }
    }

    #[test]
    fn no_text_makes_the_scan_panic(text in "[{}\\[\\]\",:0-9eE.+\\-\\\\ud \n]{0,40}") {
        let _parsed = Payload::parse(format!("{{\"a\":{text}}}"));
        let _parsed = Payload::parse(text);
    }
}
