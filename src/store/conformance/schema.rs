//! Migrations.

use futures_util::future::join_all;

use super::{TestDatabase, Writer, event, kinds, listed, migrated};
use crate::store::ErrorClass;

pub(super) async fn migrating_twice_changes_nothing(db: &dyn TestDatabase) {
    let store = db.store();
    let version = store.migrate().await.unwrap();
    assert!(version > 0);
    Writer::of(&store).await.send(&[event("t", "1", "{}")]).await;
    let (events, stats) = (listed(&store).await, store.stats().await.unwrap().counts);
    assert_eq!(store.migrate().await.unwrap(), version);
    assert_eq!(db.store().migrate().await.unwrap(), version);
    assert_eq!(listed(&store).await, events);
    assert_eq!(store.stats().await.unwrap().counts, stats);
}

pub(super) async fn eight_replicas_migrate_concurrently(db: &dyn TestDatabase) {
    let stores: Vec<_> = (0..8).map(|_| db.store()).collect();
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

pub(super) async fn empty_database_is_rejected_until_migrated(db: &dyn TestDatabase) {
    let store = db.store();
    let error = store.check_schema().await.unwrap_err();
    assert_eq!(error.class, ErrorClass::Configuration);
    assert!(error.line().contains("eventsieve migrate"), "{}", error.line());
    assert_eq!(store.verify().await.unwrap_err().class, ErrorClass::Configuration);
    assert_eq!(store.appender(0).await.err().unwrap().class, ErrorClass::Configuration);
    migrated(db).await.check_schema().await.unwrap();
    store.check_schema().await.unwrap();
}
