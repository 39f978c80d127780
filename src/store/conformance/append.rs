//! Storing: what an append stores, keeps, and answers.

use std::collections::HashMap;

use super::{
    TestDatabase, Writer, counts, event, events, kinds, listed, migrated, places, scanned_all, topic, until_stable,
};
use crate::event::{Cursor, Event, Headers, Payload, Source, Timestamp};
use crate::store::{ErrorClass, Filter, List, Outcome, Scan};

pub(super) async fn new_event_comes_back_byte_for_byte(db: &dyn TestDatabase) {
    let store = migrated(db).await;
    let mut sent = vec![
        event("t", "white space", "{ \"b\" :\t1,\r\n\n  \"a\":[ ] }"),
        event("t", "order", r#"{"b":1,"a":2,"b":3,"":4}"#),
        event(
            "t",
            "numbers",
            r#"{"n":[9007199254740993,1.0,1e2,-0,1E+2,0.10,123456789012345678901234567890,1e-300]}"#,
        ),
        event(
            "t",
            "escapes",
            r#"{"s":"\u0041\/\ud83d\ude00\u001f\\\"\t","\u0061":null}"#,
        ),
        event(
            "t",
            "text",
            "{\"s\":\"é e\u{301} 😀 \u{2028} '; drop table events; -- $1 %s {} \u{7f}\"}",
        ),
        event("t", "empty", "{}"),
        event(
            "'; drop table events; --".replace(' ', "_").as_str(),
            "\\x00 {a,\"b\"} (1,2) null",
            "{}",
        ),
        event("{NULL}", "NULL", r#"{"null":null}"#),
        event("\u{202e}😀", "e\u{301}\u{200b}", "{}"),
    ];
    for time in [
        "0001-01-01T00:00:00Z",
        "1969-12-31T23:59:59.999999Z",
        "9999-12-31T23:59:59.999999Z",
    ] {
        let timed = event("time", time, "{}");
        sent.push(Event {
            occurred_at: Timestamp::parse(time).unwrap(),
            ..timed
        });
    }
    sent.push(Event {
        source: Source::parse(" \\ \" 'é' ").unwrap(),
        ..event("source", "1", "{}")
    });

    let appended = Writer::of(&store).await.send(&sent).await;
    assert_eq!(kinds(&appended), vec!["stored"; sent.len()]);
    let back = listed(&db.store()).await;
    assert_eq!(back.iter().map(|stored| stored.event.clone()).collect::<Vec<_>>(), sent);
    for (stored, sent) in back.iter().zip(&sent) {
        assert_eq!(stored.event.payload.as_str(), sent.payload.as_str());
        assert_eq!(stored.received_at, appended.received_at);
        assert_eq!(stored.cursor.batch(), appended.batch);
    }
}

pub(super) async fn largest_names_and_payloads_are_kept(db: &dyn TestDatabase) {
    let store = migrated(db).await;
    // Four-byte characters that hardly repeat: a key of an index cannot compress them.
    let name: String = (0..63u32)
        .filter_map(|n| char::from_u32(0x1_0000 + n * 7919))
        .chain("abc".chars())
        .collect();
    assert_eq!(name.len(), 255);
    let text = "x".repeat(256 * 1024 - r#"{"s":""}"#.len());
    let payload = Payload::parse(format!(r#"{{"s":"{text}"}}"#)).unwrap();
    let large = Event {
        source: Source::parse(name.clone()).unwrap(),
        payload,
        ..event(&name, &name, "{}")
    };
    let deep = event(
        "t",
        "deep",
        &format!("{}{}", r#"{"a":"#.repeat(63) + "{}", "}".repeat(63)),
    );
    let digits = event(
        "t",
        "digits",
        &format!(r#"{{"n":[{}1,1e308,1e-307]}}"#, "9".repeat(300)),
    );
    let sent = [large, deep, digits];

    let mut writer = Writer::of(&store).await;
    writer.send(&sent).await;
    assert_eq!(
        listed(&store)
            .await
            .into_iter()
            .map(|stored| stored.event)
            .collect::<Vec<_>>(),
        sent
    );
    // Other bytes, the same value: now it is the comparison that must bear them.
    let spaced = sent.map(|event| Event {
        payload: Payload::parse(event.payload.as_str().replacen('}', " }", 1)).unwrap_or(event.payload),
        ..event
    });
    assert!(!kinds(&writer.send(&spaced).await).contains(&"stored"));
}

/// Some events of a batch have headers, and a single event has a statement of its own.
pub(super) async fn headers_come_back_byte_for_byte(db: &dyn TestDatabase) {
    let store = migrated(db).await;
    let mut writer = Writer::of(&store).await;
    let with = |id: &str, headers: Option<&str>| Event {
        headers: headers.map(|text| Headers::from_stored(text.to_owned())),
        ..event("t", id, "{}")
    };
    let sent = [
        with("0", None),
        with("1", Some("{\"b\": \"1\",\n\"a\":\"\\u00e9😀\"}")),
        with("2", None),
        with("3", Some(r#"{"a":""}"#)),
    ];
    writer.send(&sent).await;
    writer.send(&sent[..1]).await;
    writer.send(&[with("4", Some(r#"{"x":"y"}"#))]).await;
    writer.send(&[with("5", None)]).await;
    // Headers are not compared: the first copy's stay.
    let again = writer
        .send(&[with("1", Some("{\"other\":\"2\"}")), with("5", Some("{\"x\":\"y\"}"))])
        .await;
    assert_eq!(kinds(&again), ["duplicate"; 2]);
    let all = listed(&store).await;
    let headers: Vec<_> = all
        .iter()
        .map(|stored| stored.event.headers.as_ref().map(Headers::as_str))
        .collect();
    let expected = sent.iter().map(|event| event.headers.as_ref().map(Headers::as_str));
    let expected: Vec<_> = expected.chain([Some(r#"{"x":"y"}"#), None]).collect();
    assert_eq!(headers, expected);
    until_stable(&store).await;
    assert_eq!(scanned_all(&store, Cursor::BEGINNING, 2).await.0, all);
    let batches: Vec<i64> = all.iter().map(|stored| stored.cursor.batch()).collect();
    assert_eq!(
        store.events_of(&batches[..1], None, usize::MAX).await.unwrap().events,
        all[..4]
    );
    // They count in a page.
    let pages = async |bytes_max| {
        let scan = Scan {
            filter: Filter::default(),
            after: Cursor::BEGINNING,
            limit: 10,
            bytes_max,
            turn: crate::store::Turn::Client,
        };
        store.scan(&scan).await.unwrap().events.len()
    };
    let bytes = sent[1].headers.as_ref().unwrap().as_str().len();
    assert_eq!((pages(4 + bytes).await, pages(3 + bytes).await), (2, 1));
}

pub(super) async fn batch_keeps_order_of_arrival(db: &dyn TestDatabase) {
    let store = migrated(db).await;
    let sent = [
        event("z", "9", "{}"),
        event("a", "5", "{}"),
        event("z", "1", "{}"),
        event("a", "7", "{}"),
        event("m", "0", "{}"),
    ];
    let appended = Writer::of(&store).await.send(&sent).await;
    let back = listed(&store).await;
    assert_eq!(
        back.iter().map(|stored| &stored.event).collect::<Vec<_>>(),
        sent.iter().collect::<Vec<_>>()
    );
    assert!(back.is_sorted_by(|one, other| one.cursor < other.cursor));
    // The outcomes are in the order of the rows: by topic, then by id.
    let by_row = [1, 3, 4, 2, 0].map(|index: usize| back[index].cursor);
    assert_eq!(
        places(&appended).iter().map(|place| place.cursor).collect::<Vec<_>>(),
        by_row
    );
}

pub(super) async fn identities_are_compared_byte_for_byte(db: &dyn TestDatabase) {
    let store = migrated(db).await;
    let mut writer = Writer::of(&store).await;
    let ids = [
        "a",
        "A",
        "a ",
        " a",
        "a  ",
        "\u{e9}",
        "e\u{301}",
        "\u{c9}",
        "ss",
        "ß",
        "fi",
        "\u{fb01}",
        "i",
        "I",
        "\u{130}",
        "\u{131}",
        "1",
        "01",
        "1.0",
        "a\u{200b}",
        "a\u{a0}",
        "K",
        "\u{212a}",
        "a%",
        "a_",
        "a\\",
        "\u{3000}a",
        "😀",
        "😁",
    ];
    let topics = ["t", "T", "\u{e9}", "e\u{301}"];
    let sent: Vec<Event> = topics
        .iter()
        .flat_map(|topic| ids.map(|id| event(topic, id, "{}")))
        .collect();
    assert_eq!(kinds(&writer.send(&sent).await), vec!["stored"; sent.len()]);
    assert_eq!(kinds(&writer.send(&sent).await), vec!["duplicate"; sent.len()]);
    for sent in &sent {
        let filter = Filter {
            topic: Some(sent.topic.clone()),
            event_id: Some(sent.event_id.clone()),
            ..Filter::default()
        };
        let page = store
            .list(&List {
                filter,
                limit: 10,
                ..List::default()
            })
            .await
            .unwrap();
        assert_eq!(
            page.events.iter().map(|stored| &stored.event).collect::<Vec<_>>(),
            [sent]
        );
    }
    for name in topics {
        let count = i64::try_from(ids.len()).unwrap();
        assert_eq!(
            store.topic_counts(&topic(name)).await.unwrap(),
            counts(2 * count, count, count, 0),
            "{name}"
        );
    }
}

pub(super) async fn first_copy_in_a_batch_is_stored(db: &dyn TestDatabase) {
    let store = migrated(db).await;
    let sent = [
        event("t", "1", r#"{"v":1}"#),
        event("t", "1", r#"{"v":2}"#),
        event("t", "1", r#"{"v":1}"#),
        event("t", "1", r#"{"v":1.0}"#),
        event("t", "1", r#"{"v":2}"#),
    ];
    let appended = Writer::of(&store).await.send(&sent).await;
    assert_eq!(kinds(&appended), ["stored", "conflict", "duplicate", "conflict"]);
    let back = listed(&store).await;
    assert_eq!(back.iter().map(|stored| &stored.event).collect::<Vec<_>>(), [&sent[0]]);
    for place in places(&appended) {
        assert_eq!((place.cursor, place.received_at), (back[0].cursor, back[0].received_at));
    }
    assert_eq!(store.stats().await.unwrap().counts, counts(5, 1, 4, 2));
}

pub(super) async fn identical_copies_are_one_row(db: &dyn TestDatabase) {
    let store = migrated(db).await;
    let mut writer = Writer::of(&store).await;
    let sent = vec![event("t", "1", r#"{"v":1}"#); 7];
    assert_eq!(kinds(&writer.send(&sent).await), ["stored"]);
    assert_eq!(store.stats().await.unwrap().counts, counts(7, 1, 6, 0));
    assert_eq!(kinds(&writer.send(&sent).await), ["duplicate"]);
    assert_eq!(store.stats().await.unwrap().counts, counts(14, 1, 13, 0));
    assert_eq!(
        kinds(&writer.send(&vec![event("t", "1", r#"{"v":2}"#); 3]).await),
        ["conflict"]
    );
    assert_eq!(store.stats().await.unwrap().counts, counts(17, 1, 16, 3));
}

pub(super) async fn duplicate_returns_position_of_first_copy(db: &dyn TestDatabase) {
    let (store, other) = (migrated(db).await, db.store());
    let (mut one, mut two) = (Writer::of(&store).await, Writer::of(&other).await);
    let sent = [event("t", "1", "{}"), event("t", "2", "{}"), event("u", "1", "{}")];
    let first = one.send(&sent[..2]).await;
    // Another writer, a moment later, with one that is new between two that are not.
    let again = two.send(&[sent[1].clone(), sent[2].clone(), sent[0].clone()]).await;
    assert_eq!(kinds(&again), ["duplicate", "duplicate", "stored"]);
    assert_eq!(places(&again)[..2], places(&first));
    assert!(again.batch > first.batch);
    assert_eq!(
        listed(&store)
            .await
            .iter()
            .map(|stored| &stored.event)
            .collect::<Vec<_>>(),
        sent.iter().collect::<Vec<_>>()
    );
}

pub(super) async fn conflict_returns_first_copy_and_changes_nothing(db: &dyn TestDatabase) {
    let (store, other) = (migrated(db).await, db.store());
    let sent = event("t", "1", r#"{"v":1}"#);
    let first = Writer::of(&store).await.send(std::slice::from_ref(&sent)).await;
    let before = listed(&store).await;
    let rival = Event {
        occurred_at: Timestamp::parse("2001-01-01T00:00:00Z").unwrap(),
        source: Source::parse("rival").unwrap(),
        ..event("t", "1", r#"{"v":2}"#)
    };
    let again = Writer::of(&other).await.send(std::slice::from_ref(&rival)).await;
    assert_eq!(again.outcomes, [Outcome::Conflict(places(&first)[0])]);
    // Only payloads are compared: another time or source is a plain duplicate.
    let retold = Event {
        payload: sent.payload.clone(),
        ..rival
    };
    let again = Writer::of(&other).await.send(&[retold]).await;
    assert_eq!(again.outcomes, [Outcome::Duplicate(places(&first)[0])]);
    assert_eq!(listed(&store).await, before);
}

pub(super) async fn one_of_two_concurrent_writers_stores(db: &dyn TestDatabase) {
    let (store, other) = (migrated(db).await, db.store());
    let (mut one, mut two) = (Writer::of(&store).await, Writer::of(&other).await);
    for round in 0..40 {
        let id = round.to_string();
        let (mine, yours) = ([event("t", &id, r#"{"by":1}"#)], [event("t", &id, r#"{"by":2}"#)]);
        let (mine, yours) = tokio::join!(one.send(&mine), two.send(&yours));
        let mut kinds = [kinds(&mine)[0], kinds(&yours)[0]];
        kinds.sort_unstable();
        assert_eq!(kinds, ["conflict", "stored"], "{round}");
        assert_eq!(places(&mine), places(&yours));
    }
    assert_eq!(store.stats().await.unwrap().counts, counts(80, 40, 40, 40));
}

pub(super) async fn later_batches_come_later_in_log(db: &dyn TestDatabase) {
    let (store, other) = (migrated(db).await, db.store());
    let (mut one, mut two) = (Writer::of(&store).await, Writer::of(&other).await);
    let mut newest = 0;
    for round in 0..20 {
        let writer = if round % 3 == 0 { &mut one } else { &mut two };
        let appended = writer.send(&[event("t", &round.to_string(), "{}")]).await;
        assert!(appended.batch > newest);
        newest = appended.batch;
    }
    let order: Vec<String> = listed(&store)
        .await
        .iter()
        .map(|stored| stored.event.event_id.to_string())
        .collect();
    assert_eq!(order, (0..20).map(|round| round.to_string()).collect::<Vec<_>>());
}

/// Each round sends the same identities from both writers, each in an order of its own.
pub(super) async fn overlapping_batches_store_each_event_once(db: &dyn TestDatabase) {
    let store = migrated(db).await;
    // Sixteen lanes apart: on PostgreSQL the two then share a shard of the counters, the worst case.
    let mut writers = [Writer::writer_id(&store, 0).await, Writer::writer_id(&store, 16).await];
    let mut stored: HashMap<(i64, i32), u32> = HashMap::new();
    for round in 0..60usize {
        let all: Vec<Event> = (0..40usize)
            .map(|n| event(&format!("t{}", n % 5), &format!("{}", round * 20 + n), "{}"))
            .collect();
        let mine: Vec<Event> = (0..40).map(|n| all[(n * 7 + round) % 40].clone()).collect();
        let yours: Vec<Event> = all.iter().rev().cloned().collect();
        let [one, two] = &mut writers;
        let (mine, yours) = tokio::join!(one.send(&mine), two.send(&yours));
        for outcome in mine.outcomes.iter().chain(&yours.outcomes) {
            if let Outcome::Stored(place) = outcome {
                *stored
                    .entry((place.cursor.batch(), place.cursor.position()))
                    .or_default() += 1;
            }
        }
        assert_eq!(places(&mine), places(&yours), "both name the same first copies");
    }
    let distinct = 5 * (60 * 20 + 20);
    let rows = listed(&store).await;
    let unique = rows.len();
    assert!(unique <= distinct);
    assert!(stored.values().all(|count| *count == 1));
    assert_eq!(stored.len(), unique);
    let (sent, unique) = (60 * 40 * 2, i64::try_from(unique).unwrap());
    assert_eq!(
        store.stats().await.unwrap().counts,
        counts(sent, unique, sent - unique, 0)
    );
    assert_eq!(store.verify().await.unwrap().drifts, [""; 0]);
}

/// No event is sent twice here, so that the writers meet at the counters alone.
pub(super) async fn batches_of_same_topics_never_deadlock(db: &dyn TestDatabase) {
    let store = migrated(db).await;
    let mut writers = [Writer::writer_id(&store, 0).await, Writer::writer_id(&store, 16).await];
    let sent = |by: &str, round: usize| -> Vec<Event> {
        let topic = |n: usize| format!("t{}", (n * 37 + round) % 100);
        (0..100)
            .map(|n| event(&topic(n), &format!("{by} {round}"), "{}"))
            .collect()
    };
    for round in 0..60 {
        let (mine, yours) = (sent("mine", round), sent("yours", round));
        let [one, two] = &mut writers;
        tokio::join!(one.send(&mine), two.send(&yours));
    }
    assert_eq!(store.stats().await.unwrap().counts, counts(12_000, 12_000, 0, 0));
}

pub(super) async fn empty_batch_is_committed(db: &dyn TestDatabase) {
    let store = migrated(db).await;
    let appended = Writer::of(&store).await.send(&[]).await;
    assert_eq!(appended.outcomes, []);
    assert_eq!(store.stats().await.unwrap().counts, counts(0, 0, 0, 0));
    assert_eq!(store.verify().await.unwrap().drifts, [""; 0]);
}

/// A store whose work for a batch grows with the square of its rows takes minutes here.
pub(super) async fn ten_thousand_duplicates_are_answered_in_time(db: &dyn TestDatabase) {
    let store = migrated(db).await;
    let mut writer = Writer::of(&store).await;
    let sent = events("t", "", 10_000);
    let first = writer.send(&sent).await;
    let again = writer.send(&sent).await;
    assert_eq!(kinds(&again), vec!["duplicate"; 10_000]);
    assert_eq!(places(&again), places(&first));
    assert_eq!(store.stats().await.unwrap().counts, counts(20_000, 10_000, 10_000, 0));
}

pub(super) async fn poison_event_is_a_data_error_and_nothing_is_stored(db: &dyn TestDatabase) {
    let store = migrated(db).await;
    db.forbid_poison().await;
    let mut writer = Writer::of(&store).await;
    let sent = [event("t", "1", "{}"), event("t", "poison", "{}"), event("u", "1", "{}")];
    let error = writer
        .attempt(uuid::Uuid::new_v4(), &sent, super::ATTEMPT)
        .await
        .unwrap_err();
    assert_eq!(error.class, ErrorClass::Data, "{}", error.line());
    assert_eq!(listed(&store).await, []);
    assert_eq!(store.stats().await.unwrap().counts, counts(0, 0, 0, 0));
    // The connection is as good as before.
    assert!(!error.class.breaks_connection());
    assert_eq!(
        kinds(&writer.send(&[sent[0].clone(), sent[2].clone()]).await),
        ["stored", "stored"]
    );
    assert_eq!(store.verify().await.unwrap().drifts, [""; 0]);
}

pub(super) async fn dry_run_changes_nothing(db: &dyn TestDatabase) {
    let store = migrated(db).await;
    let mut writer = Writer::of(&store).await;
    let sent = [
        event("t", "1", "{}"),
        event("t", "2", "{}"),
        event("t", "2", r#"{"v":1}"#),
    ];
    writer.send(&sent[..1]).await;
    let (events, stats) = (listed(&store).await, store.stats().await.unwrap());
    writer.dry_run(&sent).await.unwrap();
    assert_eq!(listed(&store).await, events);
    let after = store.stats().await.unwrap();
    assert_eq!(
        (after.counts, after.topics, after.backlog.batches),
        (stats.counts, stats.topics, stats.backlog.batches)
    );
    assert_eq!(kinds(&writer.send(&sent).await), ["duplicate", "stored", "conflict"]);
}

pub(super) async fn dry_run_finds_poison_event(db: &dyn TestDatabase) {
    let store = migrated(db).await;
    db.forbid_poison().await;
    let mut writer = Writer::of(&store).await;
    let sent = [event("t", "1", "{}"), event("t", "poison", "{}")];
    let error = writer.dry_run(&sent).await.unwrap_err();
    assert_eq!(error.class, ErrorClass::Data, "{}", error.line());
    writer.dry_run(&sent[..1]).await.unwrap();
    assert_eq!(listed(&store).await, []);
    assert_eq!(kinds(&writer.send(&sent[..1]).await), ["stored"]);
}
