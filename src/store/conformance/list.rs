//! Lists: all that is committed.

use std::sync::Arc;

use futures_util::future::join_all;

use super::{TestDatabase, Writer, event, events, listed, migrated, scanned_all, until_stable};
use crate::event::{Cursor, Event, EventId, Source, StoredEvent, Timestamp, Topic, TopicGlob, TopicGlobs};
use crate::store::{Filter, List, Order, Store};

/// A log in which each filter matches some events and none matches all.
pub(super) fn varied() -> Vec<Event> {
    let mut all = Vec::new();
    for minute in 0..3 {
        for (topic, id) in [("t", "1"), ("u", "1"), ("t", "2"), ("T", "1"), ("u", "2")] {
            for source in ["s", "S"] {
                all.push(Event {
                    occurred_at: Timestamp::parse(&format!("2025-10-24T10:0{}:00Z", 2 - minute)).unwrap(),
                    source: Source::parse(source).unwrap(),
                    ..event(
                        topic,
                        &format!(
                            "{id}{}",
                            if minute + u8::from(source == "S") == 0 {
                                ""
                            } else {
                                source
                            }
                        ),
                        "{}",
                    )
                });
            }
        }
    }
    // One more identity for each minute: otherwise later copies would be duplicates of earlier ones.
    for (number, event) in all.iter_mut().enumerate().skip(10) {
        event.event_id = EventId::parse(format!("{}-{}", event.event_id, number / 10)).unwrap();
    }
    all
}

/// Topics that one of some patterns matches.
pub(super) fn globs(texts: &str) -> TopicGlobs {
    let globs = texts.split_whitespace();
    globs.map(|text| TopicGlob::parse(text).unwrap()).collect()
}

/// Every combination of filters over [`varied`]. The times are those of events: the bounds themselves are tried.
pub(super) fn filters() -> Vec<Filter> {
    let time = |text| Timestamp::parse(text).unwrap();
    let mut filters = Vec::new();
    let some_topics = ["t T", "u*", "none*"].map(|texts| (None, globs(texts)));
    let one_topic = [None, Some("t"), Some("u"), Some("none")].map(|topic| (topic, TopicGlobs::All));
    for (topic, globs) in one_topic.into_iter().chain(some_topics) {
        for source in [None, Some("s"), Some("none")] {
            for event_id in [None, Some("1"), Some("2S-1"), Some("none")] {
                for since in [None, Some("2025-10-24T10:01:00Z")] {
                    for until in [None, Some("2025-10-24T10:02:00Z"), Some("2025-10-24T10:01:00Z")] {
                        filters.push(Filter {
                            topic: topic.map(|topic| Topic::parse(topic).unwrap()),
                            globs: globs.clone(),
                            source: source.map(|source| Source::parse(source).unwrap()),
                            event_id: event_id.map(|id| EventId::parse(id).unwrap()),
                            since: since.map(time),
                            until: until.map(time),
                        });
                    }
                }
            }
        }
    }
    filters
}

/// What a filter means.
pub(super) fn matches(filter: &Filter, event: &Event) -> bool {
    filter.topic.as_ref().is_none_or(|topic| *topic == event.topic)
        && filter.globs.matches(&event.topic)
        && filter.source.as_ref().is_none_or(|source| *source == event.source)
        && filter.event_id.as_ref().is_none_or(|id| *id == event.event_id)
        && filter.since.is_none_or(|since| since <= event.occurred_at)
        && filter.until.is_none_or(|until| event.occurred_at < until)
}

pub(super) async fn every_filter_in_both_orders_with_limit_and_offset(db: &dyn TestDatabase) {
    let store = migrated(db).await;
    let mut writer = Writer::of(&store).await;
    for batch in varied().chunks(7) {
        writer.send(batch).await;
    }
    let all = listed(&store).await;
    assert_eq!(all.len(), 30);
    let mut seen = 0;
    for filter in filters() {
        for order in [Order::Ascending, Order::Descending] {
            let mut expected: Vec<&StoredEvent> = all.iter().filter(|stored| matches(&filter, &stored.event)).collect();
            if order == Order::Descending {
                expected.reverse();
            }
            for (offset, limit) in [(0, 1000), (0, 2), (1, 1), (2, 3), (1000, 10)] {
                let list = List {
                    filter: filter.clone(),
                    order,
                    offset,
                    limit,
                    ..List::default()
                };
                let page = store.list(&list).await.unwrap();
                let skip = usize::try_from(offset).unwrap();
                let expected: Vec<_> = expected.iter().skip(skip).take(limit as usize).copied().collect();
                assert_eq!(page.events.iter().collect::<Vec<_>>(), expected, "{list:?}");
                assert_eq!(page.is_last, expected.len() < limit as usize, "{list:?}");
                seen += page.events.len();
            }
        }
    }
    assert!(seen > 500, "the filters match something: {seen}");
}

