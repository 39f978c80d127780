use proptest::prelude::*;

use super::*;

#[test]
fn message_says_what_is_wrong() {
    for (text, hint) in [
        (
            "2025-10-24T10:30:00+0200",
            "write the offset with a colon, as in +02:00",
        ),
        (
            "2025-10-24T10:30:00+02",
            "write the minutes of the offset, as in +02:00",
        ),
        ("2025-10-24T24:00:00Z", "hour 24 is 00:00 of the next day"),
        ("2016-12-31T23:59:60Z", "second 60 cannot be stored"),
        (" 2025-10-24T10:30:00Z", "leave out the blanks around it"),
        ("2025-10-24", "add the time of day"),
        ("1761301800", "a number of seconds is no date"),
    ] {
        let message = Timestamp::parse(text).unwrap_err().msg;
        assert!(message.ends_with(&format!("of UTC; {hint}")), "{text}: {message}");
    }
    for text in [
        "",
        "yesterday",
        "2025-13-01T00:00:00Z",
        "é",
        "2025-10-24T25:00:00Z",
        "2025-10-24T10",
        "2025-10-24T1030",
        "+0",
        "0",
    ] {
        let message = Timestamp::parse(text).unwrap_err().msg;
        assert!(text == "0" || message.ends_with("of UTC"), "{text}: {message}");
    }
}

#[test]
fn reads_every_allowed_form_and_writes_utc() {
    for (text, back) in [
        ("2025-10-24T10:30:00Z", "2025-10-24T10:30:00Z"),
        ("2025-10-24t10:30:00z", "2025-10-24T10:30:00Z"),
        ("2025-10-24 10:30:00Z", "2025-10-24T10:30:00Z"),
        ("2025-10-24T10:30:00", "2025-10-24T10:30:00Z"),
        ("2025-10-24T10:30", "2025-10-24T10:30:00Z"),
        ("2025-10-24T10:30Z", "2025-10-24T10:30:00Z"),
        ("2025-10-24 10:30+02:00", "2025-10-24T08:30:00Z"),
        ("2025-10-24T10:30:00-00:00", "2025-10-24T10:30:00Z"),
        ("2025-10-24T00:00:00+23:59", "2025-10-23T00:01:00Z"),
        ("2025-12-31T23:59:59-23:59", "2026-01-01T23:58:59Z"),
        ("2025-10-24T10:30:00.25Z", "2025-10-24T10:30:00.25Z"),
        ("2025-10-24T10:30:00.250000Z", "2025-10-24T10:30:00.25Z"),
        ("2025-10-24T10:30:00.000001", "2025-10-24T10:30:00.000001Z"),
        ("2025-10-24T10:30:00.0000009Z", "2025-10-24T10:30:00Z"),
        ("2025-10-24T10:30:00.1234569Z", "2025-10-24T10:30:00.123456Z"),
        ("2025-10-24T10:30:10.000Z", "2025-10-24T10:30:10Z"),
        ("1969-12-31T23:59:59.9999999Z", "1969-12-31T23:59:59.999999Z"),
        ("1969-12-31T23:59:59.0000009Z", "1969-12-31T23:59:59Z"),
        ("2024-02-29T00:00:00Z", "2024-02-29T00:00:00Z"),
        ("2000-02-29T23:59:59Z", "2000-02-29T23:59:59Z"),
        ("0001-01-01T00:00:00Z", "0001-01-01T00:00:00Z"),
        ("0000-12-31T23:59:59-00:01", "0001-01-01T00:00:59Z"),
        ("9999-12-31T23:59:59.9999999Z", "9999-12-31T23:59:59.999999Z"),
        ("9999-12-31T23:59:59+00:01", "9999-12-31T23:58:59Z"),
    ] {
        let timestamp = Timestamp::parse(text).expect(text);
        assert_eq!(timestamp.to_string(), back, "{text}");
        assert_eq!(Timestamp::parse(back), Ok(timestamp), "{text}");
    }
}

