//! The test database on SQLite, and the tests that are only for SQLite.

use std::io::{Seek, SeekFrom, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use clap::Parser;
use tempfile::TempDir;

use super::outbox::{long, unpublished};
use super::{Options, TestDatabase, Writer, event, events, kinds, listed, migrated, run};
use crate::config::Database;
use crate::store::{self, ErrorClass, List, NewDeadLetter, Store};

/// A file in a folder of its own.
pub(super) struct Folder {
    folder: TempDir,
    database: Database,
}

impl Folder {
    fn path(&self) -> PathBuf {
        self.folder.path().join("events.db")
    }

    fn connect(&self) -> rusqlite::Connection {
        rusqlite::Connection::open(self.path()).unwrap()
    }
}

#[async_trait]
impl TestDatabase for Folder {
    async fn open() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}", folder.path().join("events.db").display());
        let database = Options::parse_from(["conformance", "--database-url", &url])
            .store
            .check()
            .unwrap();
        Self { folder, database }
    }

    fn name(&self) -> &'static str {
        "sqlite"
    }

    fn store(&self) -> Arc<dyn Store> {
        store::open(&self.database).unwrap()
    }

    async fn execute(&self, sql: &str) {
        self.connect().execute_batch(sql).unwrap();
    }

    async fn forbid_poison(&self) {
        self.execute(
            "create trigger no_poison before insert on events when new.event_id = 'poison'
             begin select raise(abort, 'no poison'); end",
        )
        .await;
    }

    /// Marks in the header of the file that only a newer version of SQLite may write to it.
    async fn forbid_writes(&self) {
        self.execute("pragma wal_checkpoint(truncate)").await;
        let mut file = std::fs::File::options().write(true).open(self.path()).unwrap();
        file.seek(SeekFrom::Start(18)).unwrap();
        file.write_all(&[9]).unwrap();
    }

    async fn remove(self) {
        self.folder.close().unwrap();
    }
}

/// Runs a test that is only for SQLite.
fn on_sqlite(case: impl AsyncFnOnce(&Folder)) {
    run::<Folder>(case);
}

#[test]
fn one_service_at_a_time_claims_a_file() {
    on_sqlite(async |db| {
        let (one, other) = (migrated(db).await, db.store());
        one.claim().await.unwrap();
        let error = other.claim().await.unwrap_err();
        assert_eq!(error.class, ErrorClass::Configuration);
        let holder = format!("(process {})", std::process::id());
        assert!(error.line().contains(&holder), "{}", error.line());
        // A process that does not serve needs no claim.
        Writer::of(&other).await.send(&[event("t", "1", "{}")]).await;
        assert_eq!(other.verify().await.unwrap().rows, 1);
        one.close().await;
        other.claim().await.unwrap();
    });
}

#[test]
fn file_has_one_claim_under_any_name() {
    on_sqlite(async |db| {
        let store = migrated(db).await;
        store.claim().await.unwrap();
        let link = db.folder.path().join("link.db");
        std::os::unix::fs::symlink(db.path(), &link).unwrap();
        let url = format!("sqlite://{}", link.display());
        let url = Options::parse_from(["conformance", "--database-url", &url])
            .store
            .check();
        let error = store::open(&url.unwrap()).unwrap().claim().await.unwrap_err();
        assert_eq!(error.class, ErrorClass::Configuration, "{}", error.line());
    });
}

/// Nothing was stored, so the client may get 503 instead of 504.
#[test]
fn commit_to_damaged_file_is_not_ambiguous() {
    on_sqlite(async |db| {
        let store = migrated(db).await;
        db.execute("pragma wal_checkpoint(truncate)").await;
        let mut writer = Writer::of(&store).await;
        // Every page but the first, which has the schema.
        let mut file = std::fs::File::options().write(true).open(db.path()).unwrap();
        let bytes = usize::try_from(file.metadata().unwrap().len()).unwrap() - 4096;
        file.seek(SeekFrom::Start(4096)).unwrap();
        file.write_all(&vec![0xff; bytes]).unwrap();
        let id = uuid::Uuid::new_v4();
        let error = writer
            .attempt(id, &events("t", "", 1), super::ATTEMPT)
            .await
            .unwrap_err();
        assert_eq!(error.class, ErrorClass::NotSent, "{}", error.line());
    });
}

#[test]
fn only_migration_creates_a_file() {
    on_sqlite(async |db| {
        let store = db.store();
        let errors = [
            store.verify().await.err(),
            store.stats().await.err(),
            store.probe().await.err(),
            store.appender(0).await.err(),
            store.check_schema().await.err(),
        ];
        for error in errors {
            let error = error.unwrap();
            assert_eq!(error.class, ErrorClass::Configuration);
            assert!(error.line().contains("eventsieve migrate"), "{}", error.line());
        }
        assert!(!db.path().exists());
    });
}

