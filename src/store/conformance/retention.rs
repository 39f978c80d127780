//! What expires and what stays: events, identities, conflicts.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use uuid::Uuid;

use super::{
    TestDatabase, Writer, counts, event, events, eventually, kinds, listed, migrated, places, scanned_all, topic,
    until_stable,
};
use crate::event::{Cursor, EventId, StoredEvent, Timestamp, TopicGlob};
use crate::store::{
    Archived, Counts, ErrorClass, Expired, Expiry, Filter, List, NewDeadLetter, Order, Outcome, Scan, Store,
};

const AT_ANY_AGE: Duration = Duration::ZERO;

/// Ends the current partition, which has events.
pub(super) async fn end_partition(store: &Arc<dyn Store>) {
    eventually("the partition ends", async || {
        store.begin_partition(AT_ANY_AGE).await.unwrap()
    })
    .await;
}

/// Expires the same of every partition that has ended, and sums up.
pub(super) async fn expired(store: &Arc<dyn Store>, expiry: impl Fn(i64) -> Expiry) -> Expired {
    let mut sum = Expired::default();
    for partition in store.partitions().await.unwrap() {
        let expiry = expiry(partition.first_batch);
        if partition.ended_at.is_none() && !expiry.dry_run {
            continue;
        }
        eventually("nobody writes to the partition any more", async || {
            let expired = match store.expire(&expiry).await {
                // Others that read or write without a pause are in its way.
                Err(error) if error.class == ErrorClass::Contention => return false,
                expired => expired.unwrap(),
            };
            if expired.is_open && !expiry.dry_run {
                return false;
            }
            sum.removed += expired.removed;
            sum.held_back += expired.held_back;
            true
        })
        .await;
    }
    sum
}

fn ids(events: &[StoredEvent]) -> Vec<&str> {
    events.iter().map(|stored| stored.event.event_id.as_str()).collect()
}

fn removed(removed: u64, held_back: u64) -> Expired {
    Expired {
        removed,
        held_back,
        is_open: false,
    }
}

async fn has_no_drift(store: &Arc<dyn Store>) {
    assert_eq!(store.verify().await.unwrap().drifts, [""; 0]);
}

pub(super) async fn expired_events_are_gone_and_others_stay(db: &dyn TestDatabase) {
    let store = migrated(db).await;
    let mut writer = Writer::of(&store).await;
    writer
        .send(&[event("t", "1", "{}"), event("u", "1", "{}"), event("t", "1", "{}")])
        .await;
    writer.send(&[event("t", "2", "{}")]).await;
    end_partition(&store).await;
    writer.send(&[event("t", "3", "{}"), event("v", "1", "{}")]).await;
    assert_eq!(store.partitions().await.unwrap().len(), 2);

    assert_eq!(expired(&store, Expiry::of_all).await, removed(3, 0));
    assert_eq!(ids(&listed(&store).await), ["3", "1"]);
    let counts = Counts {
        received: 6,
        unique_processed: 5,
        duplicate_dropped: 1,
        conflicts: 0,
        pruned: 3,
    };
    assert_eq!(store.stats().await.unwrap().counts, counts);
    assert_eq!(store.topic_counts(&topic("t")).await.unwrap().pruned, 2);
    assert_eq!(store.topic_counts(&topic("v")).await.unwrap().pruned, 0);
    assert_eq!(store.partitions().await.unwrap().len(), 1);
    assert_eq!(
        expired(&store, Expiry::of_all).await,
        removed(0, 0),
        "there is nothing more to do"
    );
    has_no_drift(&store).await;
}

pub(super) async fn dry_run_counts_the_same_and_changes_nothing(db: &dyn TestDatabase) {
    let store = migrated(db).await;
    let mut writer = Writer::of(&store).await;
    writer.send(&events("t", "", 1203)).await;
    writer.send_leased(&events("t", "leased ", 4)).await;
    let before = (listed(&store).await, store.stats().await.unwrap());
    let dry = |partition| Expiry {
        dry_run: true,
        ..Expiry::of_all(partition)
    };
    assert_eq!(
        expired(&store, dry).await,
        removed(1203, 4),
        "also of a partition that has not ended"
    );
    end_partition(&store).await;
    assert_eq!(expired(&store, dry).await, removed(1203, 4));
    let after = (listed(&store).await, store.stats().await.unwrap());
    assert_eq!((after.0, after.1.counts), (before.0, before.1.counts));
    assert_eq!(expired(&store, Expiry::of_all).await, removed(1203, 4));
    has_no_drift(&store).await;
}

