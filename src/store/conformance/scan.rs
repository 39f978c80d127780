//! Walks: each event once, in log order.

use std::sync::Arc;

use super::{Bed, Writer, event, events, eventually, list, listed, migrated, settle, walked, walked_by};
use crate::event::{Cursor, Event, EventId, Source, StoredEvent, Timestamp};
use crate::store::{Filter, Scan, Store};

pub(super) async fn a_walk_shows_everything_once_in_log_order(bed: &dyn Bed) {
    let (store, other) = (migrated(bed).await, bed.store());
    let (mut one, mut two) = (Writer::of(&store).await, Writer::of(&other).await);
    for round in 0..10usize {
        one.send(&events("t", &format!("{round} "), 1 + round % 4)).await;
        two.send(&events("u", &format!("{} ", round / 2), 3)).await;
    }
    let all = listed(&store).await;
    settle(&store).await;
    for limit in [1, 2, 1000, 100_000] {
        let (seen, next) = walked(&store, Cursor::BEGINNING, limit).await;
        assert_eq!(seen, all, "{limit}");
        assert!(next >= all[all.len() - 1].cursor);
        // From the place of any event, what follows it.
        let (rest, _) = walked(&store, all[6].cursor, limit).await;
        assert_eq!(rest, all[7..], "{limit}");
    }
}

pub(super) async fn a_walk_with_any_filter_shows_what_a_list_does(bed: &dyn Bed) {
    let store = migrated(bed).await;
    let mut writer = Writer::of(&store).await;
    for flush in list::varied().chunks(7) {
        writer.send(flush).await;
    }
    settle(&store).await;
    let all = listed(&store).await;
    for filter in list::filters() {
        let expected: Vec<_> = all
            .iter()
            .filter(|stored| list::matches(&filter, &stored.event))
            .cloned()
            .collect();
        for limit in [1, 2, 1000] {
            let walk = Scan {
                filter: filter.clone(),
                after: Cursor::BEGINNING,
                limit,
                bytes_max: usize::MAX,
            };
            assert_eq!(walked_by(&store, &walk).await.0, expected, "{walk:?}");
            let walk = Scan {
                after: all[11].cursor,
                ..walk
            };
            let rest: Vec<_> = expected
                .iter()
                .filter(|stored| stored.cursor > all[11].cursor)
                .cloned()
                .collect();
            assert_eq!(walked_by(&store, &walk).await.0, rest, "{walk:?}");
        }
    }
}

pub(super) async fn a_walk_that_is_at_the_end_goes_on_with_what_comes_later(bed: &dyn Bed) {
    let store = migrated(bed).await;
    let (seen, mut next) = walked(&store, Cursor::BEGINNING, 10).await;
    assert_eq!(seen, []);
    let mut writer = Writer::of(&store).await;
    let mut all = Vec::new();
    for round in 0..5 {
        writer.send(&events("t", &format!("{round} "), 3)).await;
        settle(&store).await;
        let seen;
        (seen, next) = walked(&store, next, 2).await;
        assert_eq!(seen.len(), 3);
        all.extend(seen);
        assert_eq!(walked(&store, next, 2).await.0, [], "asked again there is nothing new");
    }
    assert_eq!(all, listed(&store).await);
}

/// However large the log is, the work for one page is bounded.
pub(super) async fn a_rare_filter_gives_short_pages_that_move_on(bed: &dyn Bed) {
    let store = migrated(bed).await;
    let mut writer = Writer::of(&store).await;
    for flush in 0..3 {
        let mut sent = events("t", &format!("{flush} "), 4001);
        sent[2000] = Event {
            source: Source::parse("rare").unwrap(),
            occurred_at: Timestamp::parse("2030-01-01T00:00:00Z").unwrap(),
            ..event(["a", "b", "c"][flush], "rare", "{}")
        };
        writer.send(&sent).await;
    }
    settle(&store).await;
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
            let mut walk = Scan {
                filter: filter.clone(),
                after: Cursor::BEGINNING,
                limit,
                bytes_max: usize::MAX,
            };
            assert_eq!(walked_by(&store, &walk).await.0, rare, "{walk:?}");
            walk.limit = 1000;
            let page = store.scan(&walk).await.unwrap();
            assert!(
                !page.is_last && page.events.len() < 3,
                "the first page does not look at the whole log: {walk:?}"
            );
        }
    }
}

/// The walker sees each event once and in order, though two writers commit while it walks.
pub(super) async fn a_walk_beside_two_writers_skips_nothing(bed: &dyn Bed) {
    let (store, other) = (migrated(bed).await, bed.store());
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
    let walking = eventually("the walk has seen all", async || {
        let page = store
            .scan(&Scan {
                filter: Filter::default(),
                after: next,
                limit: 7,
                bytes_max: usize::MAX,
            })
            .await
            .unwrap();
        next = page.next;
        seen.extend(page.events);
        seen.len() >= 300
    });
    tokio::join!(writing, walking);
    assert_eq!(seen, listed(&store).await);
}

/// Walks to the end of what is settled: how many events each page had, and all of them.
async fn pages(store: &Arc<dyn Store>, walk: &Scan) -> (Vec<usize>, Vec<StoredEvent>) {
    let (mut walk, mut sizes, mut seen) = (walk.clone(), Vec::new(), Vec::new());
    loop {
        let page = store.scan(&walk).await.unwrap();
        let bytes: usize = page
            .events
            .iter()
            .map(|stored| stored.event.payload.as_str().len())
            .sum();
        assert!(bytes <= walk.bytes_max || page.events.len() == 1, "{bytes}: {walk:?}");
        if !page.is_last && page.events.len() < walk.limit as usize {
            assert_eq!(Some(page.next), page.events.last().map(|stored| stored.cursor));
        }
        walk.after = page.next;
        sizes.push(page.events.len());
        seen.extend(page.events);
        if page.is_last {
            return (sizes, seen);
        }
    }
}

pub(super) async fn a_page_ends_before_it_has_too_many_bytes(bed: &dyn Bed) {
    let store = migrated(bed).await;
    let mut writer = Writer::of(&store).await;
    // In several batches: a page may end within one, and go on into the next.
    for flush in super::outbox::large().chunks(4) {
        writer.send(flush).await;
    }
    settle(&store).await;
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
        let walk = Scan {
            filter: Filter::default(),
            after: Cursor::BEGINNING,
            limit,
            bytes_max,
        };
        let (sizes, seen) = pages(&store, &walk).await;
        assert_eq!(sizes, expected, "{walk:?}");
        assert_eq!(seen, all, "{walk:?}");
    }
}

/// What the filter leaves out does not count, however large it is.
pub(super) async fn a_page_of_a_filter_has_as_many_bytes_as_it_may(bed: &dyn Bed) {
    let store = migrated(bed).await;
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
    settle(&store).await;
    for topic in [None, Some(super::topic("t"))] {
        let walk = Scan {
            filter: Filter {
                source: Some(Source::parse("rare").unwrap()),
                topic,
                ..Filter::default()
            },
            after: Cursor::BEGINNING,
            limit: 100,
            bytes_max: 35,
        };
        let (sizes, seen) = pages(&store, &walk).await;
        assert_eq!(sizes, [3, 3, 3, 1], "{walk:?}");
        assert!(seen.iter().all(|stored| stored.event.source.as_str() == "rare"));
    }
}
