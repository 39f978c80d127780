//! Places that last: what a cursor means after a restart, a restore of an older copy, or pruning.

use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use super::retention::{end_partition, expired};
use super::{TestDatabase, Writer, event, events, listed, migrated, scanned_all, until_stable};
use crate::event::{Cursor, TopicGlob};
use crate::store::{Expiry, Filter, Lease, Page, Scan, ScanError, Store};

fn scan(after: Cursor) -> Scan {
    Scan {
        filter: Filter::default(),
        after,
        limit: 100,
        bytes_max: usize::MAX,
        turn: crate::store::Turn::Client,
    }
}

async fn page(store: &Arc<dyn Store>, after: Cursor) -> Page {
    store.scan(&scan(after)).await.unwrap()
}

/// Takes the newest batch out of the store, as in a copy that was made before it was stored, and opens the copy as a service on
/// another server would.
async fn older_copy(db: &dyn TestDatabase) -> Arc<dyn Store> {
    let newest = "(select max(batch) from batches)";
    db.execute(&format!(
        "update topic_counts set received = received - 1, unique_processed = unique_processed - 1 where topic = 'lost';
         update totals set received = received - 1, unique_processed = unique_processed - 1 where received > 0;
         delete from identities where batch = {newest}; delete from events where batch = {newest}; delete from batches where batch = {newest}"
    ))
    .await;
    if db.name() == "postgres" {
        // A restored dump: its tables have other numbers.
        db.execute("update log set log_oid = null").await;
    } else {
        db.execute("update log set last_batch = (select max(batch) from batches)")
            .await;
    }
    db.store()
}

pub(super) async fn place_at_end_is_newest_batch(db: &dyn TestDatabase) {
    let store = migrated(db).await;
    let mut writer = Writer::of(&store).await;
    for round in 0..3 {
        let appended = writer.send(&events("t", &format!("{round} "), 2)).await;
        if db.name() == "postgres" {
            // Transaction ids that leave no trace on disk, and are given out again after a crash.
            db.execute("begin; select pg_current_xact_id(); rollback").await;
        }
        until_stable(&store).await;
        let end = Cursor::new(appended.batch, i32::MAX);
        assert_eq!(scanned_all(&store, Cursor::BEGINNING, 1).await.1, end);
        assert_eq!(scanned_all(&store, end, 10).await, (Vec::new(), end));
        assert_eq!(store.stability().await.unwrap().last_stable, end);
    }
}

pub(super) async fn batch_that_stored_nothing_is_a_place(db: &dyn TestDatabase) {
    let store = migrated(db).await;
    let mut writer = Writer::of(&store).await;
    writer.send(&[event("t", "1", "{}")]).await;
    let again = writer.send(&[event("t", "1", "{}")]).await;
    until_stable(&store).await;
    super::eventually("the place of the second batch", async || {
        scanned_all(&store, Cursor::BEGINNING, 10).await.1 == Cursor::new(again.batch, i32::MAX)
    })
    .await;
}

pub(super) async fn cursor_above_the_log_is_unknown(db: &dyn TestDatabase) {
    let store = migrated(db).await;
    let appended = Writer::of(&store).await.send(&[event("t", "1", "{}")]).await;
    assert_eq!(page(&store, Cursor::new(appended.batch, i32::MAX)).await.events, []);
    for beyond in [
        Cursor::new(appended.batch + 1_000_000_000, 0),
        Cursor::new(i64::MAX, i32::MAX),
    ] {
        let read = store.scan(&scan(beyond)).await;
        assert!(matches!(read, Err(ScanError::UnknownCursor)), "{read:?}");
    }
}