pub(super) async fn list_shows_what_was_just_acknowledged(db: &dyn TestDatabase) {
    let (store, other) = (migrated(db).await, db.store());
    let mut writer = Writer::of(&store).await;
    for round in 1..=40 {
        writer.send(&[event("t", &round.to_string(), "{}")]).await;
        assert_eq!(listed(&other).await.len(), round);
        let newest = List {
            order: Order::Descending,
            limit: 1,
            ..List::default()
        };
        assert_eq!(
            other.list(&newest).await.unwrap().events[0].event.event_id.as_str(),
            round.to_string()
        );
    }
}

/// Read page by page, a list is complete, ends, and does not show what came after it began.
pub(super) async fn long_list_is_read_page_by_page(db: &dyn TestDatabase) {
    let store = migrated(db).await;
    let mut writer = Writer::of(&store).await;
    for batch in varied().chunks(4) {
        writer.send(batch).await;
    }
    let all = listed(&store).await;
    for filter in [Filter::default(), filters()[60].clone()] {
        for order in [Order::Ascending, Order::Descending] {
            let below = store.stability().await.unwrap().committed_below;
            writer
                .send(&events("t", &format!("later {order:?} {}", filter.topic.is_some()), 2))
                .await;
            let mut expected: Vec<_> = all
                .iter()
                .filter(|stored| matches(&filter, &stored.event))
                .cloned()
                .collect();
            let later = listed(&store).await.into_iter().skip(all.len());
            expected.extend(later.filter(|stored| matches(&filter, &stored.event) && stored.cursor.batch() < below));
            if order == Order::Descending {
                expected.reverse();
            }
            let mut list = List {
                filter: filter.clone(),
                order,
                limit: 4,
                below: Some(below),
                ..List::default()
            };
            let mut seen = Vec::new();
            loop {
                let page = store.list(&list).await.unwrap();
                list.behind = page.events.last().map(|event| event.cursor).or(list.behind);
                seen.extend(page.events);
                if page.is_last {
                    break;
                }
            }
            assert_eq!(seen, expected);
        }
    }
}

pub(super) async fn many_concurrent_reads_wait_for_a_connection(db: &dyn TestDatabase) {
    let store = migrated(db).await;
    Writer::of(&store).await.send(&events("t", "", 3)).await;
    for read in join_all((0..100).map(|_| listed(&store))).await {
        assert_eq!(read.len(), 3);
    }
}

/// A list ends before its payloads are larger than a limit, but has at least one event, in either order and by either index.
pub(super) async fn list_is_limited_by_bytes(db: &dyn TestDatabase) {
    let store = migrated(db).await;
    let mut writer = Writer::of(&store).await;
    for batch in super::outbox::large().chunks(4) {
        writer.send(batch).await;
    }
    until_stable(&store).await;
    let all = listed(&store).await;
    let one = all[0].event.payload.as_str().len();
    let topic = all[0].event.topic.clone();
    assert!(all.iter().all(|stored| stored.event.topic == topic));
    for topic in [None, Some(topic)] {
        for order in [Order::Ascending, Order::Descending] {
            for (bytes_max, limit, expected) in [
                (Some(0), 10, 1),
                (Some(one), 10, 1),
                (Some(2 * one - 1), 10, 1),
                (Some(2 * one), 10, 2),
                (Some(2 * one), 1, 1),
                (Some(6 * one - 1), 10, 5),
                (Some(6 * one), 10, 6),
                (None, 10, 6),
            ] {
                let list = List {
                    filter: Filter {
                        topic: topic.clone(),
                        ..Filter::default()
                    },
                    order,
                    limit,
                    bytes_max,
                    ..List::default()
                };
                let page = store.list(&list).await.unwrap();
                let mut wanted = all.clone();
                if order == Order::Descending {
                    wanted.reverse();
                }
                assert_eq!(page.events, wanted[..expected], "{list:?}");
                assert_eq!(page.is_last, expected == 6, "{list:?}");
                // What did not fit comes behind `next`.
                let next = if order == Order::Ascending && expected < 6 {
                    wanted[expected - 1].cursor
                } else {
                    page.next
                };
                assert_eq!(page.next, next, "{list:?}");
            }
        }
    }
}