#[test]
fn rejects_any_other_text() {
    for text in [
        "",
        "now",
        "infinity",
        "1761301800",
        "2025-10-24",
        "2025-10-24T10",
        "2025-10-24T10:30:",
        "2025-10-24T10:30.5",
        "2025-10-24T10:30:00.",
        "2025-10-24T10:30:00.Z",
        "2025-10-24T10:30:00,5Z",
        "2025-10-24T10:30:00.5 Z",
        "2025-10-24T10:30:00 Z",
        "2025-10-24  10:30:00Z",
        "2025-10-24_10:30:00Z",
        "2025-10-24T10:30:00ZZ",
        "2025-10-24T10:30:00Z ",
        " 2025-10-24T10:30:00Z",
        "2025-10-24T10:30:00+02",
        "2025-10-24T10:30:00+0200",
        "2025-10-24T10:30:00+2:00",
        "2025-10-24T10:30:00+24:00",
        "2025-10-24T10:30:00+23:60",
        "2025-10-24T10:30:00\u{2212}02:00",
        "2025-10-24T24:00:00Z",
        "2025-10-24T23:60:00Z",
        "2025-10-24T23:59:60Z",
        "2016-12-31T23:59:60Z",
        "2025-10-24T1:30:00Z",
        "2025-1-24T10:30:00Z",
        "2025-00-24T10:30:00Z",
        "2025-13-24T10:30:00Z",
        "2025-10-00T10:30:00Z",
        "2025-10-32T10:30:00Z",
        "2025-02-29T10:30:00Z",
        "1900-02-29T10:30:00Z",
        "0000-12-31T23:59:59Z",
        "0001-01-01T00:00:00+00:01",
        "9999-12-31T23:59:59-00:01",
        "10000-01-01T00:00:00Z",
        "+2025-10-24T10:30:00Z",
        "-0001-10-24T10:30:00Z",
        "٢٠٢٥-10-24T10:30:00Z",
        "2025-W43-5T10:30:00Z",
    ] {
        assert_eq!(
            Timestamp::parse(text).unwrap_err().kind,
            ValidationErrorKind::DatetimeParsing,
            "{text}"
        );
    }
}

#[test]
fn a_fraction_may_have_any_number_of_digits() {
    let text = format!("2025-10-24T10:30:00.123456{}Z", "9".repeat(1_000_000));
    assert_eq!(
        Timestamp::parse(&text).unwrap().to_string(),
        "2025-10-24T10:30:00.123456Z"
    );
}

#[test]
fn the_bounds_are_the_years_0001_and_9999() {
    for (micros, text) in [
        (MICROS_MIN, "0001-01-01T00:00:00Z"),
        (-1, "1969-12-31T23:59:59.999999Z"),
        (0, "1970-01-01T00:00:00Z"),
        (MICROS_MAX, "9999-12-31T23:59:59.999999Z"),
    ] {
        assert_eq!(Timestamp::from_micros(micros).unwrap().to_string(), text);
    }
    assert_eq!(Timestamp::from_micros(MICROS_MIN - 1), None);
    assert_eq!(Timestamp::from_micros(MICROS_MAX + 1), None);
    assert!(Timestamp::try_from(DateTime::<Utc>::MAX_UTC).is_err());
    assert!(Timestamp::try_from(DateTime::<Utc>::MIN_UTC).is_err());
}

proptest! {
    #[test]
    fn the_text_reads_back_as_the_same_time(micros in MICROS_MIN..=MICROS_MAX) {
        let timestamp = Timestamp::from_micros(micros).unwrap();
        prop_assert_eq!(Timestamp::parse(&timestamp.to_string()), Ok(timestamp));
        prop_assert_eq!(Timestamp::try_from(DateTime::<Utc>::from(timestamp)), Ok(timestamp));
        prop_assert_eq!(serde_json::to_string(&timestamp).unwrap(), format!("\"{timestamp}\""));
    }

    #[test]
    fn chrono_reads_a_full_date_time_as_we_do(micros in MICROS_MIN..=MICROS_MAX, minutes in -1439..=1439i32, digits in 0..=9usize) {
        let offset = chrono::FixedOffset::east_opt(minutes * 60).unwrap();
        let local = DateTime::<Utc>::from(Timestamp(micros)).with_timezone(&offset);
        let text = local.format(&format!("%Y-%m-%dT%H:%M:%S{}%:z", ["", "%.3f", "%.6f", "%.9f"][digits % 4])).to_string();
        if let (Ok(theirs), Ok(ours)) = (DateTime::parse_from_rfc3339(&text), Timestamp::parse(&text)) {
            prop_assert_eq!(ours.micros(), theirs.timestamp_micros(), "{}", text);
        } else {
            prop_assert!(text.starts_with(['+', '-']) || local.with_timezone(&Utc).year() < 1, "{}", text);
        }
    }
}
