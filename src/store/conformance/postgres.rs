//! The test database on PostgreSQL, and the tests that are only for PostgreSQL.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use clap::Parser;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, ConnectOptions, Executor};
use uuid::Uuid;

use super::{
    Options, TestDatabase, Writer, counts, event, events, eventually, kinds, listed, migrated, places, run,
    scanned_all, until_stable,
};
use crate::config::Database;
use crate::event::Cursor;
use crate::store::{self, Filter, List, Order, Outcome, Scan, Store};

/// The schema of the tests: a key word, which no statement may leave out or leave unquoted. (The black-box tests use the default.)
const SCHEMA: &str = "select";

/// A database of its own on the server that `DATABASE_URL` names, whose user may create databases.
pub(super) struct Server {
    server: PgConnectOptions,
    name: String,
    database: Database,
}

impl Server {
    /// Another connection to the test's own database.
    pub(super) async fn connect(&self) -> PgConnection {
        let own = self.server.clone().database(&self.name);
        // The statements of the service name the schema; those of the tests need not.
        own.options([("search_path", format!("\"{SCHEMA}\",public"))])
            .connect()
            .await
            .unwrap()
    }

    pub(super) fn database(&self) -> &str {
        &self.name
    }

    /// A transaction that is writing, in *another* database of the server. Other tests wait while it is open.
    pub(super) async fn foreign(&self) -> PgConnection {
        let mut foreign = self.server.connect().await.unwrap();
        foreign.execute("begin; select pg_current_xact_id()").await.unwrap();
        foreign
    }
}

#[async_trait]
impl TestDatabase for Server {
    async fn open() -> Self {
        let server = parsed(&["conformance"]).unwrap_or_else(|problem| {
            panic!("these tests need a PostgreSQL (deploy/test-services.sh starts one): {problem}")
        });
        let server: PgConnectOptions = server.expose_url().parse().unwrap();
        let server = server.disable_statement_logging();
        let name = format!("eventsieve_conformance_{}", Uuid::new_v4().simple());
        let url = server.clone().database(&name).to_url_lossy();
        let database = parsed(&["conformance", "--database-url", url.as_str(), "--schema", SCHEMA]).unwrap();
        let mut admin = server
            .connect()
            .await
            .expect("the PostgreSQL that DATABASE_URL names answers");
        admin
            .execute(AssertSqlSafe(format!("create database {name} template template0")))
            .await
            .unwrap();
        Self { server, name, database }
    }

    fn name(&self) -> &'static str {
        "postgres"
    }

    fn store(&self) -> Arc<dyn Store> {
        store::open(&self.database).unwrap()
    }

    async fn execute(&self, sql: &str) {
        self.connect()
            .await
            .execute(AssertSqlSafe(sql.to_owned()))
            .await
            .unwrap();
    }

    async fn forbid_poison(&self) {
        self.execute("alter table events add constraint no_poison check (event_id <> 'poison')")
            .await;
    }

    async fn forbid_writes(&self) {
        self.execute(&format!(
            "alter database {} set default_transaction_read_only = on",
            self.name
        ))
        .await;
    }

    async fn remove(self) {
        let mut admin = self.server.connect().await.unwrap();
        let drop = format!("drop database {} with (force)", self.name);
        admin.execute(AssertSqlSafe(drop)).await.unwrap();
    }
}

fn parsed(arguments: &[&str]) -> Result<Database, String> {
    let options = Options::try_parse_from(arguments).map_err(|error| error.to_string())?;
    options.store.check().map_err(|error| error.to_string())
}

/// Runs a test that is only for PostgreSQL.
pub(super) fn on_postgres(case: impl AsyncFnOnce(&Server)) {
    run::<Server>(case);
}

/// The processes of the connections to the database that wait for a lock.
async fn waiting(db: &Server) -> Vec<i32> {
    let sql = "select pid from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'";
    sqlx::query_scalar(sql)
        .fetch_all(&mut db.connect().await)
        .await
        .unwrap()
}

/// Locks the counters of topic `t`: a commit with events of that topic inserts its events and then waits.
async fn stall(db: &Server) -> PgConnection {
    let mut lock = db.connect().await;
    lock.execute("begin; select from topic_counts where topic = 't' for update")
        .await
        .unwrap();
    lock
}

