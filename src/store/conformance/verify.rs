//! The recount finds what was changed by hand, and nothing else.

use std::sync::Arc;

use super::{TestDatabase, Writer, counts, event, migrated};
use crate::store::{Store, Verification};

/// A store with some of everything. Its third and newest batch stored nothing.
async fn with_some_of_everything(db: &dyn TestDatabase) -> Arc<dyn Store> {
    let store = migrated(db).await;
    let mut writer = Writer::of(&store).await;
    writer
        .send(&[
            event("t", "1", "{}"),
            event("t", "2", "{}"),
            event("u", "1", "{}"),
            event("u", "1", "{}"),
        ])
        .await;
    writer
        .send_leased(&[event("t", "1", r#"{"v":1}"#), event("t", "3", "{}")])
        .await;
    writer.send(&[event("t", "1", "{}")]).await;
    store
}

pub(super) async fn consistent_store_has_no_drift(db: &dyn TestDatabase) {
    let store = migrated(db).await;
    let empty = Verification {
        partitions: store.verify().await.unwrap().partitions,
        ..Verification::default()
    };
    assert_eq!(store.verify().await.unwrap(), empty);
    let store = with_some_of_everything(db).await;
    let expected = Verification {
        rows: 4,
        identities: 4,
        partitions: 1,
        counts: counts(7, 4, 3, 1),
        outbox_batches: 1,
        drifts: vec![],
        ..Verification::default()
    };
    assert_eq!(store.verify().await.unwrap(), expected);
}

/// The only drift that a change by hand causes.
async fn drift(db: &dyn TestDatabase, sql: &str) -> String {
    let store = with_some_of_everything(db).await;
    db.execute(sql).await;
    let drifts = store.verify().await.unwrap().drifts;
    assert_eq!(drifts.len(), 1, "{drifts:?}");
    drifts.into_iter().next().unwrap()
}

pub(super) async fn changed_counter_is_found(db: &dyn TestDatabase) {
    let sql = "update topic_counts set pruned = pruned + 1 where topic = 't'; update totals set pruned = pruned + 1";
    assert_eq!(drift(db, sql).await, "topic t: 3 rows, but its counters say 2");
}

pub(super) async fn changed_totals_are_found(db: &dyn TestDatabase) {
    let sql = "update totals set received = received + 1, topics = topics - 1";
    let store = with_some_of_everything(db).await;
    db.execute(sql).await;
    let mut drifts = store.verify().await.unwrap().drifts;
    // The order of PostgreSQL's is not fixed.
    drifts.retain(|drift| !drift.contains("listed topics"));
    drifts.sort();
    assert_eq!(
        drifts,
        [
            "the totals say 1 topics, but the topics 2",
            "the totals say 8 received, but the topics 7"
        ]
    );
}

pub(super) async fn deleted_event_is_found(db: &dyn TestDatabase) {
    let sql = "delete from events where topic = 't' and event_id = '2'";
    assert_eq!(drift(db, sql).await, "topic t: 2 rows, but its counters say 3");
}

pub(super) async fn deleted_topic_counter_is_found(db: &dyn TestDatabase) {
    let store = with_some_of_everything(db).await;
    db.execute("delete from topic_counts where topic = 'u'").await;
    if db.name() == "postgres" {
        db.execute("delete from topics where topic = 'u'").await;
    }
    assert_eq!(
        store.verify().await.unwrap().drifts,
        [
            "topic u: 1 rows, but its counters say 0",
            "the totals say 7 received, but the topics 5",
            "the totals say 4 unique, but the topics 3",
            "the totals say 3 duplicates, but the topics 2",
            "the totals say 2 topics, but the topics 1"
        ]
    );
}

pub(super) async fn contradictory_counters_are_found(db: &dyn TestDatabase) {
    let sql = "update topic_counts set conflicts = conflicts + 100 where topic = 'u'; update totals set conflicts = conflicts + 100";
    let drift = drift(db, sql).await;
    assert!(drift.starts_with("topic u: "), "{drift}");
    assert!(drift.contains("conflicts 100"), "{drift}");
}

pub(super) async fn missing_identity_is_found(db: &dyn TestDatabase) {
    let sql = "update identities set position = 7
               where (batch, position) = (select batch, position from events where topic = 'u')";
    assert_eq!(
        drift(db, sql).await,
        "event 1 of topic u is in the log, but its identity is not"
    );
}

pub(super) async fn surplus_identity_is_found(db: &dyn TestDatabase) {
    let key = match db.name() {
        "postgres" => "gen_random_uuid()",
        _ => "randomblob(16)",
    };
    let sql = format!(
        "insert into identities (key, batch, position, received_at, digest)
         select {key}, batch, position, received_at, digest from identities limit 1"
    );
    assert_eq!(drift(db, &sql).await, "5 identities, but the counters say 4");
}

pub(super) async fn missing_ledger_row_is_found(db: &dyn TestDatabase) {
    let sql = "delete from batches where batch = (select min(batch) from batches)";
    assert!(
        drift(db, sql)
            .await
            .ends_with("has events but is not in the commit ledger")
    );
}

pub(super) async fn unpublished_batch_without_events_is_found(db: &dyn TestDatabase) {
    let sql = "update batches set published_at = null where batch = (select max(batch) from batches)";
    assert!(drift(db, sql).await.ends_with("is in the outbox but has no events"));
}

pub(super) async fn dead_letter_without_event_is_found(db: &dyn TestDatabase) {
    let sql = "insert into parked (batch, position, topic, event_id, parked_at, reason)
                   select batch, position, topic, event_id, received_at, 'too large' from events where event_id = '3';
               insert into parked (batch, position, topic, event_id, parked_at, reason)
                   select batch + 1000, position, topic, event_id, received_at, 'too large' from events where event_id = '3'";
    assert_eq!(
        drift(db, sql).await,
        "event 3 of topic t is a dead letter but is not in the log"
    );
}
