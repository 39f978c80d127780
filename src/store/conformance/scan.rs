//! Scans: each event once, in log order.

use std::sync::Arc;

use super::{
    TestDatabase, Writer, event, events, eventually, list, listed, migrated, scanned_all, scanned_with, until_stable,
};
use crate::event::{Cursor, Event, EventId, Source, StoredEvent, Timestamp};
use crate::store::{Filter, Scan, Store};

pub(super) async fn scan_shows_everything_once_in_log_order(db: &dyn TestDatabase) {
    let (store, other) = (migrated(db).await, db.store());
    let (mut one, mut two) = (Writer::of(&store).await, Writer::of(&other).await);
    for round in 0..10usize {
        one.send(&events("t", &format!("{round} "), 1 + round % 4)).await;
        two.send(&events("u", &format!("{} ", round / 2), 3)).await;
    }
    let all = listed(&store).await;
    until_stable(&store).await;
    for limit in [1, 2, 1000, 100_000] {
        let (seen, next) = scanned_all(&store, Cursor::BEGINNING, limit).await;
        assert_eq!(seen, all, "{limit}");
        assert!(next >= all[all.len() - 1].cursor);
        // From the place of any event, what follows it.
        let (rest, _) = scanned_all(&store, all[6].cursor, limit).await;
        assert_eq!(rest, all[7..], "{limit}");
    }
}

pub(super) async fn scan_with_any_filter_shows_what_list_shows(db: &dyn TestDatabase) {
    let store = migrated(db).await;
    let mut writer = Writer::of(&store).await;
    for batch in list::varied().chunks(7) {
        writer.send(batch).await;
    }
    until_stable(&store).await;
    let all = listed(&store).await;
    for filter in list::filters() {
        let expected: Vec<_> = all
            .iter()
            .filter(|stored| list::matches(&filter, &stored.event))
            .cloned()
            .collect();
        for limit in [1, 2, 1000] {
            let scan = Scan {
                filter: filter.clone(),
                after: Cursor::BEGINNING,
                limit,
                bytes_max: usize::MAX,
                turn: crate::store::Turn::Client,
            };
            assert_eq!(scanned_with(&store, &scan).await.0, expected, "{scan:?}");
            let scan = Scan {
                after: all[11].cursor,
                ..scan
            };
            let rest: Vec<_> = expected
                .iter()
                .filter(|stored| stored.cursor > all[11].cursor)
                .cloned()
                .collect();
            assert_eq!(scanned_with(&store, &scan).await.0, rest, "{scan:?}");
        }
    }
}

pub(super) async fn scan_at_end_continues_with_later_events(db: &dyn TestDatabase) {
    let store = migrated(db).await;
    let (seen, mut next) = scanned_all(&store, Cursor::BEGINNING, 10).await;
    assert_eq!(seen, []);
    let mut writer = Writer::of(&store).await;
    let mut all = Vec::new();
    for round in 0..5 {
        writer.send(&events("t", &format!("{round} "), 3)).await;
        until_stable(&store).await;
        let seen;
        (seen, next) = scanned_all(&store, next, 2).await;
        assert_eq!(seen.len(), 3);
        all.extend(seen);
        assert_eq!(
            scanned_all(&store, next, 2).await.0,
            [],
            "asked again there is nothing new"
        );
    }
    assert_eq!(all, listed(&store).await);
}

/// However large the log is, the work for one page is bounded.
pub(super) async fn rare_filter_gives_short_pages_that_advance(db: &dyn TestDatabase) {
    let store = migrated(db).await;
    let mut writer = Writer::of(&store).await;
    for number in 0..3 {
        let mut sent = events("t", &format!("{number} "), 4001);
        sent[2000] = Event {
            source: Source::parse("rare").unwrap(),
            occurred_at: Timestamp::parse("2030-01-01T00:00:00Z").unwrap(),
            ..event(["a", "b", "c"][number], "rare", "{}")
        };
        writer.send(&sent).await;
    }
    until_stable(&store).await;
    let rare: Vec<_> = listed(&store)
        .await
        .into_iter()
        .filter(|stored| stored.event.event_id.as_str() == "rare")
        .collect();
    assert_eq!(rare.len(), 3);
    for filter in [
        Filter {
            source: Some(Source::parse("rare").unwrap()),
            ..Filter::default()
        },
        Filter {
            since: Some(Timestamp::parse("2026-01-01T00:00:00Z").unwrap()),
            ..Filter::default()
        },
        Filter {
            event_id: Some(EventId::parse("rare").unwrap()),
            ..Filter::default()
        },
    ] {
        for limit in [1, 2, 1000] {
            let mut scan = Scan {
                filter: filter.clone(),
                after: Cursor::BEGINNING,
                limit,
                bytes_max: usize::MAX,
                turn: crate::store::Turn::Client,
            };
            assert_eq!(scanned_with(&store, &scan).await.0, rare, "{scan:?}");
            scan.limit = 1000;
            let page = store.scan(&scan).await.unwrap();
            assert!(
                !page.is_last && page.events.len() < 3,
                "the first page does not look at the whole log: {scan:?}"
            );
        }
    }
}

