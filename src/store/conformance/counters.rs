//! The counters, and the statistics made of them.

use super::{TestDatabase, Writer, counts, event, events, listed, migrated, topic};
use crate::event::Event;
use crate::store::{Counts, TOPICS_MAX};

pub(super) async fn counters_are_exact_for_each_mix(db: &dyn TestDatabase) {
    let store = migrated(db).await;
    let mut writer = Writer::of(&store).await;
    // Each letter is an event: its identity, in capitals with another payload. A blank begins the next batch.
    let mixes = [
        ("a", counts(1, 1, 0, 0)),
        ("abc", counts(3, 3, 0, 0)),
        ("aaa", counts(3, 1, 2, 0)),
        ("a a", counts(2, 1, 1, 0)),
        ("aA", counts(2, 1, 1, 1)),
        ("a A", counts(2, 1, 1, 1)),
        ("a AAA", counts(4, 1, 3, 3)),
        ("aAa", counts(3, 1, 2, 1)),
        ("aAA", counts(3, 1, 2, 2)),
        ("A aAaA", counts(5, 1, 4, 2)),
        ("a aab bA", counts(6, 2, 4, 1)),
        ("ab abc abcd", counts(9, 4, 5, 0)),
        ("abcABC CBAcba", counts(12, 3, 9, 6)),
    ];
    let mut total = Counts::default();
    for (mix, expected) in mixes {
        let name = mix.replace(' ', "|");
        for batch in mix.split(' ') {
            let event = |letter: char| {
                event(
                    &name,
                    &letter.to_lowercase().to_string(),
                    if letter.is_uppercase() {
                        r#"{"v":2}"#
                    } else {
                        r#"{"v":1}"#
                    },
                )
            };
            writer.send(&batch.chars().map(event).collect::<Vec<_>>()).await;
        }
        let counted = store.topic_counts(&topic(&name)).await.unwrap();
        assert_eq!(counted, expected, "{mix}");
        assert_eq!(counted.received, counted.unique_processed + counted.duplicate_dropped);
        total.received += expected.received;
        total.unique_processed += expected.unique_processed;
        total.duplicate_dropped += expected.duplicate_dropped;
        total.conflicts += expected.conflicts;
    }
    let stats = store.stats().await.unwrap();
    assert_eq!(stats.counts, total);
    assert_eq!(stats.topic_count, i64::try_from(mixes.len()).unwrap());
    assert_eq!(
        listed(&store).await.len(),
        usize::try_from(total.unique_processed).unwrap()
    );
    assert_eq!(store.verify().await.unwrap().counts, total);
}

pub(super) async fn unknown_topic_has_zeros(db: &dyn TestDatabase) {
    let store = migrated(db).await;
    assert_eq!(store.stats().await.unwrap().counts, Counts::default());
    assert_eq!(store.stats().await.unwrap().topics, []);
    Writer::of(&store).await.send(&[event("t", "1", "{}")]).await;
    assert_eq!(store.topic_counts(&topic("T")).await.unwrap(), Counts::default());
    assert_eq!(store.topic_counts(&topic("t")).await.unwrap(), counts(1, 1, 0, 0));
    assert_eq!(store.stats().await.unwrap().topic_count, 1);
}

pub(super) async fn topics_are_listed_largest_first_and_capped(db: &dyn TestDatabase) {
    let store = migrated(db).await;
    let mut writer = Writer::of(&store).await;
    let max = usize::try_from(TOPICS_MAX).unwrap();
    // The largest by unique events, which sort last by name; and one that is large by duplicates alone.
    let mut sent: Vec<Event> = (0..max + 3)
        .map(|number| event(&format!("small{number:04}"), "1", "{}"))
        .collect();
    sent.extend(events("z2", "", 2));
    sent.extend(events("z3", "", 3));
    sent.extend(vec![event("noisy", "1", "{}"); 50]);
    writer.send(&sent).await;
    assert_eq!(
        store.stats().await.unwrap().topics.len(),
        max,
        "also before the largest are known"
    );
    store.find_largest_topics().await.unwrap();
    let stats = store.stats().await.unwrap();
    assert_eq!(stats.topic_count, TOPICS_MAX + 6);
    assert_eq!(stats.topics.len(), max);
    assert_eq!(stats.topics[..2], [("z3".to_owned(), 3), ("z2".to_owned(), 2)]);
    assert!(stats.topics[2..].iter().all(|(_, unique)| *unique == 1));
    let distinct = i64::try_from(max + 3 + 2 + 3 + 1).unwrap();
    assert_eq!(stats.counts, counts(distinct + 49, distinct, 49, 0));
    // What is counted is exact, whenever it was found out which are the largest.
    writer.send(&events("z2", "more ", 5)).await;
    let stats = store.stats().await.unwrap();
    assert_eq!(stats.topics[..2], [("z2".to_owned(), 7), ("z3".to_owned(), 3)]);
}

pub(super) async fn new_topic_is_counted_once_whoever_brings_it(db: &dyn TestDatabase) {
    let (store, other) = (migrated(db).await, db.store());
    let (mut one, mut two) = (Writer::of(&store).await, Writer::of(&other).await);
    for round in 0..20 {
        let topics: Vec<Event> = (0..5)
            .map(|number| event(&format!("{round}.{number}"), "1", "{}"))
            .collect();
        let single = [event(&format!("{round}.single"), "1", "{}")];
        tokio::join!(
            async {
                one.send(&topics).await;
                one.send(&single).await
            },
            async {
                two.send(&single).await;
                two.send(&topics).await
            }
        );
    }
    assert_eq!(store.stats().await.unwrap().topic_count, 120);
    let names = ["0.0", "none", "19.single", "none.2"];
    assert_eq!(store.unknown_topics(&names).await.unwrap(), ["none", "none.2"]);
    assert_eq!(store.verify().await.unwrap().drifts, Vec::<String>::new());
}

pub(super) async fn stats_are_one_snapshot(db: &dyn TestDatabase) {
    let (store, other) = (migrated(db).await, db.store());
    let (mut one, mut two) = (Writer::of(&store).await, Writer::of(&other).await);
    let writing = async {
        for round in 0..40 {
            let sent: Vec<Event> = ["t", "u", "v"]
                .iter()
                .flat_map(|topic| events(topic, &format!("{round} "), 2))
                .collect();
            tokio::join!(one.send(&sent), two.send(&sent));
        }
    };
    let reading = async {
        let mut received = 0;
        while received < 40 * 12 {
            let stats = store.stats().await.unwrap();
            let counts = stats.counts;
            assert_eq!(counts.received, counts.unique_processed + counts.duplicate_dropped);
            assert_eq!(
                stats.topics.iter().map(|(_, unique)| unique).sum::<i64>(),
                counts.unique_processed
            );
            assert_eq!(counts.received % 6, 0, "a batch is counted as a whole: {counts:?}");
            assert!(counts.received >= received);
            received = counts.received;
        }
    };
    tokio::join!(writing, reading);
    assert_eq!(store.stats().await.unwrap().counts, counts(480, 240, 240, 0));
}