#[test]
fn missing_folder_is_created() {
    on_sqlite(async |db| {
        let path = db.folder.path().join("a/b/events.db");
        let url = format!("sqlite://{}", path.display());
        let url = Options::parse_from(["conformance", "--database-url", &url])
            .store
            .check()
            .unwrap();
        let store = store::open(&url).unwrap();
        store.claim().await.unwrap();
        store.migrate().await.unwrap();
        assert!(path.is_file());
    });
}

#[test]
fn foreign_database_is_rejected_unchanged() {
    on_sqlite(async |db| {
        db.execute("create table events (id integer)").await;
        let before = std::fs::read(db.path()).unwrap();
        let error = db.store().migrate().await.unwrap_err();
        assert_eq!(error.class, ErrorClass::Configuration, "{}", error.line());
        assert_eq!(std::fs::read(db.path()).unwrap(), before);
    });
}

#[test]
fn file_that_is_no_database_is_rejected() {
    on_sqlite(async |db| {
        std::fs::write(db.path(), "a diary, and not a short one: ".repeat(100)).unwrap();
        let error = db.store().migrate().await.unwrap_err();
        assert_eq!(error.class, ErrorClass::Configuration, "{}", error.line());
    });
}

/// Migrations only add, so that a roll-back to the version before is possible.
#[test]
fn newer_schema_is_accepted() {
    on_sqlite(async |db| {
        let store = migrated(db).await;
        db.execute("pragma user_version = 9999").await;
        store.check_schema().await.unwrap();
        store.migrate().await.unwrap();
        let version: i64 = db
            .connect()
            .query_row("pragma user_version", [], |row| row.get(0))
            .unwrap();
        assert_eq!(version, 9999);
    });
}

#[test]
fn log_from_before_the_first_release_is_refused() {
    on_sqlite(async |db| {
        let store = migrated(db).await;
        db.execute("pragma user_version = 4").await;
        for found in [store.migrate().await.err(), store.check_schema().await.err()] {
            let error = found.unwrap();
            assert_eq!(error.class, ErrorClass::Configuration);
            assert!(error.line().contains("before its first release"), "{}", error.line());
        }
    });
}

/// Writes to it would be lost at the end of the process.
#[test]
fn removed_or_replaced_file_takes_no_commits() {
    on_sqlite(async |db| {
        let store = migrated(db).await;
        let mut writer = Writer::of(&store).await;
        writer.send(&[event("t", "1", "{}")]).await;
        assert_eq!(store.claim_unpublished(long(), 1).await.unwrap(), [0; 0]);
        let aside = db.folder.path().join("aside.db");
        for replaced in [false, true] {
            std::fs::rename(db.path(), &aside).unwrap();
            if replaced {
                std::fs::write(db.path(), "").unwrap();
            }
            let error = writer
                .attempt(uuid::Uuid::new_v4(), &events("t", "lost", 1), super::ATTEMPT)
                .await
                .unwrap_err();
            assert!(
                !error.class.is_ambiguous() && error.class.breaks_connection(),
                "{}",
                error.line()
            );
            assert!(writer.connection().ping(super::ATTEMPT).await.is_err());
            assert!(store.probe().await.is_err());
            let error = store.claim_unpublished(long(), 1).await.unwrap_err();
            assert!(error.class.breaks_connection(), "{}", error.line());
            std::fs::rename(&aside, db.path()).unwrap();
        }
        assert_eq!(
            kinds(&Writer::of(&store).await.send(&[event("t", "1", "{}")]).await),
            ["duplicate"]
        );
        assert_eq!(listed(&store).await.len(), 1);
        assert_eq!(store.claim_unpublished(long(), 1).await.unwrap(), [0; 0]);
    });
}

/// A command beside the service holds the lock: the commit waits, and gives up in time.
#[test]
fn commit_waits_for_lock_within_its_limit() {
    on_sqlite(async |db| {
        let store = migrated(db).await;
        let mut writer = Writer::of(&store).await;
        let other = db.connect();
        other.execute_batch("begin immediate").unwrap();
        let limit = std::time::Duration::from_millis(100);
        let error = writer
            .attempt(uuid::Uuid::new_v4(), &events("t", "", 1), limit)
            .await
            .unwrap_err();
        assert_eq!(error.class, ErrorClass::Contention, "{}", error.line());
        assert_eq!(listed(&store).await.len(), 0, "reads go on");
        other.execute_batch("rollback").unwrap();
        assert_eq!(kinds(&writer.send(&events("t", "", 1)).await), ["stored"]);
    });
}

#[test]
fn pruned_batch_number_is_not_reused() {
    on_sqlite(async |db| {
        let store = migrated(db).await;
        let first = Writer::of(&store).await.send(&events("t", "", 3)).await;
        db.execute(
            "delete from events; delete from batches; update topic_counts set pruned = 3; update totals set pruned = 3",
        )
        .await;
        assert!(Writer::of(&store).await.send(&events("t", "new ", 1)).await.batch > first.batch);
        assert_eq!(store.verify().await.unwrap().drifts, [""; 0]);
    });
}

