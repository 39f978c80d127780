//! Reads of those topics that some patterns match.

use std::sync::Arc;

use super::list::globs;
use super::retention::{end_partition, expired};
use super::{TestDatabase, Writer, event, events, listed, migrated, scanned_with, until_stable};
use crate::event::{Cursor, Event, StoredEvent, TopicGlobs};
use crate::store::postgres::globs::MERGED_TOPICS_MAX;
use crate::store::{ConflictList, Expiry, Filter, List, Order, Scan, Store, TopicList, Turn};

fn filter(globs: &TopicGlobs) -> Filter {
    Filter {
        globs: globs.clone(),
        ..Filter::default()
    }
}

fn scan(globs: &TopicGlobs, after: Cursor, limit: u32) -> Scan {
    Scan {
        filter: filter(globs),
        after,
        limit,
        bytes_max: usize::MAX,
        turn: Turn::Client,
    }
}

/// Reads some topics by lists and scans, in pages of this size, and compares them with those of `all` that match.
async fn reads_agree(store: &Arc<dyn Store>, all: &[StoredEvent], globs: &TopicGlobs, limit: u32) {
    let mut expected: Vec<_> = all.to_vec();
    expected.retain(|stored| globs.matches(&stored.event.topic));
    assert!(expected.len() > 2 && expected.len() < all.len());
    let (seen, _) = scanned_with(store, &scan(globs, Cursor::BEGINNING, limit)).await;
    assert!(
        seen == expected,
        "scan by {limit}: {} of {}",
        seen.len(),
        expected.len()
    );
    let middle = expected.len() / 2;
    let (seen, _) = scanned_with(store, &scan(globs, expected[middle].cursor, limit)).await;
    assert!(seen == expected[middle + 1..], "scan by {limit} from the middle");
    for order in [Order::Ascending, Order::Descending] {
        let (mut seen, mut behind) = (Vec::new(), None);
        loop {
            let list = List {
                filter: filter(globs),
                order,
                limit,
                behind,
                ..List::default()
            };
            let page = store.list(&list).await.unwrap();
            assert!(page.events.len() <= limit as usize);
            seen.extend(page.events);
            if page.is_last {
                break;
            }
            behind = seen.last().map(|stored| stored.cursor);
        }
        if order == Order::Descending {
            seen.reverse();
        }
        assert!(
            seen == expected,
            "list {order:?} by {limit}: {} of {}",
            seen.len(),
            expected.len()
        );
    }
}

/// An event of each of so many topics, and one of another between every two.
async fn fill(store: &Arc<dyn Store>, topics: u32) {
    let mut writer = Writer::of(store).await;
    let all: Vec<Event> = (0..topics)
        .flat_map(|number| {
            [
                event(&format!("some.{}", number % 977 * 1000 + number), "1", "{}"),
                event("other", &number.to_string(), "{}"),
            ]
        })
        .collect();
    for batch in all.chunks(1000) {
        writer.send(batch).await;
    }
    // Topics with more than one event.
    writer.send(&events("some.0", "again ", 3)).await;
    until_stable(store).await;
}

pub(super) async fn many_topics_are_read_in_log_order(db: &dyn TestDatabase) {
    let store = migrated(db).await;
    fill(&store, 300).await;
    let all = listed(&store).await;
    for limit in [7, 1000] {
        reads_agree(&store, &all, &globs("some.*"), limit).await;
        reads_agree(&store, &all, &globs("*.2* *.1* some.0 none"), limit).await;
    }
}

/// Where they are not read each by its index, nor where a page has fewer events than were asked for.
pub(super) async fn more_topics_than_are_merged_are_read_too(db: &dyn TestDatabase) {
    let store = migrated(db).await;
    fill(&store, MERGED_TOPICS_MAX + 50).await;
    let mut all = listed(&store).await;
    // The list of the test itself has at most 1000 events: what follows is read by its cursor.
    while let Some(last) = all.last().map(|stored| stored.cursor) {
        let page = store.scan(&scan(&TopicGlobs::All, last, 1000)).await.unwrap();
        if page.events.is_empty() {
            break;
        }
        all.extend(page.events);
    }
    reads_agree(&store, &all, &globs("some.*"), 500).await;
    // So many that a page is short: only a hundred places of each are compared.
    reads_agree(&store, &all, &globs("some.*1* some.*2* some.*3*"), 1000).await;
}

pub(super) async fn new_topic_that_matches_is_seen(db: &dyn TestDatabase) {
    let store = migrated(db).await;
    let mut writer = Writer::of(&store).await;
    writer.send(&[event("a.1", "1", "{}"), event("b", "1", "{}")]).await;
    until_stable(&store).await;
    let (seen, next) = scanned_with(&store, &scan(&globs("a.*"), Cursor::BEGINNING, 10)).await;
    assert_eq!(seen.len(), 1);
    writer.send(&[event("b", "2", "{}"), event("a.2", "1", "{}")]).await;
    until_stable(&store).await;
    let (seen, next) = scanned_with(&store, &scan(&globs("a.*"), next, 10)).await;
    let topics: Vec<_> = seen.iter().map(|stored| stored.event.topic.as_str()).collect();
    assert_eq!(topics, ["a.2"]);
    assert_eq!(scanned_with(&store, &scan(&globs("a.*"), next, 10)).await.0, []);
    assert_eq!(
        scanned_with(&store, &scan(&globs(""), Cursor::BEGINNING, 10)).await.0,
        []
    );
}

