//! Reachable, writable, durable, closed.

use std::time::Duration;

use uuid::Uuid;

use super::{Bed, Writer, event, listed, migrated, settle, topic};
use crate::event::{Cursor, Timestamp};
use crate::store::{ErrorClass, Filter, Lease, List, Prune, Scan};

pub(super) async fn a_store_bears_its_name(bed: &dyn Bed) {
    assert_eq!(bed.store().name(), bed.name());
}

pub(super) async fn a_probe_tells_what_is_settled(bed: &dyn Bed) {
    let store = migrated(bed).await;
    let empty = store.probe().await.unwrap();
    let appended = Writer::of(&store).await.send(&[event("t", "1", "{}")]).await;
    settle(&store).await;
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

pub(super) async fn a_store_that_takes_no_writes_says_so(bed: &dyn Bed) {
    let store = migrated(bed).await;
    Writer::of(&store).await.send(&[event("t", "1", "{}")]).await;
    store.probe().await.unwrap();
    bed.forbid_writes().await;
    let store = bed.store();
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

pub(super) async fn all_that_is_committed_lies_below_the_horizon(bed: &dyn Bed) {
    let (store, other) = (migrated(bed).await, bed.store());
    let mut writer = Writer::of(&store).await;
    for round in 0..20 {
        let before = other.stability().await.unwrap();
        let appended = writer.send(&[event("t", &round.to_string(), "{}")]).await;
        let after = other.stability().await.unwrap();
        assert!(
            before.last_stable < Cursor::new(appended.batch, 0),
            "what is not committed is not settled"
        );
        assert!(appended.batch < after.committed_below);
        assert!(after.last_stable.batch() < after.committed_below);
        assert!(before.last_stable <= after.last_stable && before.committed_below <= after.committed_below);
    }
}

pub(super) async fn what_is_received_is_stamped_by_the_store_s_clock(bed: &dyn Bed) {
    let store = migrated(bed).await;
    let mut writer = Writer::of(&store).await;
    for round in 0..5 {
        let before = store.clock().await.unwrap();
        let appended = writer.send(&[event("t", &round.to_string(), "{}")]).await;
        let after = store.clock().await.unwrap();
        assert!(before <= appended.received_at && appended.received_at <= after);
    }
}

pub(super) async fn a_store_tells_its_version(bed: &dyn Bed) {
    let version = bed.store().version().await.unwrap();
    let major = version.split('.').next().unwrap().parse::<u32>().unwrap();
    let expected = if bed.name() == "postgres" { 14..100 } else { 3..4 };
    assert!(expected.contains(&major), "{version}");
    assert!(version.chars().all(|c| c.is_ascii_digit() || c == '.'), "{version}");
}

pub(super) async fn a_server_in_order_gives_no_warnings(bed: &dyn Bed) {
    assert_eq!(migrated(bed).await.warnings().await.unwrap(), [""; 0]);
}

pub(super) async fn a_closed_store_takes_no_calls(bed: &dyn Bed) {
    let store = migrated(bed).await;
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

    let walk = Scan {
        filter: Filter::default(),
        after: Cursor::BEGINNING,
        limit: 1,
        bytes_max: usize::MAX,
    };
    let prune = Prune {
        before: Timestamp::from_micros(0).unwrap(),
        after: Cursor::BEGINNING,
        limit: 1,
        dry_run: true,
    };
    let classes = [
        store
            .list(&List {
                limit: 1,
                ..List::default()
            })
            .await
            .err(),
        store.scan(&walk).await.err(),
        store.stats().await.err(),
        store.topic_counts(&topic("t")).await.err(),
        store.stability().await.err(),
        store.warnings().await.err(),
        store.probe().await.err(),
        store.verify().await.err(),
        store.clock().await.err(),
        store.prune(&prune).await.err(),
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
    assert_eq!(classes, [Some(ErrorClass::NotSent); 21]);
    assert_eq!(listed(&bed.store()).await.len(), 1, "another one goes on");
}
