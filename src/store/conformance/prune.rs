//! Removing old events.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Instant;

use super::{DEADLINE, TestDatabase, Writer, event, events, kinds, listed, migrated, scanned_all, until_stable};
use crate::event::{Cursor, StoredEvent, Timestamp};
use crate::store::{Counts, ErrorClass, NewDeadLetter, Prune, Pruned, Store};

/// A step over everything that is there now, once all of it is stable.
async fn of_all(store: &Arc<dyn Store>) -> Prune {
    until_stable(store).await;
    of_stable(store).await
}

/// A step over everything that is there now. What is not stable stays.
async fn of_stable(store: &Arc<dyn Store>) -> Prune {
    let newest = listed(store).await.iter().map(|stored| stored.received_at).max();
    let before = newest.map_or(0, Timestamp::micros) + 1;
    Prune {
        before: Timestamp::from_micros(before).unwrap(),
        after: Cursor::BEGINNING,
        limit: 1000,
        dry_run: false,
    }
}

/// Steps until the end, and what they removed and kept.
async fn pruned(store: &Arc<dyn Store>, first: &Prune) -> (u64, u64) {
    let deadline = Instant::now() + DEADLINE;
    let (mut step, mut removed, mut unpublished) = (first.clone(), 0, 0);
    loop {
        let pruned = match store.prune(&step).await {
            // Others that write without a pause may keep it waiting for too long; the command tries again, too.
            Err(error) if error.class == ErrorClass::Contention && Instant::now() < deadline => continue,
            pruned => pruned.unwrap(),
        };
        removed += pruned.removed;
        unpublished += pruned.unpublished;
        let Some(next) = pruned.next else {
            return (removed, unpublished);
        };
        assert!(next > step.after, "a step moves on");
        step.after = next;
    }
}

fn ids(events: &[StoredEvent]) -> Vec<&str> {
    events.iter().map(|stored| stored.event.event_id.as_str()).collect()
}

pub(super) async fn old_events_are_removed_and_others_stay(db: &dyn TestDatabase) {
    let store = migrated(db).await;
    let mut writer = Writer::of(&store).await;
    writer
        .send(&[event("t", "1", "{}"), event("u", "1", "{}"), event("t", "1", "{}")])
        .await;
    writer.send(&[event("t", "2", "{}")]).await;
    let all = of_all(&store).await;
    let between = store.clock().await.unwrap();
    let kept = super::eventually("the clock goes on", async || store.clock().await.unwrap() > between);
    kept.await;
    writer.send(&[event("t", "3", "{}"), event("v", "1", "{}")]).await;

    assert_eq!(pruned(&store, &all).await, (3, 0));
    assert_eq!(ids(&listed(&store).await), ["3", "1"]);
    let counts = store.stats().await.unwrap().counts;
    assert_eq!(
        counts,
        Counts {
            received: 6,
            unique_processed: 5,
            duplicate_dropped: 1,
            conflicts: 0,
            pruned: 3
        }
    );
    assert_eq!(store.topic_counts(&super::topic("t")).await.unwrap().pruned, 2);
    assert_eq!(store.topic_counts(&super::topic("v")).await.unwrap().pruned, 0);
    assert_eq!(store.verify().await.unwrap().drifts, [""; 0]);
    assert_eq!(pruned(&store, &all).await, (0, 0), "there is nothing more to do");
}

pub(super) async fn dry_run_counts_the_same_and_changes_nothing(db: &dyn TestDatabase) {
    let store = migrated(db).await;
    Writer::of(&store).await.send(&events("t", "", 25)).await;
    let before = (listed(&store).await, store.stats().await.unwrap().counts);
    let step = Prune {
        dry_run: true,
        limit: 10,
        ..of_all(&store).await
    };
    assert_eq!(pruned(&store, &step).await, (25, 0));
    assert_eq!((listed(&store).await, store.stats().await.unwrap().counts), before);
    assert_eq!(pruned(&store, &Prune { dry_run: false, ..step }).await, (25, 0));
}

pub(super) async fn unpublished_events_are_kept(db: &dyn TestDatabase) {
    let store = migrated(db).await;
    let mut writer = Writer::of(&store).await;
    writer.send(&events("t", "before ", 3)).await;
    writer.send_leased(&events("t", "leased ", 4)).await;
    writer.send(&events("t", "after ", 5)).await;
    for limit in [2, 1000] {
        let step = Prune {
            limit,
            ..of_all(&store).await
        };
        let expected = if limit == 2 { (8, 4) } else { (0, 4) };
        assert_eq!(pruned(&store, &step).await, expected);
        assert_eq!(
            ids(&listed(&store).await),
            ["leased 0", "leased 1", "leased 2", "leased 3"]
        );
    }
    assert_eq!(store.verify().await.unwrap().drifts, [""; 0]);
    db.execute("update batches set published_at = received_at").await;
    assert_eq!(pruned(&store, &of_all(&store).await).await, (4, 0));
    assert_eq!(listed(&store).await, []);
}