pub(super) async fn truncation_is_told_of_matching_topics(db: &dyn TestDatabase) {
    let store = migrated(db).await;
    let mut writer = Writer::of(&store).await;
    writer.send(&[event("a.1", "1", "{}"), event("b.1", "1", "{}")]).await;
    let place = listed(&store).await.pop().unwrap().cursor;
    writer.send(&events("a.1", "more ", 2)).await;
    end_partition(&store).await;
    writer
        .send(&[event("a.2", "kept", "{}"), event("b.2", "kept", "{}")])
        .await;
    expired(&store, Expiry::of_all).await;
    for (texts, expected) in [
        ("a.*", true),
        ("b.*", false),
        ("b.* a.1", true),
        ("a.2", false),
        ("none", false),
    ] {
        let page = store.scan(&scan(&globs(texts), place, 10)).await.unwrap();
        assert_eq!(page.is_truncated, expected, "{texts}");
        let page = store.scan(&scan(&globs(texts), page.next, 10)).await.unwrap();
        assert!(!page.is_truncated, "{texts} once");
    }
}

pub(super) async fn topics_are_those_that_match(db: &dyn TestDatabase) {
    let store = migrated(db).await;
    let mut writer = Writer::of(&store).await;
    let names = ["a", "a.b", "a.b.c", "a/b", "b", "b_c", "bxc", "c.b"];
    writer.send(&names.map(|name| event(name, "1", "{}"))).await;
    for texts in ["a.*", "*b", "* a", "a* *.b", "c.* a", "b_c", "", "none"] {
        for (prefix, after) in [("", ""), ("a", ""), ("b", "b"), ("", "a.b")] {
            for limit in [1, 2, 100] {
                let list = TopicList {
                    prefix: prefix.to_owned(),
                    after: after.to_owned(),
                    globs: globs(texts),
                    limit,
                };
                let found = store.topics(&list).await.unwrap();
                let found: Vec<_> = found.iter().map(|one| one.topic.as_str()).collect();
                let is_wanted = |name: &&str| {
                    name.starts_with(prefix) && **name > *after && globs(texts).matches(&super::topic(name))
                };
                let expected: Vec<_> = names.iter().copied().filter(is_wanted).take(limit as usize).collect();
                assert_eq!(found, expected, "{list:?}");
            }
        }
    }
}

pub(super) async fn sums_are_those_of_matching_topics(db: &dyn TestDatabase) {
    let store = migrated(db).await;
    let mut writer = Writer::of(&store).await;
    writer.send(&events("a.1", "", 2)).await;
    writer.send(&events("a.2", "", 3)).await;
    writer.send(&events("b", "", 5)).await;
    writer
        .send(&[event("a.2", "0", r#"{"v":1}"#), event("a.1", "0", "{}")])
        .await;
    end_partition(&store).await;
    expired(&store, Expiry::of_all).await;
    let sums = store.sums(&globs("a.* none")).await.unwrap();
    let counts = (
        sums.counts.received,
        sums.counts.unique_processed,
        sums.counts.duplicate_dropped,
    );
    assert_eq!((counts, sums.counts.conflicts, sums.counts.pruned), ((7, 5, 2), 2, 5));
    assert_eq!(sums.topic_count, 2);
    assert_eq!(sums.topics, [("a.2".to_owned(), 3), ("a.1".to_owned(), 2)]);
    let none = store.sums(&globs("none")).await.unwrap();
    assert_eq!(
        (none.topic_count, none.topics, none.counts.received),
        (0, Vec::new(), 0)
    );
    let (all, stats) = (
        store.sums(&TopicGlobs::All).await.unwrap(),
        store.stats().await.unwrap(),
    );
    assert_eq!(
        (all.counts, all.topic_count, all.topics),
        (stats.counts, stats.topic_count, stats.topics)
    );
}

pub(super) async fn conflicts_are_those_of_matching_topics(db: &dyn TestDatabase) {
    let store = migrated(db).await;
    let mut writer = Writer::of(&store).await;
    for payload in ["{}", r#"{"v":1}"#, r#"{"v":2}"#] {
        writer
            .send(&["a.1", "b", "a.2"].map(|name| event(name, "1", payload)))
            .await;
    }
    until_stable(&store).await;
    for (texts, expected) in [("a.*", "a.1 a.2 a.1 a.2"), ("*2 b", "b a.2 b a.2"), ("none", "")] {
        let (mut seen, mut after) = (Vec::new(), Cursor::BEGINNING);
        loop {
            let list = ConflictList {
                topic: None,
                globs: globs(texts),
                after,
                limit: 3,
            };
            let page = store.conflicts(&list).await.unwrap();
            seen.extend(page.conflicts.iter().map(|conflict| conflict.topic.to_string()));
            after = page.next;
            if page.conflicts.len() < 3 {
                break;
            }
        }
        assert_eq!(seen.join(" "), expected, "{texts}");
    }
}
