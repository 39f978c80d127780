//! The recount: it finds what was changed by hand, and nothing else.

use std::sync::Arc;

use super::{Bed, Writer, counts, event, migrated};
use crate::store::{Store, Verification};

/// A store with some of everything. Its third flush stored nothing, and is the newest.
async fn lived_in(bed: &dyn Bed) -> Arc<dyn Store> {
    let store = migrated(bed).await;
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

pub(super) async fn a_store_in_order_has_no_drift(bed: &dyn Bed) {
    let store = migrated(bed).await;
    assert_eq!(store.verify().await.unwrap(), Verification::default());
    let store = lived_in(bed).await;
    let expected = Verification {
        rows: 4,
        counts: counts(7, 4, 3, 1),
        outbox_batches: 1,
        drifts: vec![],
    };
    assert_eq!(store.verify().await.unwrap(), expected);
}

/// The one drift that a change by hand makes.
async fn drift(bed: &dyn Bed, sql: &str) -> String {
    let store = lived_in(bed).await;
    bed.execute(sql).await;
    let drifts = store.verify().await.unwrap().drifts;
    assert_eq!(drifts.len(), 1, "{drifts:?}");
    drifts.into_iter().next().unwrap()
}

pub(super) async fn a_changed_counter_is_found(bed: &dyn Bed) {
    let sql =
        "update topic_counts set received = received + 1, unique_processed = unique_processed + 1 where topic = 't'";
    assert_eq!(drift(bed, sql).await, "topic t: 3 rows, but its counters say 4");
}

pub(super) async fn a_deleted_event_is_found(bed: &dyn Bed) {
    let sql = "delete from events where topic = 't' and event_id = '2'";
    assert_eq!(drift(bed, sql).await, "topic t: 2 rows, but its counters say 3");
}

pub(super) async fn a_deleted_topic_counter_is_found(bed: &dyn Bed) {
    assert_eq!(
        drift(bed, "delete from topic_counts where topic = 'u'").await,
        "topic u: 1 rows, but its counters say 0"
    );
}

pub(super) async fn counters_that_contradict_themselves_are_found(bed: &dyn Bed) {
    let drift = drift(bed, "update topic_counts set conflicts = 100 where topic = 'u'").await;
    assert!(drift.starts_with("topic u: "), "{drift}");
    assert!(drift.contains("conflicts 100"), "{drift}");
}

pub(super) async fn two_events_at_one_place_are_found(bed: &dyn Bed) {
    let sql = "update events set position = 1 where topic = 'u'";
    assert!(drift(bed, sql).await.ends_with("holds two events at position 1"));
}

pub(super) async fn a_missing_ledger_row_is_found(bed: &dyn Bed) {
    let sql = "delete from batches where batch = (select min(batch) from batches)";
    assert!(
        drift(bed, sql)
            .await
            .ends_with("stored events but is not in the ledger")
    );
}

pub(super) async fn an_outbox_row_without_events_is_found(bed: &dyn Bed) {
    let sql = "update batches set published_at = null where batch = (select max(batch) from batches)";
    assert!(
        drift(bed, sql)
            .await
            .ends_with("is owed to the fan-out but has no events")
    );
}

pub(super) async fn a_parked_event_that_is_gone_is_found(bed: &dyn Bed) {
    let sql = "insert into parked (batch, position, topic, event_id, parked_at, reason)
                   select batch, position, topic, event_id, received_at, 'too large' from events where event_id = '3';
               insert into parked (batch, position, topic, event_id, parked_at, reason)
                   select batch + 1000, position, topic, event_id, received_at, 'too large' from events where event_id = '3'";
    assert_eq!(
        drift(bed, sql).await,
        "event 3 of topic t is parked but is not in the log"
    );
}