#[test]
fn open_foreign_transaction_delays_and_skips_none() {
    on_postgres(async |db| {
        let store = migrated(db).await;
        let mut writer = Writer::of(&store).await;
        writer.send(&events("t", "before ", 3)).await;
        until_stable(&store).await;

        let mut foreign = db.foreign().await;
        let newer = writer.send(&events("t", "behind ", 3)).await;
        writer.send(&events("u", "behind ", 2)).await;
        let (seen, next) = scanned_all(&store, Cursor::BEGINNING, 2).await;
        assert_eq!(seen, listed(&store).await[..3]);
        assert!(next < Cursor::new(newer.batch, 0));
        let stability = store.stability().await.unwrap();
        assert!(stability.visibility_lag_seconds > 0.0);
        assert!(stability.last_stable < Cursor::new(newer.batch, 0) && newer.batch < stability.committed_below);
        // What waits has an age, also if it was received by a clock that was ahead.
        for sign in ["+", "-"] {
            let moved = format!("update batches set received_at = received_at {sign} interval '1 day'");
            db.execute(&moved).await;
            assert!(store.stability().await.unwrap().visibility_lag_seconds > 0.0);
        }
        for (order, limit) in [
            (Order::Ascending, 100),
            (Order::Ascending, 4),
            (Order::Descending, 1),
            (Order::Descending, 100),
        ] {
            let page = store
                .list(&List {
                    order,
                    limit,
                    ..List::default()
                })
                .await
                .unwrap();
            assert_eq!(
                page.events.len(),
                usize::try_from(limit).unwrap().min(8),
                "a list shows them"
            );
            assert!(page.next < Cursor::new(newer.batch, 0), "{order:?} {limit}");
        }

        foreign.execute("rollback").await.unwrap();
        until_stable(&store).await;
        assert!(store.stability().await.unwrap().visibility_lag_seconds == 0.0);
        assert_eq!(scanned_all(&store, next, 2).await.0, listed(&store).await[3..]);
    });
}

/// The order of numbers is not the order of commits: a batch with the lower number commits last.
#[test]
fn late_commit_is_not_skipped() {
    on_postgres(async |db| {
        let (store, other) = (migrated(db).await, db.store());
        let (mut slow, mut fast) = (Writer::of(&store).await, Writer::of(&other).await);
        slow.send(&events("t", "before ", 1)).await;
        until_stable(&store).await;
        let (_, start) = scanned_all(&store, Cursor::BEGINNING, 10).await;

        let mut lock = stall(db).await;
        let late = events("t", "late ", 2);
        let meanwhile = async {
            eventually("the slow commit waits", async || waiting(db).await.len() == 1).await;
            let early = fast.send(&events("u", "early ", 2)).await;
            let (seen, next) = scanned_all(&store, start, 10).await;
            assert_eq!(seen, [], "what was committed behind it is held back");
            assert_eq!(listed(&store).await.len(), 3);
            lock.execute("rollback").await.unwrap();
            (early, next)
        };
        let (late, (early, next)) = tokio::join!(slow.send(&late), meanwhile);
        assert!(late.batch < early.batch);
        until_stable(&store).await;
        let (seen, _) = scanned_all(&store, next, 10).await;
        assert_eq!(
            seen.iter().map(|stored| stored.cursor.batch()).collect::<Vec<_>>(),
            [late.batch, late.batch, early.batch, early.batch]
        );
    });
}

