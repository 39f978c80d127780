//! A PostgreSQL database of a test's own.

use std::time::Duration;

use reqwest::Url;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, PgPool, Row};
use uuid::Uuid;

/// How long a test waits for its database to be dropped.
const DROP_TIMEOUT: Duration = Duration::from_secs(60);

/// A database of the test's own. It is dropped at the end, also when the test fails.
#[derive(Debug)]
pub struct Database {
    server_url: String,
    name: String,
    url: String,
    pool: PgPool,
}

impl Database {
    pub(super) async fn create(server_url: &str, options: &str) -> Self {
        let name = format!("eventsieve_test_{}", Uuid::new_v4().simple());
        let mut url = Url::parse(server_url).expect("DATABASE_URL is a URL");
        url.set_path(&name);
        url.set_query(Some("sslmode=disable"));
        let database = Database {
            server_url: server_url.to_owned(),
            name,
            url: url.to_string(),
            pool: pool(url.as_str()),
        };
        execute_at(server_url, format!("create database {} {options}", database.name))
            .await
            .expect("a superuser may create databases");
        database
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn url(&self) -> &str {
        &self.url
    }

    pub(super) async fn execute(&self, sql: &str) {
        self.pool
            .execute(AssertSqlSafe(sql.to_owned()))
            .await
            .unwrap_or_else(|error| panic!("{sql}: {error}"));
    }

    pub(super) async fn row(&self, sql: &str) -> Vec<i64> {
        let row = self.pool.fetch_one(AssertSqlSafe(sql.to_owned())).await;
        row.and_then(|row| (0..row.len()).map(|column| row.try_get(column)).collect())
            .unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    pub(super) async fn texts(&self, sql: &str) -> Vec<String> {
        let rows = self.pool.fetch_all(AssertSqlSafe(sql.to_owned())).await;
        rows.and_then(|rows| rows.iter().map(|row| row.try_get(0)).collect())
            .unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    /// The one text that a query gives.
    pub async fn text(&self, sql: &str) -> String {
        let row = self.pool.fetch_one(AssertSqlSafe(sql.to_owned())).await;
        row.and_then(|row| row.try_get(0))
            .unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    pub(super) async fn hold_writers(&self) -> PgConnection {
        let mut connection = self.connect().await;
        // Writers update the counters last: they have inserted their events, but not committed them.
        connection
            .execute("begin; lock table topic_counts in exclusive mode")
            .await
            .expect("the schema of the service");
        connection
    }

    pub(super) async fn waiting_writers(&self) -> i64 {
        self.row(WAITING_WRITERS).await[0]
    }

    pub(super) async fn deadlocks(&self) -> i64 {
        self.row(DEADLOCKS).await[0]
    }

    pub(super) async fn service_connections(&self) -> i64 {
        self.row(SERVICE_CONNECTIONS).await[0]
    }

    /// Changes a setting of the database through another database, because its own connections might not be allowed to.
    pub async fn alter(&self, setting: &str) {
        execute_at(&self.server_url, format!("alter database {} {setting}", self.name))
            .await
            .expect("a superuser may alter databases");
    }

    /// Ends every connection of services to the database.
    pub async fn terminate_connections(&self) {
        self.execute(TERMINATE).await;
    }

    /// A connection of the test's own that is not taken from its pool.
    pub async fn connect(&self) -> PgConnection {
        let options: PgConnectOptions = self.url.parse().expect("a database URL");
        PgConnection::connect_with(&in_schema(options))
            .await
            .expect("the database of the test")
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let server_url = self.server_url.clone();
        let sql = format!("drop database if exists {} with (force)", self.name);
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
            // A server of the test's own may be gone by now; a shared one is removed after the tests.
            eprintln!("the database {} was left: {dropped:?}", self.name);
        }
    }
}

const WAITING_WRITERS: &str = "
    select count(*) from pg_stat_activity
    where datname = current_database() and application_name like 'eventsieve%' and wait_event_type = 'Lock'";

const SERVICE_CONNECTIONS: &str = "
    select count(*) from pg_stat_activity
    where datname = current_database() and application_name like 'eventsieve%'";

const TERMINATE: &str = "
    select pg_terminate_backend(pid) from pg_stat_activity
    where datname = current_database() and application_name like 'eventsieve%'";

const DEADLOCKS: &str = "select deadlocks from pg_stat_database where datname = current_database()";

/// Connections are opened on demand, so that a pool can exist before its database. They are few, so that those of all tests stay
/// below the limit of the server.
fn pool(database_url: &str) -> PgPool {
    let options: PgConnectOptions = database_url.parse().expect("a database URL");
    PgPoolOptions::new()
        .max_connections(3)
        .connect_lazy_with(in_schema(options).application_name("integration-tests"))
}

/// The statements of the service name its schema; those of the tests need not.
fn in_schema(options: PgConnectOptions) -> PgConnectOptions {
    options.options([("search_path", "eventsieve,public")])
}

/// Executes one statement on a connection that is opened for it.
async fn execute_at(url: &str, sql: String) -> anyhow::Result<()> {
    let mut connection = PgConnection::connect(url).await?;
    connection.execute(AssertSqlSafe(sql)).await?;
    connection.close().await?;
    Ok(())
}