pub(super) async fn current_partition_does_not_expire(db: &dyn TestDatabase) {
    let store = migrated(db).await;
    Writer::of(&store).await.send(&events("t", "", 3)).await;
    let current = store.partitions().await.unwrap().pop().unwrap();
    assert_eq!(current.ended_at, None);
    let found = store.expire(&Expiry::of_all(current.first_batch)).await.unwrap();
    assert!(found.is_open && found.removed == 0);
    assert_eq!(listed(&store).await.len(), 3);
}

pub(super) async fn partition_ends_only_when_it_is_old_and_has_events(db: &dyn TestDatabase) {
    let store = migrated(db).await;
    let hour = Duration::from_secs(3600);
    let mut writer = Writer::of(&store).await;
    for new in [hour, AT_ANY_AGE] {
        assert!(!store.begin_partition(new).await.unwrap(), "it is empty");
    }
    writer.send(&events("t", "", 3)).await;
    assert!(!store.begin_partition(hour).await.unwrap(), "it is young");
    end_partition(&store).await;
    assert!(
        !store.begin_partition(AT_ANY_AGE).await.unwrap(),
        "the new one is empty"
    );
    assert_eq!(store.partitions().await.unwrap().len(), 2);
    // One that began when the clock was wrong.
    writer.send(&events("u", "", 3)).await;
    let (earlier, later) = match db.name() {
        "postgres" => ("now() - interval '2 hours'", "now() + interval '1 day'"),
        _ => ("(unixepoch() - 7200) * 1000000", "(unixepoch() + 86400) * 1000000"),
    };
    db.execute(&format!(
        "update partitions set begun_at = {later} where ended_at is null"
    ))
    .await;
    assert!(!store.begin_partition(hour).await.unwrap(), "its age begins anew");
    db.execute(&format!(
        "update partitions set begun_at = {earlier} where ended_at is null"
    ))
    .await;
    eventually("it ends", async || store.begin_partition(hour).await.unwrap()).await;
    // One that ended then.
    db.execute(&format!(
        "update partitions set ended_at = {later} where ended_at is not null"
    ))
    .await;
    store.begin_partition(hour).await.unwrap();
    let now = store.clock().await.unwrap();
    let ended = store.partitions().await.unwrap();
    assert!(
        ended
            .iter()
            .all(|partition| partition.ended_at.is_none_or(|ended| ended <= now))
    );
}

pub(super) async fn unpublished_events_are_held_back(db: &dyn TestDatabase) {
    let store = migrated(db).await;
    let mut writer = Writer::of(&store).await;
    writer.send(&events("t", "before ", 3)).await;
    writer.send_leased(&events("t", "leased ", 4)).await;
    writer.send(&events("t", "after ", 5)).await;
    end_partition(&store).await;
    let decided = |partition| Expiry {
        decision: Some("all".to_owned()),
        ..Expiry::of_all(partition)
    };
    for expected in [removed(8, 4), removed(0, 4)] {
        assert_eq!(expired(&store, decided).await, expected);
        assert_eq!(
            ids(&listed(&store).await),
            ["leased 0", "leased 1", "leased 2", "leased 3"]
        );
        assert_eq!(store.stats().await.unwrap().held_back, 4);
        has_no_drift(&store).await;
    }
    let partition = &store.partitions().await.unwrap()[0];
    assert_eq!((partition.decision.as_str(), partition.held_back), ("all", 4));
    db.execute("update batches set published_at = received_at").await;
    assert_eq!(expired(&store, decided).await, removed(4, 0));
    assert_eq!(listed(&store).await, []);
    assert_eq!(store.stats().await.unwrap().held_back, 0);
    has_no_drift(&store).await;
}

/// Its batch counts as published, but the dead letter is not.
pub(super) async fn dead_letters_are_held_back(db: &dyn TestDatabase) {
    let store = migrated(db).await;
    Writer::of(&store).await.send(&events("t", "", 5)).await;
    let cursor = listed(&store).await[3].cursor;
    let reason = "too large".to_owned();
    store.dead_letter(&[NewDeadLetter { cursor, reason }]).await.unwrap();
    end_partition(&store).await;
    assert_eq!(expired(&store, Expiry::of_all).await, removed(4, 1));
    assert_eq!(ids(&listed(&store).await), ["3"]);
    assert_eq!(store.dead_letters(Cursor::BEGINNING, 10).await.unwrap().len(), 1);
    has_no_drift(&store).await;
    assert_eq!(store.remove_dead_letters(&[cursor]).await.unwrap(), 1);
    assert_eq!(expired(&store, Expiry::of_all).await, removed(1, 0));
    assert_eq!(listed(&store).await, []);
}

