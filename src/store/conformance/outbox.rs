//! What is owed to the fan-out.

use super::{Bed, Writer, event, migrated};

pub(super) async fn a_batch_with_a_lease_is_owed_to_the_fan_out(bed: &dyn Bed) {
    let store = migrated(bed).await;
    let mut writer = Writer::of(&store).await;
    writer.send_leased(&[event("t", "1", "{}")]).await;
    writer
        .send_leased(&[event("t", "1", "{}"), event("t", "2", "{}")])
        .await;
    let stats = store.stats().await.unwrap();
    assert_eq!(stats.outbox_batches, 2);
    assert!(
        (0.0..600.0).contains(&stats.outbox_oldest_seconds),
        "{}",
        stats.outbox_oldest_seconds
    );
    let verification = store.verify().await.unwrap();
    assert_eq!((verification.outbox_batches, verification.drifts), (2, vec![]));
}

pub(super) async fn a_batch_without_a_lease_is_born_published(bed: &dyn Bed) {
    let store = migrated(bed).await;
    Writer::of(&store).await.send(&[event("t", "1", "{}")]).await;
    let stats = store.stats().await.unwrap();
    assert_eq!((stats.outbox_batches, stats.outbox_oldest_seconds), (0, 0.0));
    assert_eq!(store.verify().await.unwrap().outbox_batches, 0);
}

pub(super) async fn a_batch_that_stored_nothing_is_born_published(bed: &dyn Bed) {
    let store = migrated(bed).await;
    let mut writer = Writer::of(&store).await;
    writer.send(&[event("t", "1", "{}"), event("t", "2", "{}")]).await;
    writer
        .send_leased(&[event("t", "1", "{}"), event("t", "2", r#"{"v":1}"#)])
        .await;
    writer.send_leased(&[]).await;
    assert_eq!(store.stats().await.unwrap().outbox_batches, 0);
    assert_eq!(store.verify().await.unwrap().drifts, [""; 0]);
}
