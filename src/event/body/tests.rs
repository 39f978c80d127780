use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::event::payload::PAYLOAD_BYTES_MAX;

const MAX: usize = 10;

const EVENT: &str = r#"{"topic":"t","event_id":"e","timestamp":"2025-10-24T10:30:00Z","source":"s","payload":{"a":1}}"#;

fn body(text: impl AsRef<[u8]>) -> Bytes {
    Bytes::copy_from_slice(text.as_ref())
}

fn parsed(text: impl AsRef<[u8]>) -> Parsed {
    parse_json(&body(text), MAX).unwrap()
}

fn lines(text: impl AsRef<[u8]>) -> Parsed {
    parse_lines(&body(text), MAX).unwrap()
}

/// The errors as they are answered, without their messages.
fn answered(errors: &[ValidationError]) -> Vec<(String, String)> {
    let loc = |error: &ValidationError| serde_json::to_string(&error.loc).unwrap();
    let answered = |error: &ValidationError| (error.kind.to_string(), loc(error));
    errors.iter().map(answered).collect()
}

fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    let pair = |(kind, loc): &(&str, &str)| ((*kind).to_owned(), (*loc).to_owned());
    expected.iter().map(pair).collect()
}

#[track_caller]
fn assert_rejected(parsed: Parsed, expected: &[(&str, &str)]) {
    assert_eq!(answered(&parsed.into_errors()), pairs(expected));
}

#[track_caller]
fn assert_fails(text: impl AsRef<[u8]>, expected: (&str, &str)) {
    let errors = parse_json(&body(text), MAX).unwrap_err();
    assert_eq!(answered(&errors), pairs(&[expected]));
}

