//! Reachable, writable, durable, closed.

use std::time::Duration;

use uuid::Uuid;

use super::{TestDatabase, Writer, event, listed, migrated, topic, until_stable};
use crate::event::{Cursor, EventId, Timestamp, TopicGlobs};
use crate::store::{ConflictList, ErrorClass, Expiry, Filter, Lease, List, Scan, ScanError, TopicList};

pub(super) async fn store_has_its_name(db: &dyn TestDatabase) {
    assert_eq!(db.store().name(), db.name());
}

pub(super) async fn probe_returns_stability(db: &dyn TestDatabase) {
    let store = migrated(db).await;
    let empty = store.probe().await.unwrap();
    let appended = Writer::of(&store).await.send(&[event("t", "1", "{}")]).await;
    until_stable(&store).await;
    let (before, probe, after) = (
        store.stability().await.unwrap(),
        store.probe().await.unwrap(),
        store.stability().await.unwrap(),
    );
    assert!(empty.last_stable <= before.last_stable);
    assert!(before.last_stable <= probe.last_stable && probe.last_stable <= after.last_stable);
    assert!(before.committed_below <= probe.committed_below && probe.committed_below <= after.committed_below);
    assert!(probe.last_stable >= Cursor::new(appended.batch, 0));
    assert!(probe.visibility_lag_seconds == 0.0);
    assert!(store.stats().await.unwrap().stability.last_stable >= after.last_stable);
}

pub(super) async fn read_only_store_is_reported(db: &dyn TestDatabase) {
    let store = migrated(db).await;
    Writer::of(&store).await.send(&[event("t", "1", "{}")]).await;
    store.probe().await.unwrap();
    db.forbid_writes().await;
    let store = db.store();
    assert_eq!(store.probe().await.unwrap_err().class, ErrorClass::ReadOnly);
    assert_eq!(store.probe().await.unwrap_err().class, ErrorClass::ReadOnly);
    assert_eq!(store.appender(0).await.err().unwrap().class, ErrorClass::ReadOnly);
    let lease = Lease {
        owner: Uuid::new_v4(),
        length: Duration::from_secs(1),
    };
    for _ in 0..2 {
        let error = store.claim_unpublished(lease, 1).await.unwrap_err();
        assert_eq!(error.class, ErrorClass::ReadOnly, "{}", error.line());
    }
    // It can still be read.
    assert_eq!(listed(&store).await.len(), 1);
    assert_eq!(store.verify().await.unwrap().drifts, [""; 0]);
}

pub(super) async fn committed_batches_are_below_committed_below(db: &dyn TestDatabase) {
    let (store, other) = (migrated(db).await, db.store());
    let mut writer = Writer::of(&store).await;
    for round in 0..20 {
        let before = other.stability().await.unwrap();
        let appended = writer.send(&[event("t", &round.to_string(), "{}")]).await;
        let after = other.stability().await.unwrap();
        assert!(
            before.last_stable < Cursor::new(appended.batch, 0),
            "an uncommitted batch is not stable"
        );
        assert!(appended.batch < after.committed_below);
        assert!(after.last_stable.batch() < after.committed_below);
        assert!(before.last_stable <= after.last_stable && before.committed_below <= after.committed_below);
    }
}

pub(super) async fn received_at_is_by_clock_of_store(db: &dyn TestDatabase) {
    let store = migrated(db).await;
    let mut writer = Writer::of(&store).await;
    for round in 0..5 {
        let before = store.clock().await.unwrap();
        let appended = writer.send(&[event("t", &round.to_string(), "{}")]).await;
        let after = store.clock().await.unwrap();
        assert!(before <= appended.received_at && appended.received_at <= after);
    }
}

pub(super) async fn store_has_a_version(db: &dyn TestDatabase) {
    let version = db.store().version().await.unwrap();
    let major = version.split('.').next().unwrap().parse::<u32>().unwrap();
    let expected = if db.name() == "postgres" { 14..100 } else { 3..4 };
    assert!(expected.contains(&major), "{version}");
    assert!(version.chars().all(|c| c.is_ascii_digit() || c == '.'), "{version}");
}

pub(super) async fn healthy_server_has_no_warnings(db: &dyn TestDatabase) {
    assert_eq!(migrated(db).await.warnings().await.unwrap(), [""; 0]);
}

pub(super) async fn closed_store_takes_no_calls(db: &dyn TestDatabase) {
    let store = migrated(db).await;
    Writer::of(&store).await.send(&[event("t", "1", "{}")]).await;
    listed(&store).await;
    store.probe().await.unwrap();
    let lease = Lease {
        owner: Uuid::new_v4(),
        length: Duration::from_secs(1),
    };
    store.claim_unpublished(lease, 1).await.unwrap();
    store.close().await;
    store.close().await;

    let scan = Scan {
        filter: Filter::default(),
        after: Cursor::BEGINNING,
        limit: 1,
        bytes_max: usize::MAX,
        turn: crate::store::Turn::Client,
    };
    let conflicts = ConflictList {
        topic: None,
        globs: TopicGlobs::All,
        after: Cursor::BEGINNING,
        limit: 1,
    };
    let classes = [
        store
            .list(&List {
                limit: 1,
                ..List::default()
            })
            .await
            .err(),
        store.scan(&scan).await.err().map(|error| match error {
            ScanError::Store(error) => error,
            ScanError::UnknownCursor => panic!("it is not looked for"),
        }),
        store.stats().await.err(),
        store.topic_counts(&topic("t")).await.err(),
        store.stability().await.err(),
        store.warnings().await.err(),
        store.probe().await.err(),
        store.verify().await.err(),
        store.clock().await.err(),
        store.find(&topic("t"), &EventId::parse("1").unwrap()).await.err(),
        store.topics(&TopicList::default()).await.err(),
        store.conflicts(&conflicts).await.err(),
        store.begin_partition(Duration::ZERO).await.err(),
        store.partitions().await.err(),
        store.expire(&Expiry::of_all(0)).await.err(),
        store.archived().await.err(),
        store.forget_identities(Timestamp::from_micros(0).unwrap()).await.err(),
        store.prune_conflicts(Timestamp::from_micros(0).unwrap(), 1).await.err(),
        store.migrate().await.err(),
        store.check_schema().await.err(),
        store.appender(0).await.err(),
        store.claim_unpublished(lease, 1).await.err(),
        store.events_of(&[1], None, 1).await.err(),
        store.mark_published(lease.owner, &[1]).await.err(),
        store.release(lease.owner, None).await.err(),
        store.dead_letter(&[]).await.err(),
        store.dead_letters(Cursor::BEGINNING, 1).await.err(),
        store.remove_dead_letters(&[]).await.err(),
        store.prune_commit_ledger(0, lease.length, 1).await.err(),
    ];
    let classes: Vec<_> = classes.map(|error| error.map(|error| error.class)).to_vec();
    assert_eq!(classes, [Some(ErrorClass::NotSent); 29]);
    assert_eq!(listed(&db.store()).await.len(), 1, "another one goes on");
}
