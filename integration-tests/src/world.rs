//! A test's world: a database of its own, the services on it, and the check at the end that nothing was lost, stored
//! twice or counted wrong.

use std::time::Duration;

use anyhow::ensure;
use reqwest::Url;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, PgPool};
use uuid::Uuid;

use crate::environment;
use crate::eventually::{SOON, eventually};
use crate::postgres::PostgresServer;
use crate::service::{Finished, Service, Settings};

/// A database of the test's own. It is dropped at the end, also when the test fails.
#[derive(Debug)]
pub struct World {
    server_url: String,
    database: String,
    database_url: String,
    pool: PgPool,
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
        let database = format!("eventsieve_test_{}", Uuid::new_v4().simple());
        let mut url = Url::parse(server_url).expect("DATABASE_URL is a URL");
        url.set_path(&database);
        url.set_query(Some("sslmode=disable"));
        let world = World {
            server_url: server_url.to_owned(),
            database,
            database_url: url.to_string(),
            pool: pool(url.as_str()),
        };
        execute_at(
            &world.server_url,
            format!("create database {} {options}", world.database),
        )
        .await
        .expect("a superuser may create databases");
        world
    }

    /// The database's URL.
    pub fn database_url(&self) -> &str {
        &self.database_url
    }

    /// The test's own connections to the database.
    pub fn pool(&self) -> &PgPool {
        &self.pool
    }

    /// What a service on this database is started with.
    pub fn settings(&self) -> Settings {
        Settings::new(&self.database_url)
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

    /// Runs a command of the binary on this database to its end.
    pub async fn run(&self, arguments: &[&str]) -> Finished {
        self.settings().arguments(arguments).run().await
    }

    /// Executes statements on the database.
    pub async fn execute(&self, sql: &str) {
        self.pool
            .execute(AssertSqlSafe(sql.to_owned()))
            .await
            .unwrap_or_else(|error| panic!("{sql}: {error}"));
    }

    /// Changes a setting of the database, by way of another one, for its own connections might not be allowed to.
    pub async fn alter(&self, setting: &str) {
        execute_at(&self.server_url, format!("alter database {} {setting}", self.database))
            .await
            .expect("a superuser may alter databases");
    }

    /// The one number that a query gives.
    pub async fn number(&self, sql: &str) -> i64 {
        sqlx::query_scalar(AssertSqlSafe(sql.to_owned()))
            .fetch_one(&self.pool)
            .await
            .unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    /// Rows and counters, from one snapshot.
    pub async fn totals(&self) -> Totals {
        let (received, unique, duplicates, conflicts, pruned, rows) = sqlx::query_as(TOTALS)
            .fetch_one(&self.pool)
            .await
            .expect("the schema of the service");
        Totals {
            received,
            unique,
            duplicates,
            conflicts,
            pruned,
            rows,
        }
    }

    /// Checks the world: there are exactly `rows` events, the counters agree with them in total and topic by topic, and so
    /// says `eventsieve verify`.
    pub async fn check(&self, rows: i64) -> Totals {
        let totals = self.totals().await;
        assert_eq!(totals.rows, rows, "{totals:?}");
        assert_eq!(totals.unique - totals.pruned, rows, "{totals:?}");
        assert_eq!(totals.received, totals.unique + totals.duplicates, "{totals:?}");
        assert_eq!(self.number(TOPICS_OFF).await, 0, "topics whose counter is off");
        self.run(&["verify"]).await.ended_with(0);
        totals
    }

    /// Holds every writer back inside its flush, before it can commit, until this is released or dropped.
    pub async fn hold_writers(&self) -> HeldWriters {
        let mut connection = self.connect().await;
        // Writers count last of all: they have stored their events, and not committed them.
        connection
            .execute("begin; lock table topic_counts in exclusive mode")
            .await
            .expect("the schema of the service");
        HeldWriters { connection }
    }

    /// Waits until a writer is held back.
    pub async fn writer_is_held(&self) {
        eventually(SOON, async || {
            let waiting = self.number(WAITING_WRITERS).await;
            ensure!(waiting > 0, "no writer waits for a lock");
            Ok(())
        })
        .await;
    }

    /// Ends every connection of services to the database.
    pub async fn terminate_connections(&self) {
        self.execute(TERMINATE).await;
    }

    /// How many connections services have to the database.
    pub async fn service_connections(&self) -> i64 {
        self.number(SERVICE_CONNECTIONS).await
    }

    /// A connection of the test's own that is not taken from its pool.
    pub async fn connect(&self) -> PgConnection {
        PgConnection::connect(&self.database_url)
            .await
            .expect("the database of the test")
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let server_url = self.server_url.clone();
        let sql = format!("drop database if exists {} with (force)", self.database);
        // Dropping cannot wait for the test's own runtime, which runs this.
        let dropped = std::thread::spawn(move || {
            tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .map_err(anyhow::Error::from)?
                .block_on(async { tokio::time::timeout(DROP_TIMEOUT, execute_at(&server_url, sql)).await })?
        })
        .join();
        if !matches!(dropped, Ok(Ok(()))) {
            // A server of the test's own may be gone by now; another one is thrown away after the tests.
            eprintln!("the database {} was left: {dropped:?}", self.database);
        }
    }
}

/// How long a test waits for its database to be dropped.
const DROP_TIMEOUT: Duration = Duration::from_secs(10);

/// Rows and counters of a database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Totals {
    /// Events counted as received.
    pub received: i64,
    /// Events counted as stored.
    pub unique: i64,
    /// Events counted as duplicates.
    pub duplicates: i64,
    /// Of the duplicates, those with another payload.
    pub conflicts: i64,
    /// Events removed since.
    pub pruned: i64,
    /// Events there are.
    pub rows: i64,
}