fn event_with(member: &str, value: &str) -> String {
    let members = [
        ("topic", r#""t""#),
        ("event_id", r#""e""#),
        ("timestamp", r#""2025-10-24T10:30:00Z""#),
        ("source", r#""s""#),
        ("payload", "{}"),
    ];
    let write = |(name, given): (&str, &str)| format!("\"{name}\":{}", if name == member { value } else { given });
    format!("{{{}}}", members.map(write).join(","))
}

#[test]
fn reads_every_shape() {
    for (text, shape, count) in [
        (EVENT.to_owned(), Shape::One, 1),
        (format!(" \r\n\t{EVENT}\n"), Shape::One, 1),
        ("[]".to_owned(), Shape::Array, 0),
        (format!("[{EVENT}]"), Shape::Array, 1),
        (format!("\n[ {EVENT} ,\n{EVENT} ] "), Shape::Array, 2),
        (r#"{"events":[]}"#.to_owned(), Shape::Envelope, 0),
        (format!(r#"{{"events":[{EVENT},{EVENT}]}}"#), Shape::Envelope, 2),
        (
            format!(r#"{{"headers":5,"headers":6,"id":1,"events":[{EVENT}],"type":1}}"#),
            Shape::Envelope,
            1,
        ),
        (format!(r#"{{"\u0065vents":[{EVENT}]}}"#), Shape::Envelope, 1),
    ] {
        let parsed = parsed(&text);
        assert_eq!((parsed.shape, parsed.events.len()), (shape, count), "{text}");
        assert_eq!(parsed.indices, (0..count).collect::<Vec<_>>());
        assert_eq!(parsed.rejected, []);
    }
}

#[test]
fn the_members_become_the_event() {
    let event = &parsed(EVENT).events[0];
    assert_eq!(event.topic.as_str(), "t");
    assert_eq!(event.event_id.as_str(), "e");
    assert_eq!(event.occurred_at.to_string(), "2025-10-24T10:30:00Z");
    assert_eq!(event.source.as_str(), "s");
    assert_eq!(event.payload.as_str(), r#"{"a":1}"#);
}

#[test]
fn headers_are_optional() {
    let with = |headers: &str| EVENT.replacen('{', &format!("{{\"headers\":{headers},"), 1);
    for (text, expected) in [
        (EVENT.to_owned(), None),
        (with("{}"), None),
        (with(r#"{ "a":"b" }"#), Some(r#"{ "a":"b" }"#)),
        (
            with(r#"{"a":"b"}"#).replace("headers", r"\u0068eaders"),
            Some(r#"{"a":"b"}"#),
        ),
    ] {
        for parsed in [parsed(&text), lines(&text)] {
            let headers = parsed.events[0]
                .headers
                .as_ref()
                .map(|headers| headers.as_str().to_owned());
            assert_eq!(headers.as_deref(), expected, "{text}");
        }
    }
    for (headers, kind) in [
        ("null", "dict_type"),
        (r#"{"a":1}"#, "string_type"),
        (r#"{"a":"\u0000"}"#, "string_pattern_mismatch"),
        (r#"{"a":"b"},"headers":{}"#, "repeated_member"),
    ] {
        assert_rejected(parsed(with(headers)), &[(kind, r#"["body","headers"]"#)]);
    }
}

#[test]
fn text_is_a_slice_of_the_body() {
    let body = body(EVENT);
    let within = |text: &str| body.as_ptr_range().contains(&text.as_ptr());
    let event = parse_json(&body, MAX).unwrap().events.remove(0);
    assert!(within(event.topic.as_str()) && within(event.event_id.as_str()));
    assert!(within(event.source.as_str()) && within(event.payload.as_str()));
}

#[test]
fn escapes_in_keys_and_strings_are_decoded() {
    let text = EVENT
        .replace(r#""topic":"t""#, r#""\u0074opic":"a\u002eb\/\ud83d\ude00""#)
        .replace(r#""event_id":"e""#, r#""event_id":"\"\\""#)
        .replace("2025-", r"2025\u002d");
    let event = &parsed(text).events[0];
    assert_eq!(event.topic.as_str(), "a.b/😀");
    assert_eq!(event.event_id.as_str(), r#""\"#);
    assert_eq!(event.occurred_at.to_string(), "2025-10-24T10:30:00Z");
}

#[test]
fn members_that_are_not_listed_are_ignored() {
    for extra in [
        r#""x":1"#,
        r#""x":1,"x":2"#,
        r#""Topic":1"#,
        r#""topic ":1"#,
        r#""":null"#,
        r#""\ud800":1"#,
        r#""\u0000":"\u0000""#,
        r#""\"topic\"":1"#,
        r#""x":1e400000"#,
        r#""x":"\ud800""#,
        r#""cursor":"…","received_at":5"#,
    ] {
        for text in [
            EVENT.replacen('{', &format!("{{{extra},"), 1),
            EVENT.replace("}}", &format!("}},{extra}}}")),
        ] {
            assert_eq!(parsed(&text).events.len(), 1, "{text}");
            assert_eq!(parsed(format!("[{text}]")).events.len(), 1, "{text}");
            assert_eq!(lines(&text).events.len(), 1, "{text}");
        }
    }
}

#[test]
fn a_member_events_inside_a_batch_is_no_envelope() {
    let text = EVENT.replacen('{', r#"{"events":5,"#, 1);
    assert_eq!(parsed(format!("[{text}]")).events.len(), 1);
    assert_eq!(lines(&text).events.len(), 1);
    assert_fails(&text, ("list_type", r#"["body","events"]"#));
}

#[test]
fn returns_all_errors_in_the_order_of_the_members() {
    let text = r#"{"payload":[],"source":null,"event_id":"","topic":"a b"}"#;
    let errors = |prefix: &str| {
        [
            ("string_pattern_mismatch", "topic"),
            ("string_too_short", "event_id"),
            ("missing", "timestamp"),
            ("string_type", "source"),
            ("dict_type", "payload"),
        ]
        .map(|(kind, member)| (kind.to_owned(), format!("{prefix},\"{member}\"]")))
    };
    let answered = |parsed: Parsed| answered(&parsed.into_errors());
    assert_eq!(answered(parsed(text)), errors(r#"["body""#));
    assert_eq!(answered(parsed(format!("[{EVENT},{text}]"))), errors(r#"["body",1"#));
    let envelope = format!(r#"{{"events":[{EVENT},{text}]}}"#);
    assert_eq!(answered(parsed(envelope)), errors(r#"["body","events",1"#));
    assert_eq!(answered(lines(format!("{EVENT}\n\n{text}"))), errors(r#"["line",3"#));
}

#[test]
fn each_member_has_its_rules() {
    let long = format!("\"{}\"", "x".repeat(256));
    let escaped = format!("\"{}\"", r"\u0078".repeat(256));
    let escaped_fits = format!("\"{}\"", r"\u0078".repeat(255));
    for member in ["topic", "event_id", "source"] {
        for (value, kind) in [
            ("1", "string_type"),
            ("null", "string_type"),
            ("true", "string_type"),
            ("{}", "string_type"),
            (r#"["t"]"#, "string_type"),
            (r#""""#, "string_too_short"),
            (&long, "string_too_long"),
            (&escaped, "string_too_long"),
            (r#""a\u0000""#, "string_pattern_mismatch"),
            (r#""a\nb""#, "string_pattern_mismatch"),
            ("\"a\u{7f}\"", "string_pattern_mismatch"),
            ("\"a\u{85}\"", "string_pattern_mismatch"),
            (r#""\ud800""#, "string_pattern_mismatch"),
        ] {
            let loc = format!(r#"["body","{member}"]"#);
            assert_rejected(parsed(event_with(member, value)), &[(kind, &loc)]);
        }
        for value in [r#""';--""#, r#""\u00e9""#, r#""*""#, &escaped_fits] {
            assert_eq!(parsed(event_with(member, value)).events.len(), 1, "{value}");
        }
    }
    for (value, kind) in [
        ("1761301800", "string_type"),
        ("null", "string_type"),
        (r#""""#, "datetime_parsing"),
        (r#""2025-10-24""#, "datetime_parsing"),
        (r#""2025-10-24T23:59:60Z""#, "datetime_parsing"),
        (r#""294277-01-01T00:00:00Z""#, "datetime_parsing"),
        (r#""4714-11-23 BC""#, "datetime_parsing"),
        (r#""infinity""#, "datetime_parsing"),
    ] {
        let expected = [(kind, r#"["body","timestamp"]"#)];
        assert_rejected(parsed(event_with("timestamp", value)), &expected);
    }
}

/// Every input of the table of poison events; none may reach a store.
#[test]
fn rejects_payloads_that_no_store_can_hold() {
    let deep = format!("{{\"a\":{}{}}}", "[".repeat(20_000), "]".repeat(20_000));
    let large = format!("{{\"a\":\"{}\"}}", "x".repeat(PAYLOAD_BYTES_MAX));
    let digits = format!("{{\"a\":{}}}", "1".repeat(1001));
    for (payload, kind) in [
        ("null", "dict_type"),
        ("[]", "dict_type"),
        (r#""{}""#, "dict_type"),
        (r#"{"a":"\u0000"}"#, "payload_unrepresentable"),
        (r#"{"\u0000":1}"#, "payload_unrepresentable"),
        (r#"{"a":"\ud800"}"#, "payload_unrepresentable"),
        (r#"{"a":"\ude00\ud83d"}"#, "payload_unrepresentable"),
        (r#"{"a":1e131072}"#, "payload_unrepresentable"),
        (r#"{"a":1e131071}"#, "payload_unrepresentable"),
        (r#"{"a":1e-16384}"#, "payload_unrepresentable"),
        (r#"{"a":1e400000}"#, "payload_unrepresentable"),
        (r#"{"a":1e309}"#, "payload_unrepresentable"),
        (r#"{"a":1e-400}"#, "payload_unrepresentable"),
        (&digits, "payload_unrepresentable"),
        (&deep, "payload_too_deep"),
        (&large, "payload_too_large"),
    ] {
        let text = event_with("payload", payload);
        assert_rejected(parsed(&text), &[(kind, r#"["body","payload"]"#)]);
        let batch = parsed(format!("[{EVENT},{text},{EVENT}]"));
        assert_eq!(batch.indices, [0, 2]);
        assert_rejected(batch, &[(kind, r#"["body",1,"payload"]"#)]);
    }
    for payload in [
        r#"{"b":1.0,"a":1e2,"b":2.10}"#,
        r#"{"n":9007199254740993}"#,
        r#"{"a":-0.0}"#,
    ] {
        let parsed = parsed(event_with("payload", payload));
        assert_eq!(parsed.events[0].payload.as_str(), payload);
    }
}

#[test]
fn rejects_a_repeated_member() {
    for (extra, member) in [
        (r#""topic":"t""#, "topic"),
        (r#""\u0074opic":"t""#, "topic"),
        (r#""payload":{}"#, "payload"),
        (r#""timestamp":null,"timestamp":null"#, "timestamp"),
    ] {
        let text = EVENT.replacen('{', &format!("{{{extra},"), 1);
        let loc = format!(r#"["body","{member}"]"#);
        assert_rejected(parsed(text), &[("repeated_member", &loc)]);
    }
}

#[test]
fn rejects_events_that_are_not_objects() {
    for scalar in ["null", "1", "1e400", r#""x""#, r#""\ud800""#, "true"] {
        assert_rejected(parsed(scalar), &[("dict_type", r#"["body"]"#)]);
    }
    for element in ["null", "1", "1e400", r#""x""#, r#""\ud800""#, "true", "[]", "[{}]"] {
        let batch = parsed(format!("[{EVENT},{element}]"));
        assert_eq!(batch.events.len(), 1);
        assert_rejected(batch, &[("dict_type", r#"["body",1]"#)]);
        let batch = lines(format!("{element}\n{EVENT}"));
        assert_eq!(batch.indices, [1]);
        assert_rejected(batch, &[("dict_type", r#"["line",1]"#)]);
    }
}

#[test]
fn a_body_that_is_not_json_fails_as_a_whole() {
    for text in [
        "",
        " ",
        "{",
        "[",
        "]",
        "{]",
        "nul",
        "{} {}",
        "[] x",
        "[{},]",
        "[1 2]",
        r#"{"events":[}"#,
        r#"{"events":[]"#,
        r#"{"events":5"#,
        r#"{"events":[],}"#,
        r#"{"topic":"a"#,
        "{\"topic\":\"a\nb\"}",
        r#"{"x":01}"#,
        r#"{"x":"\x"}"#,
        r#"{x:1}"#,
        r#"{1:1}"#,
        r#"[{"x":tru}]"#,
        "\u{feff}{}",
        "\u{a0}{}",
    ] {
        assert_fails(text, ("json_invalid", r#"["body"]"#));
    }
    let message = |error: &ValidationError| error.msg.to_string();
    for text in ["\u{feff}{}", "\u{feff}[]"] {
        let errors = parse_json(&Bytes::from(text), 10).unwrap_err();
        assert_eq!(
            message(&errors[0]),
            "Invalid JSON: it begins with a byte order mark; leave that out"
        );
    }
    let lines = parse_lines(&Bytes::from("\u{feff}{}\n{}"), 10).unwrap();
    assert_eq!(
        message(&lines.rejected[0].errors[0]),
        "Invalid JSON: it begins with a byte order mark; leave that out"
    );
    assert_fails(b"{\"x\":\"\xff\"}", ("json_invalid", r#"["body"]"#));
    assert_fails(b"\xed\xa0\x80", ("json_invalid", r#"["body"]"#));
}

#[test]
fn events_is_one_list() {
    for value in ["{}", "null", "5", "1e400", r#""[]""#, r#""\ud800""#, "true"] {
        let text = format!(r#"{{"events":{value},"x":[]}}"#);
        assert_fails(text, ("list_type", r#"["body","events"]"#));
    }
    let twice = r#"{"events":[],"events":[]}"#;
    assert_fails(twice, ("repeated_member", r#"["body","events"]"#));
    for member in ["topic", "event_id", "timestamp", "source", "payload"] {
        for text in [
            format!(r#"{{"{member}":null,"events":[]}}"#),
            format!(r#"{{"events":[{EVENT}],"{member}":1,"{member}":2}}"#),
        ] {
            assert_fails(text, ("ambiguous_body", r#"["body"]"#));
        }
    }
}

#[test]
fn a_request_has_at_most_so_many_events() {
    let list = |count: usize| format!("[{}]", vec![EVENT; count].join(","));
    assert_eq!(parsed(list(MAX)).events.len(), MAX);
    assert_fails(list(MAX + 1), ("list_too_long", r#"["body"]"#));
    let envelope = format!(r#"{{"events":{}}}"#, list(MAX + 1));
    assert_fails(envelope, ("list_too_long", r#"["body","events"]"#));
    assert_fails("[1,1,1,1,1,1,1,1,1,1,1", ("list_too_long", r#"["body"]"#));

    let many = format!("{EVENT}\n\n").repeat(MAX);
    assert_eq!(lines(&many).events.len(), MAX);
    for text in [many + EVENT, "x\n".repeat(MAX + 1)] {
        let errors = parse_lines(&body(text), MAX).unwrap_err();
        assert_eq!(answered(&errors), pairs(&[("list_too_long", r#"["body"]"#)]));
    }
}

#[test]
fn blank_lines_are_skipped_but_counted() {
    let parsed = lines(format!("\n{EVENT}\r\n \t\r\n\n{{}}x\n{EVENT}\n5"));
    assert_eq!(parsed.shape, Shape::Lines);
    assert_eq!(parsed.lines, [2, 5, 6, 7]);
    assert_eq!(parsed.indices, [0, 2]);
    assert_eq!(parsed.count(), 4);
    assert_eq!(parsed.loc(2), [Loc::name("line"), Loc::Index(6)]);
    let rejected: Vec<_> = parsed.rejected.iter().map(|rejected| rejected.index).collect();
    assert_eq!(rejected, [1, 3]);
    assert_rejected(
        parsed,
        &[("json_invalid", r#"["line",5]"#), ("dict_type", r#"["line",7]"#)],
    );
    for text in ["", "\n", " \r\n\n\t"] {
        assert_eq!(lines(text).count(), 0);
    }
}

#[test]
fn a_line_that_is_not_json_does_not_affect_others() {
    let mut text = format!("{EVENT}\n").into_bytes();
    text.extend_from_slice(b"{\"x\":\"\xff\"}\n{\"topic\":\n\xef\xbb\xbf{}\n");
    text.extend_from_slice(EVENT.as_bytes());
    let parsed = lines(text);
    assert_eq!(parsed.indices, [0, 4]);
    let msg = &parsed.rejected[1].errors[0].msg;
    assert_eq!(msg, "Invalid JSON: EOF while parsing a value at column 9");
    let invalid = [2, 3, 4].map(|line| ("json_invalid".to_owned(), format!(r#"["line",{line}]"#)));
    assert_eq!(answered(&parsed.into_errors()), invalid);
}

#[test]
fn keeps_one_error_an_event_beyond_a_hundred() {
    let text = format!("[{}]", vec!["{}"; 30].join(","));
    let parsed = parse_json(&body(text), 30).unwrap();
    let counts: Vec<_> = parsed.rejected.iter().map(|rejected| rejected.errors.len()).collect();
    assert_eq!(counts, [[5; 20].as_slice(), &[1; 10]].concat());
    assert_eq!(parsed.into_errors().len(), VALIDATION_ERRORS_MAX);
}

#[test]
fn deep_nesting_does_not_overflow_the_stack() {
    let deep = "[".repeat(1_000_000);
    let closed = format!("{deep}{}", "]".repeat(1_000_000));
    let objects = "{\"a\":".repeat(300_000);
    for text in [
        deep.clone(),
        objects.clone(),
        format!("{{\"x\":{deep}"),
        format!("{{\"events\":{objects}"),
    ] {
        let errors = parse_json(&body(text), MAX).unwrap_err();
        assert_eq!(errors[0].kind, ValidationErrorKind::JsonInvalid);
    }
    assert_rejected(parsed(&closed), &[("dict_type", r#"["body",0]"#)]);
    assert_rejected(lines(&closed), &[("dict_type", r#"["line",1]"#)]);
    let text = EVENT.replacen('{', &format!("{{\"x\":{closed},"), 1);
    assert_eq!(parsed(text).events.len(), 1);
}

#[test]
fn locates_events_of_every_shape() {
    for (shape, loc) in [
        (Shape::One, r#"["body"]"#),
        (Shape::Array, r#"["body",3]"#),
        (Shape::Envelope, r#"["body","events",3]"#),
        (Shape::Lines, r#"["line",3]"#),
    ] {
        assert_eq!(serde_json::to_string(&shape.loc(3)).unwrap(), loc);
    }
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "[^\0]{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 5, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            object(inner).prop_map(Value::from),
        ]
    })
}

fn object(value: impl Strategy<Value = Value>) -> impl Strategy<Value = serde_json::Map<String, Value>> {
    proptest::collection::btree_map("[^\0]{0,4}", value, 0..5).prop_map(|map| map.into_iter().collect())
}

/// Any name that is not blank: blank ones are rejected.
fn name_of_sender() -> impl Strategy<Value = String> {
    "\\P{Cc}{1,60}".prop_filter("blank", |name| !name.trim().is_empty())
}

proptest! {
    #[test]
    fn an_accepted_body_gives_back_what_was_sent(
        topic in "[^\\p{Cc}\\p{White_Space}]{1,60}",
        event_id in name_of_sender(),
        source in name_of_sender(),
        payload in object(value()),
        pretty in any::<bool>(),
    ) {
        let payload = if pretty { serde_json::to_string_pretty(&payload) } else { serde_json::to_string(&payload) }.unwrap();
        let text = format!(
            "{{\"payload\":{payload},\"source\":{},\"topic\":{},\"timestamp\":\"2025-10-24 10:30\",\"event_id\":{}}}",
            json!(source), json!(topic), json!(event_id)
        );
        for (parsed, one_line) in [(parsed(&text), false), (parsed(format!("[{text}]")), false), (lines(text.replace('\n', " ")), true)] {
            prop_assert_eq!(&parsed.rejected, &[]);
            let event = &parsed.events[0];
            prop_assert_eq!(event.topic.as_str(), &topic);
            prop_assert_eq!(event.event_id.as_str(), &event_id);
            prop_assert_eq!(event.source.as_str(), &source);
            let expected = if one_line { payload.replace('\n', " ") } else { payload.clone() };
            prop_assert_eq!(event.payload.as_str(), expected);
        }
    }

    #[test]
    fn reads_what_serde_json_reads(text in "[{}\\[\\]\",:0-9e.\\-\\\\u \n]{0,12}|\\{\"events\":[{}\\[\\]\",:0-9e.\\-\\\\u ]{0,8}\\}") {
        let json = serde_json::from_str::<IgnoredAny>(&text).is_ok();
        let error = parse_json(&body(&text), 1000).err().map(|errors| errors[0].kind);
        prop_assert_eq!(error == Some(ValidationErrorKind::JsonInvalid), !json, "{}", text);
        let _parsed = parse_lines(&body(&text), 1000);
    }

    #[test]
    fn no_bytes_make_the_parser_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
        let _parsed = parse_json(&body(&bytes), MAX);
        let _parsed = parse_lines(&body(&bytes), MAX);
    }

    #[test]
    fn each_shape_reads_the_same_events(choice in proptest::collection::vec(0..4usize, 0..10)) {
        let kinds = [EVENT, "{}", "5", r#"{"topic":1,"payload":{"a":1e999}}"#];
        let texts: Vec<_> = choice.iter().map(|choice| kinds[*choice]).collect();
        let list = format!("[{}]", texts.join(","));
        let array = parsed(&list);
        let envelope = parsed(format!("{{\"events\":{list}}}"));
        let lines = lines(texts.join("\n"));
        for other in [&envelope, &lines] {
            prop_assert_eq!(&array.events, &other.events);
            prop_assert_eq!(&array.indices, &other.indices);
            prop_assert_eq!(array.rejected.len(), other.rejected.len());
            prop_assert_eq!(other.count(), texts.len());
            for (one, two) in array.rejected.iter().zip(&other.rejected) {
                prop_assert_eq!(one.index, two.index);
                let kinds = |rejected: &Rejected| rejected.errors.iter().map(|error| error.kind).collect::<Vec<_>>();
                prop_assert_eq!(kinds(one), kinds(two));
            }
        }
    }
}