/// Its batch counts as published, but the dead letter is not.
pub(super) async fn dead_letters_are_kept(db: &dyn TestDatabase) {
    let store = migrated(db).await;
    Writer::of(&store).await.send(&events("t", "", 5)).await;
    let dead_letter = listed(&store).await[3].cursor;
    let reason = "too large".to_owned();
    store
        .dead_letter(&[NewDeadLetter {
            cursor: dead_letter,
            reason,
        }])
        .await
        .unwrap();
    let all = of_all(&store).await;
    let dry = Prune {
        dry_run: true,
        ..all.clone()
    };
    assert_eq!(pruned(&store, &dry).await, (4, 1));
    assert_eq!(pruned(&store, &all).await, (4, 1));
    assert_eq!(ids(&listed(&store).await), ["3"]);
    assert_eq!(store.dead_letters(Cursor::BEGINNING, 10).await.unwrap().len(), 1);
    assert_eq!(store.verify().await.unwrap().drifts, [""; 0]);
    assert_eq!(store.remove_dead_letters(&[dead_letter]).await.unwrap(), 1);
    assert_eq!(pruned(&store, &all).await, (1, 0));
    assert_eq!(listed(&store).await, []);
}

/// A log that is mostly young costs one look at its old end.
pub(super) async fn step_without_old_events_is_the_last(db: &dyn TestDatabase) {
    let store = migrated(db).await;
    Writer::of(&store).await.send(&events("t", "", 25)).await;
    let step = Prune {
        before: Timestamp::parse("2000-01-01T00:00:00Z").unwrap(),
        limit: 10,
        ..of_all(&store).await
    };
    let nothing = Pruned {
        removed: 0,
        unpublished: 0,
        next: None,
    };
    assert_eq!(store.prune(&step).await.unwrap(), nothing);
}

pub(super) async fn pruned_identity_is_accepted_again(db: &dyn TestDatabase) {
    let store = migrated(db).await;
    let first = Writer::of(&store).await.send(&[event("t", "1", "{}")]).await;
    assert_eq!(pruned(&store, &of_all(&store).await).await, (1, 0));
    let again = Writer::of(&store).await.send(&[event("t", "1", "{}")]).await;
    assert_eq!(kinds(&again), ["stored"]);
    assert!(again.batch > first.batch);
    assert_eq!(store.stats().await.unwrap().counts.unique_processed, 2);
    assert_eq!(store.verify().await.unwrap().drifts, [""; 0]);
}

/// Also the newest numbers are never reused, whichever process opens the store next.
pub(super) async fn cursors_stay_valid(db: &dyn TestDatabase) {
    let store = migrated(db).await;
    let mut writer = Writer::of(&store).await;
    for round in 0..5 {
        writer.send(&events("t", &format!("{round} "), 4)).await;
    }
    until_stable(&store).await;
    let all = listed(&store).await;
    let (_, end) = scanned_all(&store, Cursor::BEGINNING, 3).await;
    let old = Prune {
        before: all[10].received_at,
        limit: 3,
        ..of_all(&store).await
    };
    pruned(&store, &old).await;
    let rest: Vec<_> = all
        .iter()
        .filter(|stored| stored.received_at >= all[10].received_at)
        .cloned()
        .collect();
    for place in &all {
        let expected: Vec<_> = rest
            .iter()
            .filter(|stored| stored.cursor > place.cursor)
            .cloned()
            .collect();
        assert_eq!(scanned_all(&store, place.cursor, 3).await.0, expected);
    }
    pruned(&store, &of_all(&store).await).await;
    let newer = Writer::of(&db.store()).await.send(&events("t", "newer ", 1)).await;
    assert!(newer.batch > all[19].cursor.batch());
    until_stable(&store).await;
    assert_eq!(ids(&scanned_all(&store, end, 3).await.0), ["newer 0"]);
}

/// Two prune, two write, one of them what the others remove: every event is counted as stored and as pruned exactly once.
pub(super) async fn concurrent_pruning_counts_every_event_once(db: &dyn TestDatabase) {
    let (store, other) = (migrated(db).await, db.store());
    let (mut one, mut two) = (Writer::of(&store).await, Writer::of(&other).await);
    // On a busy disk all pruning may be over before anything else is stored.
    one.send(&events("t", "0 ", 4)).await;
    until_stable(&store).await;
    let writing = async {
        let first = async {
            for round in 1..=40 {
                one.send(&events("t", &format!("{} ", round % 5), 4)).await;
            }
        };
        let second = async {
            for round in 0..40 {
                two.send(&events("u", &format!("{round} "), 3)).await;
            }
        };
        tokio::join!(first, second);
    };
    let pruning = async |store: &Arc<dyn Store>| {
        let mut removed = 0;
        for _ in 0..20 {
            let step = Prune {
                limit: 7,
                ..of_stable(store).await
            };
            removed += pruned(store, &step).await.0;
        }
        removed
    };
    let ((), here, there) = tokio::join!(writing, pruning(&store), pruning(&other));
    let counts = store.stats().await.unwrap().counts;
    let rows = listed(&store).await;
    assert_eq!(counts.received, 284);
    assert_eq!(u64::try_from(counts.pruned).unwrap(), here + there);
    assert_eq!(
        usize::try_from(counts.unique_processed - counts.pruned).unwrap(),
        rows.len()
    );
    assert!(here + there > 0);
    let places: HashSet<_> = rows.iter().map(|stored| stored.cursor).collect();
    assert_eq!(places.len(), rows.len());
    assert_eq!(store.verify().await.unwrap().drifts, [""; 0]);
}