/// The writers of all services, held back by a lock of the test's.
#[derive(Debug)]
pub struct HeldWriters {
    connection: PgConnection,
}

impl HeldWriters {
    /// Lets the writers go on.
    pub async fn release(mut self) {
        self.connection
            .execute("rollback")
            .await
            .expect("the connection of the test");
    }
}

const TOTALS: &str = "
    select coalesce(sum(received), 0)::bigint, coalesce(sum(unique_processed), 0)::bigint,
           coalesce(sum(duplicate_dropped), 0)::bigint, coalesce(sum(conflicts), 0)::bigint,
           coalesce(sum(pruned), 0)::bigint, (select count(*) from events)
    from topic_counts";

const TOPICS_OFF: &str = "
    select count(*)
    from (select topic, sum(unique_processed - pruned)::bigint as counted from topic_counts group by topic) as counters
         full join (select topic, count(*) as found from events group by topic) as rows using (topic)
    where coalesce(counted, 0) <> coalesce(found, 0)";

const WAITING_WRITERS: &str = "
    select count(*) from pg_stat_activity
    where datname = current_database() and application_name like 'eventsieve%' and wait_event_type = 'Lock'";

const SERVICE_CONNECTIONS: &str = "
    select count(*) from pg_stat_activity
    where datname = current_database() and application_name like 'eventsieve%'";

const TERMINATE: &str = "
    select pg_terminate_backend(pid) from pg_stat_activity
    where datname = current_database() and application_name like 'eventsieve%'";

/// Connections are made when they are needed, so that a pool can be there before its database, and few, so that all tests'
/// together stay below the server's limit.
fn pool(database_url: &str) -> PgPool {
    let options: PgConnectOptions = database_url.parse().expect("a database URL");
    PgPoolOptions::new()
        .max_connections(3)
        .connect_lazy_with(options.application_name("integration-tests"))
}

/// Executes one statement on a connection that is opened for it.
async fn execute_at(url: &str, sql: String) -> anyhow::Result<()> {
    let mut connection = PgConnection::connect(url).await?;
    connection.execute(AssertSqlSafe(sql)).await?;
    connection.close().await?;
    Ok(())
}
