//! Kept conflicts, and topics by name.

use super::{TestDatabase, Writer, event, migrated, places, topic, until_stable};
use crate::event::{Cursor, Event, Timestamp, TopicGlobs};
use crate::store::{ConflictList, ConflictPage, Counts, Store, TopicList};

async fn conflicts(store: &std::sync::Arc<dyn Store>, name: Option<&str>, after: Cursor, limit: u32) -> ConflictPage {
    let list = ConflictList {
        topic: name.map(topic),
        globs: TopicGlobs::All,
        after,
        limit,
    };
    store.conflicts(&list).await.unwrap()
}

pub(super) async fn conflict_is_kept_with_what_was_sent(db: &dyn TestDatabase) {
    let store = migrated(db).await;
    let mut writer = Writer::of(&store).await;
    let first = writer
        .send(&[event("t", "1", r#"{"v":1}"#), event("u", "1", "{}")])
        .await;
    let sent = event("t", "1", r#"{ "v": 2 }"#);
    let alone = writer.send(std::slice::from_ref(&sent)).await;
    let large = format!(r#"{{"v":"{}"}}"#, "x".repeat(16 * 1024));
    let many = writer
        .send(&[
            event("t", "1", r#"{"v":1.0}"#),
            event("u", "1", &large),
            event("t", "1", r#"{"v":3}"#),
            event("t", "2", "{}"),
        ])
        .await;
    until_stable(&store).await;
    let page = conflicts(&store, None, Cursor::BEGINNING, 100).await;
    let found: Vec<_> = page
        .conflicts
        .iter()
        .map(|one| {
            (
                one.cursor,
                one.topic.as_str(),
                one.first,
                one.payload.as_ref().map(|text| text.as_str().to_owned()),
            )
        })
        .collect();
    let firsts = places(&first);
    let expected = [
        (
            Cursor::new(alone.batch, 0),
            "t",
            firsts[0].cursor,
            Some(r#"{ "v": 2 }"#.to_owned()),
        ),
        (Cursor::new(many.batch, 1), "u", firsts[1].cursor, None),
        (
            Cursor::new(many.batch, 2),
            "t",
            firsts[0].cursor,
            Some(r#"{"v":3}"#.to_owned()),
        ),
    ];
    assert_eq!(found, expected);
    let Event {
        occurred_at, source, ..
    } = sent;
    let one = &page.conflicts[0];
    assert_eq!(
        (one.occurred_at, &one.source, one.received_at),
        (occurred_at, &source, alone.received_at)
    );
    assert_eq!(page.next, Cursor::new(many.batch, i32::MAX));
    assert_eq!(
        conflicts(&store, Some("u"), Cursor::BEGINNING, 100).await.conflicts,
        page.conflicts[1..2]
    );
    let next = page.next;
    pages_of_a_topic(&store, &page.conflicts).await;
    assert_eq!(conflicts(&store, None, next, 100).await.conflicts, []);
}

/// Of three conflicts the first and the last are of topic `t`.
async fn pages_of_a_topic(store: &std::sync::Arc<dyn Store>, all: &[crate::store::Conflict]) {
    let part = conflicts(store, Some("t"), Cursor::BEGINNING, 1).await;
    assert_eq!((part.conflicts.as_slice(), part.next), (&all[..1], all[0].cursor));
    assert_eq!(conflicts(store, Some("t"), part.next, 1).await.conflicts, all[2..]);
}

pub(super) async fn conflicts_are_counted_beyond_those_kept(db: &dyn TestDatabase) {
    let store = migrated(db).await;
    let mut writer = Writer::of(&store).await;
    let sent = |value: u32| -> Vec<Event> {
        let payload = format!(r#"{{"v":{value}}}"#);
        (0..600)
            .map(|number| event("t", &number.to_string(), &payload))
            .collect()
    };
    for value in 0..4 {
        writer.send(&sent(value)).await;
    }
    writer.send(&[event("t", "1", r#"{"v":9}"#)]).await;
    until_stable(&store).await;
    assert_eq!(
        conflicts(&store, None, Cursor::BEGINNING, 5000).await.conflicts.len(),
        1000
    );
    assert_eq!(
        store.stats().await.unwrap().counts,
        super::counts(2401, 600, 1801, 1801)
    );

    let all = Timestamp::from_micros(store.clock().await.unwrap().micros() + 1_000_000).unwrap();
    let none = Timestamp::from_micros(0).unwrap();
    assert_eq!(store.prune_conflicts(none, 5000).await.unwrap(), 0);
    assert_eq!(store.prune_conflicts(all, 990).await.unwrap(), 990);
    assert_eq!(
        conflicts(&store, None, Cursor::BEGINNING, 5000).await.conflicts.len(),
        10
    );
    writer.send(&[event("t", "2", r#"{"v":9}"#)]).await;
    until_stable(&store).await;
    assert_eq!(
        conflicts(&store, None, Cursor::BEGINNING, 5000).await.conflicts.len(),
        11,
        "there is room again"
    );
}

/// An attempt that is sent again keeps nothing once more.
pub(super) async fn retry_keeps_a_conflict_once(db: &dyn TestDatabase) {
    let store = migrated(db).await;
    let mut writer = Writer::of(&store).await;
    writer.send(&[event("t", "1", "{}")]).await;
    for sent in [
        vec![event("t", "1", r#"{"v":1}"#)],
        vec![event("t", "1", r#"{"v":1}"#), event("t", "2", "{}")],
    ] {
        let id = uuid::Uuid::new_v4();
        let once = writer.send_as(id, &sent).await;
        assert_eq!(writer.send_as(id, &sent).await, once);
    }
    until_stable(&store).await;
    assert_eq!(conflicts(&store, None, Cursor::BEGINNING, 100).await.conflicts.len(), 2);
}

pub(super) async fn topics_are_listed_by_name_in_pages(db: &dyn TestDatabase) {
    let store = migrated(db).await;
    let mut writer = Writer::of(&store).await;
    let names = ["a", "a.b", "a.\u{10ffff}", "a/b", "b", "\u{10ffff}", "B"];
    let first = writer.send(&names.map(|name| event(name, "1", "{}"))).await;
    writer.send(&[event("a", "1", r#"{"v":1}"#)]).await;
    let last = writer.send(&[event("a", "2", "{}"), event("a", "1", "{}")]).await;
    let list = async |prefix: &str, after: &str, limit| {
        let list = TopicList {
            prefix: prefix.to_owned(),
            after: after.to_owned(),
            globs: TopicGlobs::All,
            limit,
        };
        store.topics(&list).await.unwrap()
    };
    let named = async |prefix: &str, after: &str, limit| -> Vec<String> {
        let found = list(prefix, after, limit).await;
        found.iter().map(|one| one.topic.to_string()).collect()
    };
    assert_eq!(
        named("", "", 100).await,
        ["B", "a", "a.b", "a.\u{10ffff}", "a/b", "b", "\u{10ffff}"]
    );
    assert_eq!(named("", "a", 2).await, ["a.b", "a.\u{10ffff}"]);
    assert_eq!(named("a.", "", 100).await, ["a.b", "a.\u{10ffff}"]);
    assert_eq!(named("a.\u{10ffff}", "", 100).await, ["a.\u{10ffff}"]);
    assert_eq!(named("\u{10ffff}", "", 100).await, ["\u{10ffff}"]);
    assert_eq!(named("a", "a.b", 1).await, ["a.\u{10ffff}"]);
    assert_eq!(named("c", "", 100).await, [""; 0]);
    let one = list("a", "", 1).await.pop().unwrap();
    let counts = Counts {
        pruned: 0,
        ..super::counts(4, 2, 2, 1)
    };
    assert_eq!(one.counts, counts);
    assert_eq!(
        (one.first_received_at, one.last_received_at),
        (Some(first.received_at), Some(last.received_at))
    );
}
