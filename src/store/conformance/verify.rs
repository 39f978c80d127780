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
    assert_eq!(store.verify().await.unwrap(), Verification::default());
    let store = with_some_of_everything(db).await;
    let expected = Verification {
        rows: 4,
        counts: counts(7, 4, 3, 1),
        outbox_batches: 1,
        drifts: vec![],
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
    let sql =
        "update topic_counts set received = received + 1, unique_processed = unique_processed + 1 where topic = 't'";
    assert_eq!(drift(db, sql).await, "topic t: 3 rows, but its counters say 4");
}

pub(super) async fn deleted_event_is_found(db: &dyn TestDatabase) {
    let sql = "delete from events where topic = 't' and event_id = '2'";
    assert_eq!(drift(db, sql).await, "topic t: 2 rows, but its counters say 3");
}

pub(super) async fn deleted_topic_counter_is_found(db: &dyn TestDatabase) {
    assert_eq!(
        drift(db, "delete from topic_counts where topic = 'u'").await,
        "topic u: 1 rows, but its counters say 0"
    );
}

pub(super) async fn contradictory_counters_are_found(db: &dyn TestDatabase) {
    let drift = drift(db, "update topic_counts set conflicts = 100 where topic = 'u'").await;
    assert!(drift.starts_with("topic u: "), "{drift}");
    assert!(drift.contains("conflicts 100"), "{drift}");
}

pub(super) async fn two_events_at_one_place_are_found(db: &dyn TestDatabase) {
    let sql = "update events set position = 1 where topic = 'u'";
    assert!(drift(db, sql).await.ends_with("has two events at position 1"));
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
