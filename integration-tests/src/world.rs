//! A test's world: a store of its own, the services on it, and the check at its end that nothing was lost, stored twice or
//! counted wrong.

pub mod database;
pub mod file;

use std::time::Duration;

use anyhow::ensure;
use futures_util::future::{join, join_all};
use sqlx::{Executor, PgConnection};

use self::database::Database;
use self::file::File;
use crate::environment;
use crate::eventually::{SOON, eventually};
use crate::postgres::PostgresServer;
use crate::service::{Finished, Service, Settings};

/// A store of the test's own. It is gone at the end, also when the test fails.
#[derive(Debug)]
pub struct World {
    store: Store,
}

#[derive(Debug)]
enum Store {
    Postgres(Database),
    Sqlite(File),
}

impl World {
    /// An empty database on the server that `DATABASE_URL` names.
    pub async fn new() -> Self {
        let server_url = environment("DATABASE_URL").expect(
            "DATABASE_URL is not set: it names the superuser of a throwaway PostgreSQL, and `make test` starts one",
        );
        Self::at(&server_url, "").await
    }

    /// The same in another encoding than the server's.
    pub async fn in_encoding(encoding: &str) -> Self {
        let server_url = std::env::var("DATABASE_URL").expect("DATABASE_URL is set, as for `World::new`");
        let options = format!("encoding '{encoding}' lc_collate 'C' lc_ctype 'C' template template0");
        Self::at(&server_url, &options).await
    }

    /// An empty database on a server of the test's own.
    pub async fn on(server: &PostgresServer) -> Self {
        Self::at(&server.url(), "").await
    }

    async fn at(server_url: &str, options: &str) -> Self {
        World {
            store: Store::Postgres(Database::create(server_url, options).await),
        }
    }

    /// A folder for the file of an embedded store, which a service or a migration makes.
    pub fn embedded() -> Self {
        World {
            store: Store::Sqlite(File::new()),
        }
    }

