//! Stored events as text for people.

use crate::api::events::StoredEvent;
use crate::cli::table::{columns, fields};
use crate::cli::text::{cut, printable};

/// How many characters of a payload a table shows.
const PAYLOAD_CHARS_MAX: usize = 80;

/// Reads the JSON of a stored event; `None` if it is something else.
pub(crate) fn read(json: &str) -> Option<StoredEvent<'_>> {
    serde_json::from_str(json).ok()
}

/// The members of an event, one per line.
pub(crate) fn members(event: &StoredEvent<'_>) -> String {
    let headers = event.headers.as_ref();
    let mut rows = vec![
        ("topic", printable(&event.topic)),
        ("event_id", printable(&event.event_id)),
        ("timestamp", event.timestamp.to_string()),
        ("source", printable(&event.source)),
        ("received_at", event.received_at.to_string()),
        ("cursor", event.cursor.to_string()),
        ("payload", printable(&event.payload.0)),
    ];
    rows.extend(headers.map(|headers| ("headers", printable(&headers.0))));
    fields(rows)
}

/// One line per event, below a line of headings. Long payloads are cut.
pub(crate) fn table<'a>(events: impl IntoIterator<Item = &'a StoredEvent<'a>>) -> String {
    let rows = events.into_iter().map(|event| {
        [
            event.timestamp.to_string(),
            printable(&event.topic),
            printable(&event.event_id),
            printable(&event.source),
            printable(&cut(&event.payload.0, PAYLOAD_CHARS_MAX)),
        ]
    });
    columns(["TIMESTAMP", "TOPIC", "EVENT_ID", "SOURCE", "PAYLOAD"], rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVENT: &str = concat!(
        r#"{"topic":"order.created","event_id":"evt-1","timestamp":"2025-10-24T10:30:00Z","source":"shop"#,
        "\u{9b}31m",
        r#"","payload":{"a": 1},"received_at":"2025-10-24T10:30:01Z","cursor":"000000000000000100000001"}"#
    );

    #[test]
    fn an_event_is_shown_whole_and_cannot_drive_the_terminal() {
        let text = members(&read(EVENT).unwrap());
        let expected = "topic        order.created\n\
            event_id     evt-1\n\
            timestamp    2025-10-24T10:30:00Z\n\
            source       shop\\u009b31m\n\
            received_at  2025-10-24T10:30:01Z\n\
            cursor       000000000000000100000001\n\
            payload      {\"a\": 1}\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn a_table_has_one_line_per_event() {
        let long = EVENT.replace("1}", &format!("\"{}\"}}", "x".repeat(100)));
        let (event, long) = (read(EVENT).unwrap(), read(&long).unwrap());
        let text = table([&event, &long]);
        assert_eq!(text.lines().count(), 3);
        assert!(text.starts_with("TIMESTAMP             TOPIC "), "{text}");
        assert!(text.ends_with("x…\n") && !text.contains('\u{9b}'), "{text}");
    }

    #[test]
    fn text_that_is_not_an_event_is_not_read() {
        assert_eq!(read("{}"), None);
    }
}