pub(super) async fn cursor_of_a_lost_batch_is_truncated(db: &dyn TestDatabase) {
    let store = migrated(db).await;
    let mut writer = Writer::of(&store).await;
    writer.send(&events("t", "kept ", 2)).await;
    until_stable(&store).await;
    let (kept, end_of_kept) = scanned_all(&store, Cursor::BEGINNING, 10).await;
    let lost = writer.send(&[event("lost", "1", "{}")]).await.batch;
    store.close().await;

    let store = older_copy(db).await;
    let mut writer = Writer::of(&store).await;
    let new = writer.send(&events("t", "new ", 2)).await;
    assert!(
        new.batch > lost,
        "numbers go on above what was lost: {lost}, {}",
        new.batch
    );
    until_stable(&store).await;
    let all = listed(&store).await;
    assert_eq!(all[..2], kept);
    for after in [Cursor::new(lost, 0), Cursor::new(lost, i32::MAX)] {
        let page = page(&store, after).await;
        assert_eq!((page.events.as_slice(), page.is_truncated), (&all[2..], true));
    }
    for after in [end_of_kept, kept[1].cursor] {
        let page = page(&store, after).await;
        assert_eq!((page.events.as_slice(), page.is_truncated), (&all[2..], false));
    }
    assert!(!page(&store, Cursor::BEGINNING).await.is_truncated);
    assert!(!page(&store, Cursor::new(new.batch, 0)).await.is_truncated);
    assert_eq!(store.verify().await.unwrap().drifts, [""; 0]);
}

/// Before anything is stored on it: a reader must not be told that a cursor is unknown because it is the first to come.
pub(super) async fn cursor_of_a_lost_batch_is_known_before_the_next_one(db: &dyn TestDatabase) {
    let store = migrated(db).await;
    let mut writer = Writer::of(&store).await;
    writer.send(&events("t", "kept ", 2)).await;
    let lost = writer.send(&[event("lost", "1", "{}")]).await.batch;
    store.close().await;

    let store = older_copy(db).await;
    let page = page(&store, Cursor::new(lost, i32::MAX)).await;
    assert_eq!((page.events.as_slice(), page.is_truncated), (&[][..], true));
    assert!(page.next.batch() > lost);
}

pub(super) async fn cursor_of_an_older_log_is_truncated(db: &dyn TestDatabase) {
    let store = migrated(db).await;
    let mut writer = Writer::of(&store).await;
    // An older log, made at another time.
    let older = Cursor::new(1_600_000_000_000_000, 5);
    let sent = writer.send(&events("t", "", 2)).await;
    until_stable(&store).await;
    let page = page(&store, older).await;
    assert_eq!((page.events.len(), page.is_truncated), (2, true));
    assert!(sent.batch > 1_700_000_000_000_000);
}

pub(super) async fn restarts_lose_no_place(db: &dyn TestDatabase) {
    let mut places = vec![Cursor::BEGINNING];
    let mut newest = 0;
    for round in 0..4 {
        let store = db.store();
        store.migrate().await.unwrap();
        if db.name() == "postgres" {
            db.execute("update log set server_started_at = '2020-01-01'").await;
        }
        let mut writer = Writer::of(&store).await;
        places.push(store.stability().await.unwrap().last_stable);
        for number in 0..2 {
            let batch = writer
                .send(&[event("t", &format!("{round} {number}"), "{}")])
                .await
                .batch;
            assert!(batch > newest, "{batch} > {newest}");
            newest = batch;
            places.push(Cursor::new(batch, 0));
            places.push(Cursor::new(batch, i32::MAX));
        }
        until_stable(&store).await;
        places.push(scanned_all(&store, Cursor::BEGINNING, 10).await.1);
        store.close().await;
    }
    let store = db.store();
    let all = listed(&store).await;
    for place in places {
        let page = page(&store, place).await;
        let behind: Vec<_> = all.iter().filter(|stored| stored.cursor > place).cloned().collect();
        assert_eq!((page.events, page.is_truncated), (behind, false), "{place}");
    }
}

pub(super) async fn cursor_before_expired_events_is_truncated(db: &dyn TestDatabase) {
    let store = migrated(db).await;
    let mut writer = Writer::of(&store).await;
    writer.send(&events("t", "old ", 3)).await;
    until_stable(&store).await;
    let (old, end_of_old) = scanned_all(&store, Cursor::BEGINNING, 10).await;
    end_partition(&store).await;
    assert_eq!(expired(&store, Expiry::of_all).await.removed, 3);
    let new = writer.send(&events("t", "new ", 2)).await;
    until_stable(&store).await;
    for (after, is_truncated) in [
        (Cursor::BEGINNING, false),
        (Cursor::new(old[0].cursor.batch() - 1, i32::MAX), true),
        (old[0].cursor, true),
        (old[1].cursor, true),
        (old[2].cursor, false),
        (end_of_old, false),
        (Cursor::new(new.batch, 0), false),
    ] {
        assert_eq!(page(&store, after).await.is_truncated, is_truncated, "{after}");
    }
}