    /// The store's name in `/stats`.
    pub fn store_name(&self) -> &'static str {
        match self.store {
            Store::Postgres(_) => "postgres",
            Store::Sqlite(_) => "sqlite",
        }
    }

    /// The store's URL.
    pub fn database_url(&self) -> &str {
        match &self.store {
            Store::Postgres(database) => database.url(),
            Store::Sqlite(file) => file.url(),
        }
    }

    /// The database, for a test that is bound to PostgreSQL.
    pub fn postgres(&self) -> &Database {
        match &self.store {
            Store::Postgres(database) => database,
            Store::Sqlite(_) => panic!("this test needs a World::new()"),
        }
    }

    /// The file, for a test that is bound to SQLite.
    pub fn sqlite(&self) -> &File {
        match &self.store {
            Store::Sqlite(file) => file,
            Store::Postgres(_) => panic!("this test needs a World::embedded()"),
        }
    }

    /// What a service on this store is started with.
    pub fn settings(&self) -> Settings {
        Settings::new(self.database_url())
    }

    /// Starts a service and waits until it is ready.
    pub async fn serve(&self) -> Service {
        self.serve_with(self.settings()).await
    }

    /// Starts a service with these settings and waits until it is ready.
    pub async fn serve_with(&self, settings: Settings) -> Service {
        let service = Service::start(settings).await;
        service.ready().await;
        service
    }

    /// Starts two services and waits until they are ready; on the embedded store, which can have only one service, one.
    pub async fn serve_replicas(&self) -> Replicas {
        self.serve_replicas_with(self.settings()).await
    }

    /// The same with these settings.
    pub async fn serve_replicas_with(&self, settings: Settings) -> Replicas {
        match self.store {
            Store::Postgres(_) => {
                let (one, other) = join(self.serve_with(settings.clone()), self.serve_with(settings)).await;
                Replicas {
                    one,
                    other: Some(other),
                }
            }
            Store::Sqlite(_) => Replicas {
                one: self.serve_with(settings).await,
                other: None,
            },
        }
    }

    /// Starts a service with each of these settings on one database, and waits until all are ready.
    pub async fn serve_all<const COUNT: usize>(&self, settings: [Settings; COUNT]) -> [Service; COUNT] {
        let services = join_all(settings.map(|settings| self.serve_with(settings))).await;
        services.try_into().expect("one for each")
    }

    /// Runs a command of the binary on this store to its end.
    pub async fn run(&self, arguments: &[&str]) -> Finished {
        self.settings().arguments(arguments).run().await
    }

    /// Runs `eventsieve load` against a service with these arguments, and asserts that its counts add up.
    pub async fn load(&self, service_url: &str, arguments: &[&str]) -> Finished {
        let load = self.run(&[&["load", "--url", service_url], arguments].concat()).await;
        load.ended_with(0);
        load
    }

    /// Executes statements on the store by hand.
    pub async fn execute(&self, sql: &str) {
        match &self.store {
            Store::Postgres(database) => database.execute(sql).await,
            Store::Sqlite(file) => file.execute(sql),
        }
    }

    /// Whether the store has a table with this name.
    pub async fn has_table(&self, name: &str) -> bool {
        let found = match &self.store {
            Store::Postgres(database) => database.row(&format!("select count(to_regclass('{name}'))")).await,
            Store::Sqlite(file) if !file.path().exists() => return false,
            Store::Sqlite(file) => file.row(&format!("select count(*) from sqlite_schema where name = '{name}'")),
        };
        found == [1]
    }

    /// The one number that a query gives.
    pub async fn number(&self, sql: &str) -> i64 {
        self.row(sql).await[0]
    }

    /// The texts that a query gives, one in each row.
    pub async fn texts(&self, sql: &str) -> Vec<String> {
        match &self.store {
            Store::Postgres(database) => database.texts(sql).await,
            Store::Sqlite(file) => file.texts(sql),
        }
    }

    /// The one row of whole numbers that a query gives.
    async fn row(&self, sql: &str) -> Vec<i64> {
        match &self.store {
            Store::Postgres(database) => database.row(sql).await,
            Store::Sqlite(file) => file.row(sql),
        }
    }

    /// Rows and counters, from one snapshot.
    pub async fn totals(&self) -> Totals {
        let row = self.row(TOTALS).await;
        let [received, unique, duplicates, conflicts, pruned, rows] = row[..] else {
            panic!("the query asks for six: {row:?}")
        };
        Totals {
            received,
            unique,
            duplicates,
            conflicts,
            pruned,
            rows,
        }
    }

    /// Checks the world: there are exactly `rows` events, the counters agree with them in total and for each topic, and
    /// `eventsieve verify` passes.
    pub async fn check(&self, rows: i64) -> Totals {
        let totals = self.totals().await;
        assert_eq!(totals.rows, rows, "{totals:?}");
        assert_eq!(totals.unique - totals.pruned, rows, "{totals:?}");
        assert_eq!(totals.received, totals.unique + totals.duplicates, "{totals:?}");
        assert_eq!(self.number(TOPICS_OFF).await, 0, "topics whose counter is wrong");
        self.run(&["verify"]).await.ended_with(0);
        totals
    }

    /// The number of batches that are not published yet.
    pub async fn unpublished(&self) -> i64 {
        self.number("select count(*) from batches where published_at is null")
            .await
    }

    /// The number of unpublished batches under a lease that has not expired.
    pub async fn leased(&self) -> i64 {
        let lasts = match self.store {
            Store::Postgres(_) => "lease_until > now()",
            Store::Sqlite(_) => "lease_until > unixepoch('subsec') * 1000000",
        };
        self.number(&format!(
            "select count(*) from batches where published_at is null and {lasts}"
        ))
        .await
    }

    /// Waits until all batches are marked as published, which happens a little after they are published.
    pub async fn published(&self, deadline: Duration) {
        eventually(deadline, async || {
            let unpublished = self.unpublished().await;
            ensure!(unpublished == 0, "{unpublished} batches are not published");
            Ok(())
        })
        .await;
    }

    /// [`Self::check`] for services that publish to Redis: the outbox must become empty, too.
    pub async fn check_published(&self, rows: i64) -> Totals {
        self.published(SOON).await;
        self.check(rows).await
    }

    /// Makes the store reject events with the id `poison`, by a rule that the service does not know.
    pub async fn reject_poison(&self) {
        let rule = match self.store {
            Store::Postgres(_) => "alter table events add constraint no_poison check (event_id <> 'poison')",
            Store::Sqlite(_) => {
                "create trigger no_poison before insert on events when new.event_id = 'poison'
                 begin select raise(abort, 'no poison'); end"
            }
        };
        self.execute(rule).await;
    }

    /// Keeps every writer from committing until this is released or dropped: on PostgreSQL inside its group commit, on SQLite at
    /// the beginning of it.
    pub async fn hold_writers(&self) -> HeldWriters {
        match &self.store {
            Store::Postgres(database) => HeldWriters::Postgres(database.hold_writers().await),
            Store::Sqlite(file) => HeldWriters::Sqlite(file.hold_writers()),
        }
    }

    /// Waits until a writer of the service is held back. A waiting writer of an embedded store cannot be observed: there the
    /// queue must hold events.
    pub async fn writer_is_held(&self, service: &Service) {
        eventually(SOON, async || {
            let held = match &self.store {
                Store::Postgres(database) => database.waiting_writers().await > 0,
                Store::Sqlite(_) => service.json("/stats").await["queue"]["events"] != 0,
            };
            ensure!(held, "no writer waits for a lock");
            Ok(())
        })
        .await;
    }

    /// The number of deadlocks that the database server has resolved, as reported by connections that have ended. An embedded
    /// store has one lock, and so no deadlocks.
    pub async fn deadlocks(&self) -> i64 {
        match &self.store {
            Store::Postgres(database) => database.deadlocks().await,
            Store::Sqlite(_) => 0,
        }
    }

    /// The number of connections of services to the database server; an embedded store has none.
    pub async fn service_connections(&self) -> i64 {
        match &self.store {
            Store::Postgres(database) => database.service_connections().await,
            Store::Sqlite(_) => 0,
        }
    }
}

