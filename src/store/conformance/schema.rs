//! Migrations.

use futures_util::future::join_all;

use super::{Bed, Writer, event, kinds, listed, migrated};
use crate::store::ErrorClass;

pub(super) async fn migrating_twice_changes_nothing(bed: &dyn Bed) {
    let store = bed.store();
    let version = store.migrate().await.unwrap();
    assert!(version > 0);
    Writer::of(&store).await.send(&[event("t", "1", "{}")]).await;
    let (events, stats) = (listed(&store).await, store.stats().await.unwrap().counts);
    assert_eq!(store.migrate().await.unwrap(), version);
    assert_eq!(bed.store().migrate().await.unwrap(), version);
    assert_eq!(listed(&store).await, events);
    assert_eq!(store.stats().await.unwrap().counts, stats);
}

pub(super) async fn eight_replicas_migrate_an_empty_database_at_once(bed: &dyn Bed) {
    let stores: Vec<_> = (0..8).map(|_| bed.store()).collect();
    let versions = join_all(stores.iter().map(|store| store.migrate())).await;
    let first = versions[0].as_ref().unwrap();
    assert!(versions.iter().all(|version| version.as_ref().unwrap() == first));
    for store in &stores {
        store.check_schema().await.unwrap();
    }
    assert_eq!(
        kinds(&Writer::of(&stores[7]).await.send(&[event("t", "1", "{}")]).await),
        ["stored"]
    );
}

pub(super) async fn an_empty_database_is_refused_until_it_is_migrated(bed: &dyn Bed) {
    let store = bed.store();
    let error = store.check_schema().await.unwrap_err();
    assert_eq!(error.class, ErrorClass::Configuration);
    assert!(error.line().contains("eventsieve migrate"), "{}", error.line());
    assert_eq!(store.verify().await.unwrap_err().class, ErrorClass::Configuration);
    assert_eq!(store.appender(0).await.err().unwrap().class, ErrorClass::Configuration);
    migrated(bed).await.check_schema().await.unwrap();
    store.check_schema().await.unwrap();
}