#[test]
fn commit_is_on_disk_when_it_returns() {
    on_sqlite(async |db| {
        let store = migrated(db).await;
        assert_eq!(store.warnings().await.unwrap(), [""; 0]);
        let mode: String = db
            .connect()
            .query_row("pragma journal_mode", [], |row| row.get(0))
            .unwrap();
        assert_eq!(mode, "wal");
        // Another mode could be set by hand; a writer rejects it.
        db.execute("pragma journal_mode = delete").await;
        assert_eq!(store.appender(0).await.err().unwrap().class, ErrorClass::Configuration);
        store.migrate().await.unwrap();
        Writer::of(&store).await.send(&events("t", "", 1)).await;
    });
}

/// The setting of the relay's transactions, recorded by triggers. The connection is kept between them.
#[test]
fn mark_is_lazy_and_dead_letter_is_durable() {
    on_sqlite(async |db| {
        let store = migrated(db).await;
        db.execute(
            "create table seen (synchronous integer);
             create trigger see_batches after update on batches begin
                 insert into seen select synchronous from pragma_synchronous;
             end;
             create trigger see_park after insert on parked begin
                 insert into seen select synchronous from pragma_synchronous;
             end;
             create trigger see_unpark after delete on parked begin
                 insert into seen select synchronous from pragma_synchronous;
             end",
        )
        .await;
        unpublished(&store, 1).await;
        let cursor = listed(&store).await[0].cursor;
        let (lease, reason) = (long(), "no".to_owned());
        store.dead_letter(&[NewDeadLetter { cursor, reason }]).await.unwrap();
        store.claim_unpublished(lease, 1).await.unwrap();
        store.remove_dead_letters(&[cursor]).await.unwrap();
        store.release(lease.owner, None).await.unwrap();
        let connection = db.connect();
        let mut statement = connection
            .prepare("select synchronous from seen order by rowid")
            .unwrap();
        let seen: Vec<i64> = statement
            .query_map([], |row| row.get(0))
            .unwrap()
            .map(Result::unwrap)
            .collect();
        let (normal, full) = (1, 2);
        assert_eq!(seen, [full, normal, full, normal]);
    });
}

/// A command beside the service holds the lock: the relay waits.
#[test]
fn claim_waits_for_lock_of_another_process() {
    on_sqlite(async |db| {
        let store = migrated(db).await;
        let batches = unpublished(&store, 1).await;
        store.release(uuid::Uuid::new_v4(), None).await.unwrap();
        let other = db.connect();
        other.execute_batch("begin immediate").unwrap();
        let mut claim = std::pin::pin!(store.claim_unpublished(long(), 1));
        let limit = std::time::Duration::from_millis(50);
        assert!(tokio::time::timeout(limit, &mut claim).await.is_err(), "it waits");
        other.execute_batch("rollback").unwrap();
        assert_eq!(claim.await.unwrap(), batches);
    });
}

#[test]
fn closed_store_leaves_only_its_file() {
    on_sqlite(async |db| {
        let store = migrated(db).await;
        store.claim().await.unwrap();
        Writer::of(&store).await.send(&events("t", "", 3)).await;
        listed(&store).await;
        store.release(uuid::Uuid::new_v4(), None).await.unwrap();
        store.close().await;
        drop(store);
        let mut names: Vec<_> = std::fs::read_dir(db.folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(names, ["events.db", "events.db-lock"]);
        assert_eq!(listed(&db.store()).await.len(), 3, "all of it is in there");
    });
}

/// Readers that take turns leave no moment at which the log could be emptied by itself.
#[test]
fn write_ahead_log_stays_bounded_under_readers() {
    on_sqlite(async |db| {
        let store = migrated(db).await;
        let mut writer = Writer::of(&store).await;
        let is_over = Arc::new(AtomicBool::new(false));
        let read = List {
            limit: 40,
            ..List::default()
        };
        let mut readers = tokio::task::JoinSet::new();
        for _ in 0..4 {
            let (store, over, read) = (store.clone(), is_over.clone(), read.clone());
            readers.spawn(async move {
                while !over.load(Ordering::Relaxed) {
                    store.list(&read).await.unwrap();
                }
            });
        }
        let payload = format!(r#"{{"a":"{}"}}"#, "x".repeat(200_000));
        let wal = db.folder.path().join("events.db-wal");
        let mut largest = 0;
        for round in 0..80 {
            let events: Vec<_> = (0..10).map(|n| event("t", &format!("{round} {n}"), &payload)).collect();
            writer.send(&events).await;
            largest = largest.max(std::fs::metadata(&wal).unwrap().len());
        }
        is_over.store(true, Ordering::Relaxed);
        readers.join_all().await;
        // 160 MB were written, and the log is looked after at 64 MiB.
        assert!(largest < 90 << 20, "{largest}");
    });
}