/// The services on one store.
#[derive(Debug)]
pub struct Replicas {
    one: Service,
    other: Option<Service>,
}

impl Replicas {
    /// One of them.
    pub fn one(&self) -> &Service {
        &self.one
    }

    /// The other one; on the embedded store the same.
    pub fn other(&self) -> &Service {
        self.other.as_ref().unwrap_or(&self.one)
    }

    /// Kills one of them as `kill -9` does, and starts it again.
    pub async fn restart_one(&mut self) {
        self.one.restart().await;
    }

    /// Asks them to stop, and waits until they have ended well.
    pub async fn stop(mut self) {
        self.one.stop().await;
        if let Some(other) = &mut self.other {
            other.stop().await;
        }
    }
}

/// Rows and counters of a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Totals {
    /// Events counted as received.
    pub received: i64,
    /// Events counted as stored.
    pub unique: i64,
    /// Events counted as duplicates.
    pub duplicates: i64,
    /// Duplicates with another payload.
    pub conflicts: i64,
    /// Events removed since.
    pub pruned: i64,
    /// Events there are.
    pub rows: i64,
}

/// The writers of all services, held back by a lock of the test.
#[derive(Debug)]
pub enum HeldWriters {
    /// By a lock on the counters.
    Postgres(PgConnection),
    /// By the one lock for writing.
    Sqlite(rusqlite::Connection),
}

impl HeldWriters {
    /// Lets the writers go on.
    pub async fn release(self) {
        match self {
            HeldWriters::Postgres(mut connection) => connection.execute("rollback").await.map(drop).map_err(Into::into),
            HeldWriters::Sqlite(connection) => connection.execute_batch("rollback").map_err(anyhow::Error::from),
        }
        .expect("the connection of the test");
    }
}

const TOTALS: &str = "
    select cast(coalesce(sum(received), 0) as bigint), cast(coalesce(sum(unique_processed), 0) as bigint),
           cast(coalesce(sum(duplicate_dropped), 0) as bigint), cast(coalesce(sum(conflicts), 0) as bigint),
           cast(coalesce(sum(pruned), 0) as bigint), (select count(*) from events)
    from topic_counts";

const TOPICS_OFF: &str = "
    select count(*)
    from (select topic, cast(sum(unique_processed - pruned) as bigint) as counted from topic_counts group by topic) as counters
         full join (select topic, count(*) as found from events group by topic) as rows using (topic)
    where coalesce(counted, 0) <> coalesce(found, 0)";