/// A scan sees each event once and in order while two writers commit.
pub(super) async fn scan_beside_two_writers_skips_nothing(db: &dyn TestDatabase) {
    let (store, other) = (migrated(db).await, db.store());
    let (mut one, mut two) = (Writer::of(&store).await, Writer::of(&other).await);
    let writing = async {
        let first = async {
            for round in 0..60 {
                one.send(&events("t", &format!("{round} "), 3)).await;
            }
        };
        let second = async {
            for round in 0..60 {
                two.send(&events("u", &format!("{round} "), 2)).await;
            }
        };
        tokio::join!(first, second);
    };
    let mut seen: Vec<StoredEvent> = Vec::new();
    let mut next = Cursor::BEGINNING;
    let scanning = eventually("the scan has seen all", async || {
        let page = store
            .scan(&Scan {
                filter: Filter::default(),
                after: next,
                limit: 7,
                bytes_max: usize::MAX,
                turn: crate::store::Turn::Client,
            })
            .await
            .unwrap();
        next = page.next;
        seen.extend(page.events);
        seen.len() >= 300
    });
    tokio::join!(writing, scanning);
    assert_eq!(seen, listed(&store).await);
}

/// Scans to the last stable position. Returns the number of events of each page, and all events.
async fn pages(store: &Arc<dyn Store>, scan: &Scan) -> (Vec<usize>, Vec<StoredEvent>) {
    let (mut scan, mut sizes, mut seen) = (scan.clone(), Vec::new(), Vec::new());
    loop {
        let page = store.scan(&scan).await.unwrap();
        let bytes: usize = page
            .events
            .iter()
            .map(|stored| stored.event.payload.as_str().len())
            .sum();
        assert!(bytes <= scan.bytes_max || page.events.len() == 1, "{bytes}: {scan:?}");
        if !page.is_last && page.events.len() < scan.limit as usize {
            assert_eq!(Some(page.next), page.events.last().map(|stored| stored.cursor));
        }
        scan.after = page.next;
        sizes.push(page.events.len());
        seen.extend(page.events);
        if page.is_last {
            return (sizes, seen);
        }
    }
}

pub(super) async fn page_is_limited_by_bytes(db: &dyn TestDatabase) {
    let store = migrated(db).await;
    let mut writer = Writer::of(&store).await;
    // In several batches: a page may end within one, and go on into the next.
    for batch in super::outbox::large().chunks(4) {
        writer.send(batch).await;
    }
    until_stable(&store).await;
    let all = listed(&store).await;
    let one = all[0].event.payload.as_str().len();
    for (bytes_max, limit, expected) in [
        (0, 10, vec![1; 6]),
        (one, 10, vec![1; 6]),
        (2 * one - 1, 10, vec![1; 6]),
        (2 * one, 10, vec![2; 3]),
        (2 * one, 1, vec![1, 1, 1, 1, 1, 1, 0]),
        (2 * one, 2, vec![2, 2, 2, 0]),
        (5 * one, 10, vec![5, 1]),
        (6 * one - 1, 10, vec![5, 1]),
        (6 * one, 10, vec![6]),
        (usize::MAX, 10, vec![6]),
    ] {
        let scan = Scan {
            filter: Filter::default(),
            after: Cursor::BEGINNING,
            limit,
            bytes_max,
            turn: crate::store::Turn::Client,
        };
        let (sizes, seen) = pages(&store, &scan).await;
        assert_eq!(sizes, expected, "{scan:?}");
        assert_eq!(seen, all, "{scan:?}");
    }
}

/// What the filter leaves out does not count, however large it is.
pub(super) async fn filtered_page_uses_all_its_bytes(db: &dyn TestDatabase) {
    let store = migrated(db).await;
    let mut writer = Writer::of(&store).await;
    let large = format!(r#"{{"a":"{}"}}"#, "x".repeat(5000));
    for round in 0..10 {
        let small = Event {
            source: Source::parse("rare").unwrap(),
            ..event("t", &format!("small {round}"), r#"{"a":1234}"#)
        };
        writer
            .send(&[event("t", &format!("large {round}"), &large), small])
            .await;
    }
    until_stable(&store).await;
    for topic in [None, Some(super::topic("t"))] {
        let scan = Scan {
            filter: Filter {
                source: Some(Source::parse("rare").unwrap()),
                topic,
                ..Filter::default()
            },
            after: Cursor::BEGINNING,
            limit: 100,
            bytes_max: 35,
            turn: crate::store::Turn::Client,
        };
        let (sizes, seen) = pages(&store, &scan).await;
        assert_eq!(sizes, [3, 3, 3, 1], "{scan:?}");
        assert!(seen.iter().all(|stored| stored.event.source.as_str() == "rare"));
    }
}