/// Who reads one topic is told of that topic alone, also where other topics lost events in the middle.
pub(super) async fn truncation_is_told_by_topic(db: &dyn TestDatabase) {
    let store = migrated(db).await;
    let mut writer = Writer::of(&store).await;
    let sent = writer
        .send(&[
            event("keep", "1", "{}"),
            event("go", "1", "{}"),
            event("keep", "2", "{}"),
        ])
        .await;
    end_partition(&store).await;
    let only_go = |partition| Expiry {
        topics: vec![(TopicGlob::parse("go").unwrap(), true)],
        others: false,
        ..Expiry::of_all(partition)
    };
    assert_eq!(expired(&store, only_go).await.removed, 1);
    until_stable(&store).await;
    let is_truncated = async |topic: Option<&str>, position| {
        let filter = Filter {
            topic: topic.map(super::topic),
            ..Filter::default()
        };
        let after = Cursor::new(sent.batch, position);
        let page = store.scan(&Scan { filter, ..scan(after) }).await;
        page.unwrap().is_truncated
    };
    for (topic, position, expected) in [
        (None, 0, true),
        (Some("go"), 0, true),
        (Some("keep"), 0, false),
        (Some("other"), 0, false),
        (None, 1, false),
        (Some("go"), 1, false),
    ] {
        assert_eq!(is_truncated(topic, position).await, expected, "{topic:?} {position}");
    }
}

/// A lease that was made by a clock that was a day ahead, and was set right.
pub(super) async fn lease_from_a_wrong_clock_has_expired(db: &dyn TestDatabase) {
    let store = migrated(db).await;
    let batch = Writer::of(&store)
        .await
        .send_leased(&[event("t", "1", "{}")])
        .await
        .batch;
    let lease = Lease {
        owner: Uuid::new_v4(),
        length: Duration::from_secs(30),
    };
    assert_eq!(store.claim_unpublished(lease, 10).await.unwrap(), [0; 0]);
    let day = if db.name() == "postgres" {
        "interval '1 day'"
    } else {
        "86400000000"
    };
    db.execute(&format!(
        "update batches set received_at = received_at + {day}, lease_until = lease_until + {day}"
    ))
    .await;
    let backlog = store.backlog().await.unwrap();
    assert!(backlog.batches == 1 && backlog.oldest_seconds > 0.0, "{backlog:?}");
    assert!(store.stats().await.unwrap().backlog.oldest_seconds > 0.0);
    assert_eq!(store.claim_unpublished(lease, 10).await.unwrap(), [batch]);
}

/// The transaction that made the longest lease may have begun a moment later than the one that claims.
pub(super) async fn longest_lease_is_kept(db: &dyn TestDatabase) {
    let store = migrated(db).await;
    Writer::of(&store).await.send_leased(&[event("t", "1", "{}")]).await;
    let until = if db.name() == "postgres" {
        "now() + interval '3605 seconds'"
    } else {
        "(unixepoch() + 3605) * 1000000"
    };
    db.execute(&format!("update batches set lease_until = {until}")).await;
    let lease = Lease {
        owner: Uuid::new_v4(),
        length: Duration::from_secs(30),
    };
    assert_eq!(store.claim_unpublished(lease, 10).await.unwrap(), [0; 0]);
}

/// Batches that were received by a clock that was ahead say nothing about those behind them.
pub(super) async fn batches_from_the_future_stay_in_the_ledger_alone(db: &dyn TestDatabase) {
    let store = migrated(db).await;
    let mut writer = Writer::of(&store).await;
    let future = writer.send(&events("t", "future ", 3)).await.batch;
    writer.send(&events("t", "old ", 3)).await;
    let year = if db.name() == "postgres" {
        "interval '365 days'"
    } else {
        "31536000000000"
    };
    db.execute(&format!(
        "update batches set received_at = received_at + {year}, published_at = published_at + {year} where batch = {future}"
    ))
    .await;
    super::outbox::age(db, &format!("batch <> {future}")).await;
    until_stable(&store).await;
    let pruned = store
        .prune_commit_ledger(0, Duration::from_secs(3600), 10)
        .await
        .unwrap();
    assert_eq!(pruned.removed, 1);
}