/// Publish, expire, publish again: the verdict is as ever, also that of an attempt that is sent again.
pub(super) async fn identity_outlives_its_event(db: &dyn TestDatabase) {
    let store = migrated(db).await;
    let mut writer = Writer::of(&store).await;
    let id = Uuid::new_v4();
    let sent = [event("t", "1", r#"{"v":1}"#), event("t", "2", "{}")];
    let first = writer.send_as(id, &sent).await;
    end_partition(&store).await;
    assert_eq!(expired(&store, Expiry::of_all).await, removed(2, 0));

    assert_eq!(writer.send_as(id, &sent).await, first);
    let again = writer
        .send(&[event("t", "1", r#"{ "v": 1.0 }"#), event("t", "2", r#"{"v":1}"#)])
        .await;
    let firsts = places(&first);
    assert_eq!(
        again.outcomes,
        [Outcome::Duplicate(firsts[0]), Outcome::Conflict(firsts[1])]
    );
    let alone = writer.send(&[event("t", "2", r#"{"v":1}"#)]).await;
    assert_eq!(alone.outcomes, [Outcome::Conflict(firsts[1])]);
    let expected = Counts {
        pruned: 2,
        ..super::counts(5, 2, 3, 2)
    };
    assert_eq!(store.stats().await.unwrap().counts, expected);
    assert_eq!(listed(&store).await, []);
    has_no_drift(&store).await;
}

pub(super) async fn topics_expire_by_the_first_pattern_that_matches(db: &dyn TestDatabase) {
    let store = migrated(db).await;
    let topics = ["debug.a", "debug.keep", "pay", "other", "100%", "100x"];
    let sent: Vec<_> = topics.iter().map(|topic| event(topic, "1", "{}")).collect();
    Writer::of(&store).await.send(&sent).await;
    end_partition(&store).await;
    let rules = |rules: &[(&str, bool)], others| {
        let rules: Vec<_> = rules
            .iter()
            .map(|(glob, goes)| (TopicGlob::parse(glob).unwrap(), *goes))
            .collect();
        move |partition| Expiry {
            topics: rules.clone(),
            others,
            ..Expiry::of_all(partition)
        }
    };
    let left = async || -> Vec<String> {
        let left = listed(&store).await.into_iter();
        left.map(|stored| stored.event.topic.to_string()).collect()
    };
    let debug = rules(&[("debug.keep", false), ("debug.*", true), ("100%", true)], false);
    assert_eq!(expired(&store, debug).await, removed(2, 0));
    assert_eq!(left().await, ["debug.keep", "pay", "other", "100x"]);
    has_no_drift(&store).await;
    let all_but_pay = rules(&[("p*", false)], true);
    assert_eq!(expired(&store, all_but_pay).await, removed(3, 0));
    assert_eq!(left().await, ["pay"]);
    assert_eq!(store.topic_counts(&topic("debug.a")).await.unwrap().pruned, 1);
    assert_eq!(store.topic_counts(&topic("pay")).await.unwrap().pruned, 0);
    has_no_drift(&store).await;
}

pub(super) async fn only_events_before_a_time_expire(db: &dyn TestDatabase) {
    let store = migrated(db).await;
    let mut writer = Writer::of(&store).await;
    writer.send(&events("t", "old ", 2)).await;
    let between = store.clock().await.unwrap();
    eventually("the clock goes on", async || store.clock().await.unwrap() > between).await;
    writer.send(&events("t", "new ", 2)).await;
    let boundary = listed(&store).await[2].received_at;
    end_partition(&store).await;
    let before = |partition| Expiry {
        before: Some(boundary),
        ..Expiry::of_all(partition)
    };
    assert_eq!(expired(&store, before).await, removed(2, 0));
    assert_eq!(ids(&listed(&store).await), ["new 0", "new 1"]);
    has_no_drift(&store).await;
}

/// Also the newest numbers are never reused, whichever process opens the store next; reads in every direction agree.
pub(super) async fn cursors_and_lists_stay_valid_over_partitions(db: &dyn TestDatabase) {
    let store = migrated(db).await;
    let mut writer = Writer::of(&store).await;
    for round in 0..6 {
        writer.send(&events("t", &format!("{round} "), 3)).await;
        writer.send(&events("u", &format!("{round} "), 1)).await;
        if round % 2 == 1 {
            end_partition(&store).await;
        }
    }
    until_stable(&store).await;
    let all = listed(&store).await;
    assert!(all.is_sorted_by_key(|stored| stored.cursor));
    assert_eq!(store.partitions().await.unwrap().len(), 4);
    let (seen, end) = scanned_all(&store, Cursor::BEGINNING, 2).await;
    assert_eq!(seen, all);
    let oldest = store.partitions().await.unwrap()[0].first_batch;
    eventually("the oldest partition goes", async || {
        !store.expire(&Expiry::of_all(oldest)).await.unwrap().is_open
    })
    .await;
    let rest = &all[8..];
    assert_eq!(listed(&store).await, rest);
    for place in &all {
        let expected: Vec<_> = rest
            .iter()
            .filter(|stored| stored.cursor > place.cursor)
            .cloned()
            .collect();
        assert_eq!(scanned_all(&store, place.cursor, 3).await.0, expected);
    }
    let filter = |name: &str| Filter {
        topic: Some(topic(name)),
        ..Filter::default()
    };
    for name in ["t", "u"] {
        let expected: Vec<_> = rest
            .iter()
            .filter(|stored| stored.event.topic.as_str() == name)
            .cloned()
            .collect();
        for order in [Order::Ascending, Order::Descending] {
            let list = List {
                filter: filter(name),
                order,
                limit: 100,
                ..List::default()
            };
            let mut found = store.list(&list).await.unwrap().events;
            if order == Order::Descending {
                found.reverse();
            }
            assert_eq!(found, expected, "{name} {order:?}");
        }
        let scan = Scan {
            filter: filter(name),
            after: Cursor::BEGINNING,
            limit: 2,
            bytes_max: usize::MAX,
            turn: crate::store::Turn::Client,
        };
        assert_eq!(super::scanned_with(&store, &scan).await.0, expected);
    }
    expired(&store, Expiry::of_all).await;
    let newer = Writer::of(&db.store()).await.send(&events("t", "newer ", 1)).await;
    assert!(newer.batch > all[23].cursor.batch());
    until_stable(&store).await;
    assert_eq!(ids(&scanned_all(&store, end, 3).await.0), ["newer 0"]);
}

/// Writers, a reader, and partitions that end: no event is skipped, and none comes twice or out of order.
pub(super) async fn scan_beside_writers_skips_nothing_where_partitions_end(db: &dyn TestDatabase) {
    let (store, other) = (migrated(db).await, db.store());
    let (mut one, mut two) = (Writer::of(&store).await, Writer::of(&other).await);
    one.send(&events("t", "first ", 1)).await;
    let (has_ended, is_over) = (AtomicBool::new(false), AtomicBool::new(false));
    let ending = async {
        let mut ended = 0;
        while ended < 4 {
            ended += u32::from(store.begin_partition(AT_ANY_AGE).await.unwrap());
        }
        has_ended.store(true, Ordering::Relaxed);
    };
    let writing = async {
        let first = async {
            let mut round = 0;
            while !has_ended.load(Ordering::Relaxed) {
                one.send(&events("t", &format!("{round} "), 1 + round % 3)).await;
                round += 1;
            }
        };
        let second = async {
            let mut round = 0;
            while !has_ended.load(Ordering::Relaxed) {
                two.send(&events("u", &format!("{round} "), 2)).await;
                round += 1;
            }
        };
        tokio::join!(first, second, ending);
        until_stable(&store).await;
        is_over.store(true, Ordering::Relaxed);
    };
    let reading = async {
        let (mut seen, mut after) = (Vec::new(), Cursor::BEGINNING);
        loop {
            let was_over = is_over.load(Ordering::Relaxed);
            let (events, next) = scanned_all(&other, after, 7).await;
            seen.extend(events);
            after = next;
            if was_over {
                return seen;
            }
        }
    };
    let ((), seen) = tokio::join!(writing, reading);
    assert_eq!(seen, listed(&store).await);
    assert!(seen.len() > 4, "{}", seen.len());
    assert!(store.partitions().await.unwrap().len() > 4);
    has_no_drift(&store).await;
}

/// Two that write, one that expires, one that recounts: at every moment each event is there or counted as pruned.
pub(super) async fn counters_are_exact_while_events_expire(db: &dyn TestDatabase) {
    let (store, other) = (migrated(db).await, db.store());
    let (mut one, mut two) = (Writer::of(&store).await, Writer::of(&other).await);
    one.send(&events("t", "0 ", 4)).await;
    let is_done = AtomicBool::new(false);
    let expiring = async {
        let (mut gone, mut ended) = (0, 0);
        while ended < 3 {
            ended += u32::from(store.begin_partition(AT_ANY_AGE).await.unwrap());
            gone += expired(&store, Expiry::of_all).await.removed;
        }
        is_done.store(true, Ordering::Relaxed);
        gone
    };
    // The first writer sends the same twenty events again and again.
    let first = async {
        let mut rounds = 1;
        while !is_done.load(Ordering::Relaxed) || rounds < 6 {
            one.send(&events("t", &format!("{} ", rounds % 5), 4)).await;
            rounds += 1;
        }
        rounds
    };
    let second = async {
        let mut rounds = 0;
        while !is_done.load(Ordering::Relaxed) {
            two.send(&events("u", &format!("{rounds} "), 3)).await;
            rounds += 1;
        }
        rounds
    };
    let recounting = async {
        while !is_done.load(Ordering::Relaxed) {
            has_no_drift(&other).await;
        }
    };
    let (gone, first, second, ()) = tokio::join!(expiring, first, second, recounting);
    let counts = store.stats().await.unwrap().counts;
    let rows = listed(&store).await;
    let unique = 20 + 3 * second;
    assert_eq!(
        (counts.received, counts.unique_processed),
        (4 * first + 3 * second, unique)
    );
    assert_eq!(u64::try_from(counts.pruned).unwrap(), gone);
    assert_eq!(usize::try_from(unique - counts.pruned).unwrap(), rows.len());
    assert!(gone > 0);
    let places: HashSet<_> = rows.iter().map(|stored| stored.cursor).collect();
    assert_eq!(places.len(), rows.len());
    has_no_drift(&store).await;
}

pub(super) async fn forgotten_identity_is_stored_again(db: &dyn TestDatabase) {
    let store = migrated(db).await;
    let mut writer = Writer::of(&store).await;
    let first = writer.send(&events("t", "gone ", 3)).await;
    end_partition(&store).await;
    writer.send(&events("t", "kept ", 2)).await;
    expired(&store, Expiry::of_all).await;
    let all = Timestamp::from_micros(store.clock().await.unwrap().micros() + 1_000_000).unwrap();
    let none = Timestamp::from_micros(places(&first)[0].received_at.micros()).unwrap();
    assert_eq!(store.forget_identities(none).await.unwrap(), 0);
    assert_eq!(store.forget_identities(all).await.unwrap(), 3);
    assert_eq!(
        store.forget_identities(all).await.unwrap(),
        0,
        "an event that is there keeps its identity"
    );
    let verification = store.verify().await.unwrap();
    assert_eq!((verification.identities, verification.identities_forgotten), (2, 3));
    assert_eq!(verification.drifts, [""; 0]);

    let again = writer
        .send(&[event("t", "gone 0", "{}"), event("t", "kept 0", r#"{"a":1}"#)])
        .await;
    assert_eq!(kinds(&again), ["stored", "duplicate"]);
    assert_eq!(store.stats().await.unwrap().counts.unique_processed, 6);
    has_no_drift(&store).await;
}

pub(super) async fn topic_of_which_nothing_is_left_is_forgotten(db: &dyn TestDatabase) {
    let store = migrated(db).await;
    let mut writer = Writer::of(&store).await;
    writer
        .send(&[
            event("gone", "1", "{}"),
            event("gone", "1", r#"{"v":2}"#),
            event("used", "1", "{}"),
        ])
        .await;
    let place = listed(&store).await.pop().unwrap().cursor;
    writer.send(&events("gone", "more ", 2)).await;
    end_partition(&store).await;
    writer.send(&events("kept", "", 1)).await;
    expired(&store, Expiry::of_all).await;
    let before = store.stats().await.unwrap();
    assert_eq!(
        (before.topic_count, before.counts.pruned),
        (3, 4),
        "identities are left of them"
    );
    let all = Timestamp::from_micros(store.clock().await.unwrap().micros() + 1_000_000).unwrap();
    assert_eq!(store.forget_identities(all).await.unwrap(), 4);
    let stats = store.stats().await.unwrap();
    assert_eq!(stats.topics, [("kept".to_owned(), 1)]);
    assert_eq!((stats.topic_count, stats.counts), (1, before.counts));
    assert_eq!(store.unknown_topics(&["gone", "kept"]).await.unwrap(), ["gone"]);
    has_no_drift(&store).await;

    // Who had not read all of it is told, and who reads a topic of which nothing has expired is not.
    let is_truncated = async |name: &str| {
        let scan = Scan {
            filter: Filter {
                topic: Some(topic(name)),
                ..Filter::default()
            },
            after: place,
            limit: 2,
            bytes_max: usize::MAX,
            turn: crate::store::Turn::Client,
        };
        store.scan(&scan).await.unwrap().is_truncated
    };
    assert!(is_truncated("gone").await);
    assert!(!is_truncated("kept").await);

    assert_eq!(kinds(&writer.send(&events("gone", "", 2)).await), ["stored", "stored"]);
    assert_eq!(store.topic_counts(&topic("gone")).await.unwrap(), counts(2, 2, 0, 0));
    let stats = store.stats().await.unwrap();
    assert_eq!((stats.topic_count, stats.counts.unique_processed), (2, 7));
    has_no_drift(&store).await;
}

pub(super) async fn identity_is_found_before_and_after_its_event_expires(db: &dyn TestDatabase) {
    let store = migrated(db).await;
    let sent = Writer::of(&store).await.send(&[event("t", "1", r#"{"v":1}"#)]).await;
    let find = async |id: &str| store.find(&topic("t"), &EventId::parse(id).unwrap()).await.unwrap();
    let found = find("1").await.unwrap();
    assert_eq!(found.first, places(&sent)[0]);
    assert_eq!(found.event, listed(&store).await.pop());
    assert_eq!(find("2").await, None);
    end_partition(&store).await;
    expired(&store, Expiry::of_all).await;
    let found = find("1").await.unwrap();
    assert_eq!((found.first, found.event), (places(&sent)[0], None));
}

pub(super) async fn archive_is_noted_for_what_is_there(db: &dyn TestDatabase) {
    let store = migrated(db).await;
    Writer::of(&store).await.send(&events("t", "", 3)).await;
    end_partition(&store).await;
    let first = store.partitions().await.unwrap()[0].first_batch;
    let archived = |events| Archived {
        manifest: "manifest-1-2.json".to_owned(),
        events,
    };
    assert!(
        !store.mark_archived(first, &archived(2)).await.unwrap(),
        "it has three events"
    );
    assert!(
        !store.mark_archived(first + 1, &archived(3)).await.unwrap(),
        "there is no such partition"
    );
    assert_eq!(store.archived().await.unwrap(), []);
    eventually("nobody writes to the partition any more", async || {
        store.mark_archived(first, &archived(3)).await.unwrap()
    })
    .await;
    let partition = &store.partitions().await.unwrap()[0];
    assert_eq!(partition.archived_as.as_deref(), Some("manifest-1-2.json"));
    expired(&store, Expiry::of_all).await;
    assert_eq!(store.archived().await.unwrap(), [archived(3)]);
}

pub(super) async fn size_of_partitions_follows_their_events(db: &dyn TestDatabase) {
    let store = migrated(db).await;
    let mut writer = Writer::of(&store).await;
    let payload = format!(r#"{{"a":"{}"}}"#, "x".repeat(2000));
    let large: Vec<_> = (0..200)
        .map(|number| event("t", &number.to_string(), &payload))
        .collect();
    writer.send(&large).await;
    end_partition(&store).await;
    writer.send(&events("t", "small ", 1)).await;
    let sizes: Vec<u64> = store.partitions().await.unwrap().iter().map(|one| one.bytes).collect();
    // PostgreSQL compresses what repeats.
    assert!(sizes[0] > sizes[1], "{sizes:?}");
    expired(&store, Expiry::of_all).await;
    let left: Vec<u64> = store.partitions().await.unwrap().iter().map(|one| one.bytes).collect();
    assert_eq!(left, sizes[1..]);
}