pub(super) async fn next_of_full_list_is_its_last_event(db: &dyn TestDatabase) {
    let store = migrated(db).await;
    Writer::of(&store).await.send(&events("t", "", 5)).await;
    until_stable(&store).await;
    let page = store
        .list(&List {
            limit: 3,
            ..List::default()
        })
        .await
        .unwrap();
    assert_eq!(page.next, page.events[2].cursor);
    let (rest, _) = scanned_all(&store, page.next, 1000).await;
    assert_eq!(rest, listed(&store).await[3..]);
}

pub(super) async fn next_of_short_list_is_last_stable_position(db: &dyn TestDatabase) {
    let store = migrated(db).await;
    let mut writer = Writer::of(&store).await;
    for filter in [
        Filter::default(),
        Filter {
            topic: Some(Topic::parse("u").unwrap()),
            ..Filter::default()
        },
    ] {
        let list = List {
            filter,
            limit: 100,
            ..List::default()
        };
        ends_at_last_stable(&store, &list).await;
        writer
            .send(&[event("t", &list.filter.topic.is_some().to_string(), "{}")])
            .await;
        ends_at_last_stable(&store, &list).await;
        let beyond = List { offset: 50, ..list };
        ends_at_last_stable(&store, &beyond).await;
    }
}

pub(super) async fn next_of_newest_first_list_is_last_stable_position(db: &dyn TestDatabase) {
    let store = migrated(db).await;
    let list = List {
        order: Order::Descending,
        limit: 2,
        ..List::default()
    };
    ends_at_last_stable(&store, &list).await;
    Writer::of(&store).await.send(&events("t", "", 5)).await;
    ends_at_last_stable(&store, &list).await;
    let page = ends_at_last_stable(&store, &List { offset: 2, ..list }).await;
    assert_eq!(page.len(), 2);
    until_stable(&store).await;
    let next = store
        .list(&List {
            order: Order::Descending,
            limit: 2,
            ..List::default()
        })
        .await
        .unwrap()
        .next;
    assert_eq!(scanned_all(&store, next, 10).await.0, []);
    Writer::of(&store).await.send(&events("t", "later", 2)).await;
    until_stable(&store).await;
    assert_eq!(scanned_all(&store, next, 10).await.0.len(), 2);
}

/// The last stable position moves during this test: other tests write on the same server.
async fn ends_at_last_stable(store: &Arc<dyn Store>, list: &List) -> Vec<StoredEvent> {
    let before = store.stability().await.unwrap().last_stable;
    let page = store.list(list).await.unwrap();
    let after = store.stability().await.unwrap().last_stable;
    assert!(
        before <= page.next && page.next <= after,
        "{before} {} {after} {list:?}",
        page.next
    );
    page.events
}

/// Events that came after the list began are not in it, and a scan that follows must not skip them.
pub(super) async fn next_of_list_below_a_batch_skips_nothing(db: &dyn TestDatabase) {
    let store = migrated(db).await;
    let mut writer = Writer::of(&store).await;
    writer.send(&events("t", "", 3)).await;
    let later = writer.send(&events("t", "later", 2)).await;
    until_stable(&store).await;
    for (order, offset) in [(Order::Ascending, 0), (Order::Descending, 0), (Order::Ascending, 10)] {
        let list = List {
            order,
            offset,
            limit: 100,
            below: Some(later.batch),
            ..List::default()
        };
        let page = store.list(&list).await.unwrap();
        assert!(page.events.iter().all(|stored| stored.cursor.batch() < later.batch));
        assert!(page.next < Cursor::new(later.batch, 0), "{order:?} {offset}");
        let seen = scanned_all(&store, page.next, 100).await.0;
        assert!(seen.ends_with(&listed(&store).await[3..]), "{order:?} {offset}");
        assert!(offset > 0 || seen.len() == 2, "{order:?} {offset}");
    }
}
