//! Retries of a group commit: the commit ledger.

use uuid::Uuid;

use super::{TestDatabase, Writer, counts, event, events, kinds, listed, migrated};
use crate::event::Event;

pub(super) async fn retry_gets_same_answer_and_writes_nothing(db: &dyn TestDatabase) {
    let (store, other) = (migrated(db).await, db.store());
    let (id, sent) = (Uuid::new_v4(), events("t", "e", 5));
    let mut writer = Writer::of(&store).await;
    let first = writer.send_as(id, &sent).await;
    let (events, stats) = (listed(&store).await, store.stats().await.unwrap());
    assert_eq!(writer.send_as(id, &sent).await, first);
    assert_eq!(Writer::of(&other).await.send_as(id, &sent).await, first);
    assert_eq!(listed(&store).await, events);
    assert_eq!(store.stats().await.unwrap().counts, stats.counts);
    assert_eq!(stats.counts, counts(5, 5, 0, 0));
    assert_eq!(store.verify().await.unwrap().drifts, [""; 0]);
}

pub(super) async fn retry_with_duplicates_conflicts_and_copies(db: &dyn TestDatabase) {
    let store = migrated(db).await;
    let mut writer = Writer::of(&store).await;
    writer
        .send(&[event("t", "old", r#"{"v":1}"#), event("t", "rival", r#"{"v":1}"#)])
        .await;
    let (id, sent) = (Uuid::new_v4(), mixed());
    let first = writer.send_as(id, &sent).await;
    assert_eq!(kinds(&first), ["stored", "conflict", "duplicate", "conflict", "stored"]);
    let stats = store.stats().await.unwrap().counts;
    assert_eq!(stats, counts(9, 4, 5, 2));
    assert_eq!(writer.send_as(id, &sent).await, first);
    assert_eq!(store.stats().await.unwrap().counts, stats);
}

/// In the order of its rows: stored (and a copy), conflict with it, duplicate (and a copy), conflict, stored.
fn mixed() -> Vec<Event> {
    vec![
        event("t", "rival", r#"{"v":2}"#),
        event("t", "old", r#"{"v":1}"#),
        event("t", "new", r#"{"v":1}"#),
        event("t", "new", r#"{"v":3}"#),
        event("t", "new", r#"{"v":1}"#),
        event("t", "old", r#"{"v":1}"#),
        event("u", "new", r#"{"v":1}"#),
    ]
}

pub(super) async fn retry_of_a_single_event(db: &dyn TestDatabase) {
    let store = migrated(db).await;
    let mut writer = Writer::of(&store).await;
    let (new, conflict) = (event("t", "e", r#"{"v":1}"#), event("t", "e", r#"{"v":2}"#));
    let copies = [new.clone(), new.clone()];
    let group_commits: [(&[Event], &str, _); 5] = [
        (&copies, "stored", counts(2, 1, 1, 0)),
        (&copies, "duplicate", counts(4, 1, 3, 0)),
        (&copies[..1], "duplicate", counts(5, 1, 4, 0)),
        (&[conflict.clone(), conflict], "conflict", counts(7, 1, 6, 2)),
        (&[event("u", "e", r#"{"v":1}"#)], "stored", counts(8, 2, 6, 2)),
    ];
    let mut sent = Vec::new();
    for (events, kind, expected) in group_commits {
        let id = Uuid::new_v4();
        let first = writer.send_as(id, events).await;
        assert_eq!(kinds(&first), [kind]);
        sent.push((id, events, first, expected));
        for (id, events, first, _) in &sent {
            assert_eq!(writer.send_as(*id, events).await, *first);
        }
        assert_eq!(store.stats().await.unwrap().counts, sent.last().unwrap().3);
    }
    assert_eq!(store.verify().await.unwrap().drifts, [""; 0]);
}

pub(super) async fn retry_after_other_commits(db: &dyn TestDatabase) {
    let store = migrated(db).await;
    let (mut one, mut two) = (Writer::of(&store).await, Writer::of(&store).await);
    two.send(&[event("t", "old", r#"{"v":1}"#), event("t", "rival", r#"{"v":1}"#)])
        .await;
    let (id, sent) = (Uuid::new_v4(), mixed());
    let first = one.send_as(id, &sent).await;
    for round in 0..3 {
        two.send(&sent).await;
        two.send(&events("t", &format!("{round} "), 3)).await;
    }
    let (events, stats) = (listed(&store).await, store.stats().await.unwrap().counts);
    assert_eq!(two.send_as(id, &sent).await, first);
    assert_eq!(one.send_as(id, &sent).await, first);
    assert_eq!(listed(&store).await, events);
    assert_eq!(store.stats().await.unwrap().counts, stats);
}

pub(super) async fn retry_of_a_commit_that_stored_nothing(db: &dyn TestDatabase) {
    let store = migrated(db).await;
    let mut writer = Writer::of(&store).await;
    writer.send(&[event("t", "1", "{}"), event("t", "2", "{}")]).await;
    let (id, sent) = (Uuid::new_v4(), [event("t", "1", "{}"), event("t", "2", r#"{"v":1}"#)]);
    let first = writer.send_as(id, &sent).await;
    assert_eq!(kinds(&first), ["duplicate", "conflict"]);
    assert_eq!(writer.send_as(id, &sent).await, first);
    assert_eq!(store.stats().await.unwrap().counts, counts(4, 2, 2, 1));
}

pub(super) async fn one_of_two_concurrent_attempts_writes(db: &dyn TestDatabase) {
    let (store, other) = (migrated(db).await, db.store());
    let (mut one, mut two) = (Writer::of(&store).await, Writer::of(&other).await);
    for round in 0..30 {
        for rows in [1, 3] {
            let (id, sent) = (Uuid::new_v4(), events("t", &format!("{round} {rows} "), rows));
            let (mine, yours) = tokio::join!(one.send_as(id, &sent), two.send_as(id, &sent));
            assert_eq!(kinds(&mine), vec!["stored"; rows]);
            assert_eq!(mine, yours);
        }
    }
    assert_eq!(store.stats().await.unwrap().counts, counts(120, 120, 0, 0));
}