#[test]
fn duplicate_of_open_transaction_returns_its_position() {
    on_postgres(async |db| {
        let (store, other) = (migrated(db).await, db.store());
        let (mut one, mut two) = (Writer::of(&store).await, Writer::of(&other).await);
        one.send(&[event("t", "before", "{}")]).await;

        let mut lock = stall(db).await;
        let (sent, rival) = (
            [event("t", "1", r#"{"v":1}"#)],
            [event("t", "1", r#"{"v":2}"#), event("t", "2", "{}")],
        );
        let rival = async {
            eventually("the first commit waits", async || waiting(db).await.len() == 1).await;
            let release = async {
                eventually("the second waits for it", async || waiting(db).await.len() == 2).await;
                lock.execute("rollback").await.unwrap();
            };
            tokio::join!(two.send(&rival), release).0
        };
        let (first, second) = tokio::join!(one.send(&sent), rival);
        assert_eq!(
            (kinds(&first), kinds(&second)),
            (vec!["stored"], vec!["conflict", "stored"])
        );
        assert_eq!(second.outcomes[0], Outcome::Conflict(places(&first)[0]));
        assert_eq!(store.stats().await.unwrap().counts, counts(4, 3, 1, 1));
    });
}

/// The first attempt is given up while the server still works on it. Whether it commits or not, the second is right.
#[test]
fn attempt_after_timeout_is_counted_once() {
    on_postgres(async |db| {
        let store = migrated(db).await;
        let mut writer = Writer::of(&store).await;
        // With several rows, like the next one: its statement is then prepared and sent at once.
        writer.send(&events("t", "before", 2)).await;

        let mut lock = stall(db).await;
        let (id, sent) = (Uuid::new_v4(), events("t", "", 3));
        let error = writer.attempt(id, &sent, Duration::from_millis(200)).await.unwrap_err();
        assert!(
            error.class.is_ambiguous() && error.class.breaks_connection(),
            "{}",
            error.line()
        );
        let mut first = Vec::new();
        eventually("it still goes on", async || {
            first = waiting(db).await;
            !first.is_empty()
        })
        .await;
        drop(writer);

        let mut writer = Writer::of(&store).await;
        let release = async {
            // For the first attempt, or for the lock if the server has noticed that the client of the first attempt is gone.
            eventually("the second attempt waits", async || {
                waiting(db).await.iter().any(|pid| !first.contains(pid))
            })
            .await;
            lock.execute("rollback").await.unwrap();
        };
        let (again, ()) = tokio::join!(writer.send_as(id, &sent), release);
        assert_eq!(kinds(&again), ["stored"; 3]);
        assert_eq!(store.stats().await.unwrap().counts, counts(5, 5, 0, 0));
        assert_eq!(writer.send_as(id, &sent).await, again);
        assert_eq!(store.verify().await.unwrap().drifts, [""; 0]);
    });
}

#[test]
fn overlapping_batches_never_deadlock() {
    on_postgres(async |db| {
        super::append::overlapping_batches_store_each_event_once(db).await;
        db.execute("delete from events; delete from identities; delete from batches; delete from topic_counts; delete from totals; delete from topics")
            .await;
        super::append::batches_of_same_topics_never_deadlock(db).await;
        // The writers are gone: a backend that ends has reported all that it counted.
        let sql = "select count(*) from pg_stat_activity where datname = current_database() and application_name = 'eventsieve writer'";
        let mut pg = db.connect().await;
        eventually("the writers are gone", async || {
            sqlx::query_scalar::<_, i64>(sql).fetch_one(&mut pg).await.unwrap() == 0
        })
        .await;
        let sql = "select deadlocks from pg_stat_database where datname = current_database()";
        let deadlocks: i64 = sqlx::query_scalar(sql).fetch_one(&mut pg).await.unwrap();
        assert_eq!(deadlocks, 0);
    });
}

#[test]
fn lease_is_stored_in_the_outbox() {
    on_postgres(async |db| {
        let store = migrated(db).await;
        let leased = Writer::of(&store).await.send_leased(&[event("t", "1", "{}")]).await;
        let sql =
            "select owner is not null and published_at is null and lease_until = received_at + interval '30 seconds'
                   from batches where batch = $1";
        let is_leased: bool = sqlx::query_scalar(sql)
            .bind(leased.batch)
            .fetch_one(&mut db.connect().await)
            .await
            .unwrap();
        assert!(is_leased);
    });
}

/// A dump is restored into a new cluster, whose transaction ids start below those of the dump.
#[test]
fn batches_keep_rising_when_transaction_ids_start_low() {
    on_postgres(async |db| {
        let store = migrated(db).await;
        Writer::of(&store).await.send(&events("t", "old ", 3)).await;
        Writer::of(&store).await.send(&events("u", "old ", 2)).await;
        db.execute(
            "update events set batch = batch + 100000000; update identities set batch = batch + 100000000;
             update batches set batch = batch + 100000000;
             update log set log_oid = null",
        )
        .await;
        let old = listed(&store).await;

        let other = db.store();
        let (mut one, mut two) = (Writer::of(&store).await, Writer::of(&other).await);
        let newer = one.send(&events("t", "new ", 2)).await;
        assert!(newer.batch > old[4].cursor.batch());
        let newest = two.send(&[event("t", "newest", "{}"), event("t", "old 0", "{}")]).await;
        assert!(newest.batch > newer.batch);
        assert_eq!(places(&newest)[1].cursor, old[0].cursor);
        assert!(
            Writer::of(&store).await.send(&[]).await.batch < newest.batch + 1_000_000,
            "it is raised once"
        );

        until_stable(&store).await;
        let all = listed(&store).await;
        assert_eq!(all[..5], old);
        assert_eq!(scanned_all(&store, Cursor::BEGINNING, 2).await.0, all);
        assert_eq!(scanned_all(&store, old[4].cursor, 2).await.0, all[5..]);
        assert_eq!(store.verify().await.unwrap().drifts, [""; 0]);
    });
}

#[test]
fn pruned_batch_number_is_not_reused() {
    on_postgres(async |db| {
        let store = migrated(db).await;
        db.execute("update log set high_water = 1000000000000000000, log_oid = null")
            .await;
        assert!(Writer::of(&store).await.send(&[event("t", "1", "{}")]).await.batch > 1_000_000_000_000_000_000);
    });
}

/// The page of a scan is bounded also where one topic is large.
#[test]
fn page_of_one_topic_is_bounded() {
    on_postgres(async |db| {
        let store = migrated(db).await;
        Writer::of(&store).await.send(&events("t", "", 6000)).await;
        until_stable(&store).await;
        let filter = Filter {
            topic: Some(super::topic("t")),
            until: Some(crate::event::Timestamp::parse("2000-01-01T00:00:00Z").unwrap()),
            ..Filter::default()
        };
        let page = store
            .scan(&Scan {
                filter,
                after: Cursor::BEGINNING,
                limit: 10,
                bytes_max: usize::MAX,
                turn: crate::store::Turn::Client,
            })
            .await
            .unwrap();
        assert!(!page.is_last && page.events.is_empty() && page.next > Cursor::BEGINNING);
    });
}

#[test]
fn unsafe_defaults_are_overruled_for_writers() {
    on_postgres(async |db| {
        migrated(db).await;
        for setting in [
            "synchronous_commit = off",
            "default_transaction_isolation = 'serializable'",
        ] {
            db.execute(&format!("alter database {} set {setting}", db.name)).await;
        }
        // The settings of a commit, recorded by a trigger.
        db.execute(
            "create table seen (synchronous_commit text, isolation text);
             create function see() returns trigger language plpgsql as $$ begin
                 insert into \"select\".seen select current_setting('synchronous_commit'), current_setting('transaction_isolation');
                 return null;
             end $$;
             create trigger see after insert on batches for each statement execute function see()",
        )
        .await;
        let store = db.store();
        assert_eq!(store.warnings().await.unwrap(), [""; 0]);
        Writer::of(&store).await.send(&[event("t", "1", "{}")]).await;
        let seen: Vec<(String, String)> = sqlx::query_as("select * from seen")
            .fetch_all(&mut db.connect().await)
            .await
            .unwrap();
        assert_eq!(seen, [("on".to_owned(), "read committed".to_owned())]);
    });
}

/// Migrations only add, so that a roll-back to the version before is possible.
#[test]
fn newer_schema_is_accepted() {
    on_postgres(async |db| {
        let store = migrated(db).await;
        db.execute(
            "insert into \"select\".migrations (version, name, checksum) values (9999, 'of a later version', '')",
        )
        .await;
        store.check_schema().await.unwrap();
        store.migrate().await.unwrap();
    });
}

/// A database that is shared with another program, which keeps its own migrations in sqlx's table.
#[test]
fn database_can_be_shared_with_another_program() {
    on_postgres(async |db| {
        db.execute(
            "create table events (id int); create table _sqlx_migrations (version bigint primary key, success boolean);
             insert into _sqlx_migrations select number, true from generate_series(1, 9) as number",
        )
        .await;
        let error = db.store().check_schema().await.unwrap_err();
        assert_eq!(error.class, store::ErrorClass::Configuration, "{}", error.line());
        let store = migrated(db).await;
        Writer::of(&store).await.send(&[event("t", "1", "{}")]).await;
        assert_eq!(listed(&store).await.len(), 1);
        let theirs = "select (select count(*) from public.events) + (select count(*) from public._sqlx_migrations)";
        let theirs: i64 = sqlx::query_scalar(theirs)
            .fetch_one(&mut db.connect().await)
            .await
            .unwrap();
        assert_eq!(theirs, 9);
    });
}

#[test]
fn log_from_before_the_first_release_is_refused() {
    on_postgres(async |db| {
        db.execute("create table log (only_row boolean, xid_offset bigint)")
            .await;
        let error = db.store().migrate().await.unwrap_err();
        assert_eq!(error.class, store::ErrorClass::Configuration, "{}", error.line());
        assert!(error.line().contains("before its first release"), "{}", error.line());
    });
}

#[test]
fn damaged_schema_is_found() {
    on_postgres(async |db| {
        let store = migrated(db).await;
        db.execute("drop table parked").await;
        for found in [store.migrate().await.err(), store.check_schema().await.err()] {
            let error = found.unwrap();
            assert_eq!(error.class, store::ErrorClass::Configuration);
            assert!(error.line().contains("select.parked is missing"), "{}", error.line());
        }
    });
}

#[test]
fn dead_idle_reader_connection_is_replaced() {
    on_postgres(async |db| {
        let store = migrated(db).await;
        Writer::of(&store).await.send(&[event("t", "1", "{}")]).await;
        for _ in 0..3 {
            assert_eq!(listed(&store).await.len(), 1);
            let others =
                "datname = current_database() and pid <> pg_backend_pid() and application_name = 'eventsieve reader'";
            db.execute(&format!(
                "select pg_terminate_backend(pid, 10000) from pg_stat_activity where {others}"
            ))
            .await;
        }
        assert_eq!(listed(&store).await.len(), 1);
    });
}

/// More reads than there are connections are cancelled while the server works on them.
#[test]
fn cancelled_reads_free_their_connections() {
    on_postgres(async |db| {
        let store = migrated(db).await;
        Writer::of(&store).await.send(&[event("t", "1", "{}")]).await;
        let mut lock = db.connect().await;
        lock.execute("begin; lock table events in access exclusive mode")
            .await
            .unwrap();
        for _ in 0..20 {
            let read = tokio::time::timeout(Duration::from_millis(50), listed(&store));
            assert!(read.await.is_err(), "it waits for the lock");
        }
        lock.execute("rollback").await.unwrap();
        assert_eq!(listed(&store).await.len(), 1);
    });
}

/// A cut connection leaves nothing half done, and the same commit may be sent again.
#[test]
fn cut_connection_is_ambiguous_and_can_be_retried() {
    on_postgres(async |db| {
        let store = migrated(db).await;
        let mut writer = Writer::of(&store).await;
        writer.send(&[event("t", "before", "{}")]).await;

        let lock = stall(db).await;
        let (id, sent) = (Uuid::new_v4(), [event("t", "1", "{}"), event("u", "1", "{}")]);
        let cut = async {
            eventually("the commit waits", async || waiting(db).await.len() == 1).await;
            let sql = "select pg_terminate_backend(pid, 10000) from pg_stat_activity
                       where datname = current_database() and application_name = 'eventsieve writer'";
            db.execute(sql).await;
        };
        let (result, ()) = tokio::join!(writer.attempt(id, &sent, super::ATTEMPT), cut);
        let error = result.unwrap_err();
        assert!(
            error.class.is_ambiguous() && error.class.breaks_connection(),
            "{}",
            error.line()
        );
        assert_eq!(listed(&store).await.len(), 1);
        drop(lock);
        assert_eq!(kinds(&Writer::of(&store).await.send_as(id, &sent).await), ["stored"; 2]);
        assert_eq!(store.stats().await.unwrap().counts, counts(3, 3, 0, 0));
    });
}

/// An upgrade of the system's libraries changes how other collations sort, and corrupts the indexes made with them.
#[test]
fn every_key_is_sorted_by_bytes() {
    on_postgres(async |db| {
        migrated(db).await;
        let sql = "select c.relname || '.' || a.attname from pg_index i join pg_class c on c.oid = i.indrelid
                       join pg_attribute a on a.attrelid = c.oid and a.attnum = any (i.indkey)
                       join pg_collation l on l.oid = a.attcollation
                   where c.relnamespace = '\"select\"'::regnamespace and l.collname <> 'C'";
        let others: Vec<String> = sqlx::query_scalar(sql)
            .fetch_all(&mut db.connect().await)
            .await
            .unwrap();
        assert_eq!(others, [""; 0]);
    });
}

/// How many connections stores have to the test's database.
async fn connections(pg: &mut PgConnection) -> i64 {
    let sql = "select count(*) from pg_stat_activity where datname = current_database() and application_name like 'eventsieve%'";
    sqlx::query_scalar(sql).fetch_one(pg).await.unwrap()
}

#[test]
fn closed_store_leaves_no_connection() {
    on_postgres(async |db| {
        let store = migrated(db).await;
        let (_, _, _) = tokio::join!(listed(&store), listed(&store), store.probe());
        store.release(Uuid::new_v4(), None).await.unwrap();
        store.close().await;
        let mut pg = db.connect().await;
        eventually("they are gone", async || connections(&mut pg).await == 0).await;
        drop(store);
    });
}

/// A plan is kept until the next `analyze`, however large the table grows meanwhile. The plan for a table that was small may read
/// the whole table.
#[test]
fn first_copies_are_found_by_key_under_any_plan() {
    const SCANS: &str = "select pg_stat_get_numscans('identities_pkey'::regclass),
        pg_stat_get_numscans('identities'::regclass)";
    on_postgres(async |server| {
        let mut pg = server.connect().await;
        // Those of a session are counted when it ends at the latest.
        let mut scans = async || -> (i64, i64) {
            eventually("no session is left", async || connections(&mut pg).await == 0).await;
            sqlx::query_as(SCANS).fetch_one(&mut pg).await.unwrap()
        };
        let sent = events("t", "e", 20);
        let store = migrated(server).await;
        Writer::of(&store).await.send(&sent).await;
        server.execute("vacuum analyze identities").await;
        for again in [&sent[..1], &sent[..2]] {
            let (by_key, by_others) = scans().await;
            Writer::of(&store).await.send(again).await;
            let found = scans().await;
            assert!(found.0 > by_key, "{} are looked for", again.len());
            assert_eq!(found.1, by_others, "{} are found by their key", again.len());
        }
    });
}

/// Flushes that began before a partition ended still use its numbers. Until they have ended no other partition ends, and nothing behind
/// them is shown.
#[test]
fn partition_does_not_end_before_commits_of_the_last_one_have() {
    on_postgres(async |db| {
        let (store, other) = (migrated(db).await, db.store());
        let (mut slow, mut fast) = (Writer::of(&store).await, Writer::of(&other).await);
        slow.send(&events("t", "before ", 1)).await;
        until_stable(&store).await;
        let (_, start) = scanned_all(&store, Cursor::BEGINNING, 10).await;
        let mut lock = stall(db).await;
        let late = events("t", "late ", 2);
        let meanwhile = async {
            eventually("the slow commit waits", async || waiting(db).await.len() == 1).await;
            super::retention::end_partition(&other).await;
            let first = other.partitions().await.unwrap()[0].first_batch;
            for round in 0..5 {
                fast.send(&events("u", &format!("{round} "), 2)).await;
                assert!(!other.begin_partition(Duration::ZERO).await.unwrap());
                assert!(other.partitions().await.unwrap()[0].is_open);
                assert!(other.expire(&store::Expiry::of_all(first)).await.unwrap().is_open);
                assert_eq!(scanned_all(&other, start, 10).await.0, []);
            }
            let archived = store::Archived {
                manifest: "m".to_owned(),
                events: 1,
            };
            assert!(!other.mark_archived(first, &archived).await.unwrap());
            lock.execute("rollback").await.unwrap();
        };
        let (late, ()) = tokio::join!(slow.send(&late), meanwhile);
        until_stable(&store).await;
        let seen = scanned_all(&store, start, 3).await.0;
        assert_eq!(seen[0].cursor.batch(), late.batch);
        assert_eq!(seen, listed(&store).await[1..]);
        super::retention::end_partition(&store).await;
        assert_eq!(store.verify().await.unwrap().drifts, [""; 0]);
    });
}

/// A process that has slept through the end of its lease finds that another one has gone on.
#[test]
fn exchange_by_a_process_that_was_frozen_is_refused() {
    on_postgres(async |db| {
        let store = migrated(db).await;
        let sent = ["debug", "keep", "pay"].map(|topic| event(topic, "1", "{}"));
        Writer::of(&store).await.send(&sent).await;
        super::retention::end_partition(&store).await;
        until_stable(&store).await;
        let first = store.partitions().await.unwrap()[0].first_batch;
        let mut pg = db.connect().await;
        let begin = "select begin_copy(first_batch, table_name, true) from partitions order by first_batch limit 1";
        let copy = "select copy_kept(first_batch, '{debug}', '{t}', false, null, table_name, copy_name, 0, 0, 100)
                    from partitions order by first_batch limit 1";
        let table = "select table_name from partitions order by first_batch limit 1";
        // Cut off after it had copied: all of it is made anew.
        let before: String = sqlx::query_scalar(table).fetch_one(&mut pg).await.unwrap();
        pg.execute(begin).await.unwrap();
        pg.execute(copy).await.unwrap();
        let only_debug = |partition| store::Expiry {
            topics: vec![(crate::event::TopicGlob::parse("debug").unwrap(), true)],
            others: false,
            ..store::Expiry::of_all(partition)
        };
        assert_eq!(super::retention::expired(&store, only_debug).await.removed, 1);
        for copy in ["null", "'events_1'"] {
            for call in [
                format!("exchange_partition({first}, '{before}', {copy}, null, null)"),
                format!("count_copied({first}, '{before}', {copy})"),
            ] {
                let error = pg.execute(AssertSqlSafe(format!("select {call}"))).await.unwrap_err();
                assert!(error.to_string().contains("another process"), "{error}");
            }
        }
        assert_eq!(listed(&store).await.len(), 2);
        // What was copied for another decision is not used.
        pg.execute(begin).await.unwrap();
        pg.execute(copy).await.unwrap();
        assert_eq!(
            super::retention::expired(&store, store::Expiry::of_all).await.removed,
            2
        );
        assert_eq!(listed(&store).await, []);
        assert_eq!(store.verify().await.unwrap().drifts, [""; 0]);
    });
}

/// However often partitions end, numbers stay below those that the numbering would begin anew with.
#[test]
fn numbers_do_not_run_ahead_of_the_clock() {
    on_postgres(async |db| {
        let store = migrated(db).await;
        let mut writer = Writer::of(&store).await;
        let mut pg = db.connect().await;
        for round in 0..4 {
            let newest = writer.send(&events("t", &format!("{round} "), 1)).await.batch;
            let now: i64 = sqlx::query_scalar("select number_of_now()")
                .fetch_one(&mut pg)
                .await
                .unwrap();
            assert!(newest < now, "{newest} {now}");
            super::retention::end_partition(&store).await;
        }
    });
}

/// The functions with the rights of the owner are not for everybody.
#[test]
fn nobody_else_may_call_the_functions() {
    on_postgres(async |db| {
        migrated(db).await;
        let sql = "select count(*) from pg_proc
                   where pronamespace = '\"select\"'::regnamespace and has_function_privilege('public', oid, 'execute')";
        let open: i64 = sqlx::query_scalar(sql)
            .fetch_one(&mut db.connect().await)
            .await
            .unwrap();
        assert_eq!(open, 0);
    });
}
