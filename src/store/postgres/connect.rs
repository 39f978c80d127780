//! Connections: how they are opened, used within a time limit, and closed.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use sqlx::postgres::{PgArguments, PgConnectOptions, PgConnection, PgRow};
use sqlx::query::Query;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Decode, Executor, Row, Type};
use tokio::sync::OnceCell;

use super::error;
use super::statement::Schema;
use crate::config::Pooler;
use crate::store::{ErrorClass, StoreError};

/// How long opening a connection may take, the handshake included: less than a read may take, so that a server that does not
/// answer is not mistaken for a slow query.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// How often two connections are compared to find a pooler in between. Most poolers serve with the connection of the server that was
/// used last, so the second question meets the process of the first, unless another user of the pooler comes between them. Each time
/// that has even odds at most, and then the processes change.
const PROCESS_CHECKS: usize = 16;

/// How long that may take, once for each store: two connections and their comparisons are more round trips than one connection.
const SEARCH_TIMEOUT: Duration = Duration::from_secs(10);

/// The mode of a transaction in which each statement has a fresh snapshot.
pub(super) const READ_COMMITTED: &str = "isolation level read committed";

/// Whether the server takes no writes.
pub(super) const IS_READ_ONLY: &str =
    "select pg_is_in_recovery() or current_setting('transaction_read_only')::boolean as is_read_only";

/// How long closing a connection may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// The purpose of a connection, shown in `pg_stat_activity.application_name`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// Group commits of one writer.
    Writer,
    /// `/events` and `/stats`.
    Reader,
    /// The health check.
    Probe,
    /// Removing what has expired.
    Retention,
    /// The outbox: claims, marks, dead letters.
    Relay,
    /// Migrations and recounts, which may take long.
    Admin,
}

impl Role {
    fn name(self) -> &'static str {
        match self {
            Role::Writer => "eventsieve writer",
            Role::Reader => "eventsieve reader",
            Role::Probe => "eventsieve probe",
            Role::Retention => "eventsieve retention",
            Role::Relay => "eventsieve relay",
            Role::Admin => "eventsieve",
        }
    }

    /// The settings of the session, as statements and not as start-up options, which a pooler in between may reject.
    fn settings(self) -> &'static str {
        match self {
            Role::Writer => include_str!("sql/session_writer.sql"),
            Role::Reader => include_str!("sql/session_reader.sql"),
            Role::Probe => include_str!("sql/session_probe.sql"),
            Role::Retention => include_str!("sql/session_retention.sql"),
            Role::Relay => include_str!("sql/session_relay.sql"),
            Role::Admin => include_str!("sql/session_admin.sql"),
        }
    }
}

/// Where the tables are, and what is in between.
#[derive(Debug, Clone)]
pub(super) struct Address {
    /// One, or several of which one takes writes.
    servers: Vec<PgConnectOptions>,
    /// The one that took writes when it was last asked.
    writable: Arc<AtomicUsize>,
    pub(super) schema: Schema,
    pooler: Pooler,
    /// Whether a pooler gives each transaction another connection of the server; known from the first connection on.
    is_shared: Arc<OnceCell<bool>>,
}

impl Address {
    pub(super) fn new(servers: Vec<PgConnectOptions>, schema: Schema, pooler: Pooler) -> Self {
        // A pooler may reject this parameter, and no answer has a number that it is about.
        let plain = |options: PgConnectOptions| options.extra_float_digits(None).disable_statement_logging();
        Self {
            servers: servers.into_iter().map(plain).collect(),
            writable: Arc::default(),
            schema,
            pooler,
            is_shared: Arc::default(),
        }
    }

    async fn is_shared(&self, server: &PgConnectOptions) -> sqlx::Result<bool> {
        let find = async || match self.pooler {
            Pooler::Session => Ok(false),
            Pooler::Transaction => Ok(true),
            Pooler::Auto => {
                let is_shared = shares_connections(server).await?;
                if is_shared {
                    tracing::info!(
                        "a pooler gives each transaction a connection of its own: every statement is a transaction with settings of its own"
                    );
                }
                Ok(is_shared)
            }
        };
        self.is_shared.get_or_try_init(find).await.copied()
    }
}

/// Whether two open connections are served by the same process of the server, or one of them by two: then something in between shares
/// them out.
async fn shares_connections(options: &PgConnectOptions) -> sqlx::Result<bool> {
    let options = options.clone().application_name(Role::Admin.name());
    let (mut one, mut other) = tokio::try_join!(
        PgConnection::connect_with(&options),
        PgConnection::connect_with(&options)
    )?;
    let (mut before, mut is_shared) = (None, false);
    for _ in 0..PROCESS_CHECKS {
        // One after the other: of two questions at the same time each may be answered by the same process every time.
        let served = (process_of(&mut one).await?, process_of(&mut other).await?);
        is_shared = served.0 == served.1 || before.is_some_and(|before| before != served);
        if is_shared {
            break;
        }
        before = Some(served);
    }
    // Whether the farewell arrives does not matter.
    tokio::join!(one.close(), other.close()).0.ok();
    Ok(is_shared)
}

/// The process of the server that answers. Without a prepared statement, which might be prepared in one process and run in another.
async fn process_of(pg: &mut PgConnection) -> sqlx::Result<i32> {
    pg.fetch_one("select pg_backend_pid()").await?.try_get(0)
}

/// A connection, and the schema that its statements name.
///
/// A statement is a transaction, but between [`begin`](Self::begin) and [`end`](Self::end). Where a pooler gives each transaction
/// another connection of the server, nothing belongs to the session: no setting, which others would inherit, and no prepared
/// statement. Each transaction then has the settings of the role for itself, at the cost of three more round trips.
#[derive(Debug)]
pub(super) struct Session {
    pg: PgConnection,
    pub(super) schema: Schema,
    /// The settings of a transaction, where the session can have none.
    settings: Option<String>,
    is_in_transaction: bool,
}

impl Session {
    /// A query whose statement names the session's schema.
    pub(super) fn query<'q>(&self, statement: &'static str) -> Query<'q, sqlx::Postgres, PgArguments> {
        self.schema.query(statement)
    }

    /// Runs a query, and returns all of its rows.
    pub(super) async fn fetch_all(
        &mut self,
        query: Query<'_, sqlx::Postgres, PgArguments>,
    ) -> sqlx::Result<Vec<PgRow>> {
        let query = query.persistent(self.settings.is_none());
        if self.settings.is_none() || self.is_in_transaction {
            return query.fetch_all(&mut self.pg).await;
        }
        self.begin(READ_COMMITTED).await?;
        let rows = query.fetch_all(&mut self.pg).await;
        let ended = self.end(if rows.is_ok() { "commit" } else { "rollback" }).await;
        let rows = rows?;
        ended.map(|()| rows)
    }

    /// As [`fetch_all`](Self::fetch_all), for a query that has a row.
    pub(super) async fn fetch_one(&mut self, query: Query<'_, sqlx::Postgres, PgArguments>) -> sqlx::Result<PgRow> {
        let rows = self.fetch_all(query).await?;
        rows.into_iter().next().ok_or(sqlx::Error::RowNotFound)
    }

    /// As [`fetch_one`](Self::fetch_one), for a row's first column.
    pub(super) async fn scalar<T>(&mut self, query: Query<'_, sqlx::Postgres, PgArguments>) -> sqlx::Result<T>
    where
        T: for<'r> Decode<'r, sqlx::Postgres> + Type<sqlx::Postgres>,
    {
        self.fetch_one(query).await?.try_get(0)
    }

    /// As [`fetch_all`](Self::fetch_all), for the first column of each row.
    pub(super) async fn scalars<T>(&mut self, query: Query<'_, sqlx::Postgres, PgArguments>) -> sqlx::Result<Vec<T>>
    where
        T: for<'r> Decode<'r, sqlx::Postgres> + Type<sqlx::Postgres>,
    {
        let rows = self.fetch_all(query).await?;
        rows.iter().map(|row| row.try_get(0)).collect()
    }

    /// Runs statements of a text, without arguments, in the transaction that has begun.
    pub(super) async fn run_text(&mut self, statements: sqlx::SqlStr) -> sqlx::Result<()> {
        self.pg.execute(statements).await.map(drop)
    }

    /// Begins a transaction of several statements. `mode` is what SQL calls a transaction mode.
    pub(super) async fn begin(&mut self, mode: &str) -> sqlx::Result<()> {
        let settings = self.settings.as_deref().unwrap_or_default();
        self.pg
            .execute(AssertSqlSafe(format!("begin {mode};\n{settings}")))
            .await?;
        self.is_in_transaction = true;
        Ok(())
    }

    /// Ends it: `commit` or `rollback`.
    pub(super) async fn end(&mut self, how: &'static str) -> sqlx::Result<()> {
        self.is_in_transaction = false;
        self.pg.execute(how).await.map(drop)
    }

    /// Asks whether the server is still there.
    pub(super) async fn ping(&mut self) -> sqlx::Result<()> {
        self.pg.ping().await
    }
}

/// Opens a connection with the settings of its role: of several servers to the first that takes writes, from the one on that did so last.
/// Where none does, the error is that of the last.
pub(super) async fn connect(address: &Address, role: Role) -> Result<Session, StoreError> {
    let (count, first) = (address.servers.len(), address.writable.load(Ordering::Relaxed));
    let mut failed = None;
    for index in (first..first + count).map(|index| index % count) {
        match connect_to(address, &address.servers[index], role).await {
            Ok(session) => {
                address.writable.store(index, Ordering::Relaxed);
                return Ok(session);
            }
            // One that is there but takes no writes says more than one that is away.
            Err(error) => match &failed {
                Some(StoreError {
                    class: ErrorClass::ReadOnly,
                    ..
                }) => {}
                _ => failed = Some(error),
            },
        }
    }
    Err(failed.unwrap_or_else(closed))
}

async fn connect_to(address: &Address, server: &PgConnectOptions, role: Role) -> Result<Session, StoreError> {
    let options = server.clone().application_name(role.name());
    let is_shared = match tokio::time::timeout(SEARCH_TIMEOUT, address.is_shared(server)).await {
        Ok(found) => found.map_err(error::connecting)?,
        Err(_) => return Err(too_slow(SEARCH_TIMEOUT)),
    };
    let must_be_writable = address.servers.len() > 1;
    let connecting = async {
        let mut pg = PgConnection::connect_with(&options).await?;
        let settings = if is_shared {
            Some(local(role.settings()))
        } else {
            pg.execute(role.settings()).await?;
            None
        };
        let is_read_only = must_be_writable && pg.fetch_one(IS_READ_ONLY).await?.try_get(0)?;
        Ok((pg, settings, is_read_only))
    };
    let connected = match tokio::time::timeout(CONNECT_TIMEOUT, connecting).await {
        Ok(connected) => connected.map_err(error::connecting)?,
        Err(_) => return Err(too_slow(CONNECT_TIMEOUT)),
    };
    let (pg, settings, is_read_only) = connected;
    if is_read_only {
        return Err(error::read_only());
    }
    Ok(Session {
        pg,
        schema: address.schema.clone(),
        settings,
        is_in_transaction: false,
    })
}

fn too_slow(limit: Duration) -> StoreError {
    let message = format!("failed to connect to PostgreSQL within {limit:?}");
    StoreError::new(ErrorClass::NotSent, message)
}

/// Settings of a session as those of a transaction.
fn local(settings: &str) -> String {
    settings.replace("\nset ", "\nset local ")
}

/// An error for an invalid URL. The URL itself is not shown: it may contain a password.
pub(super) fn invalid_url(error: &sqlx::Error) -> StoreError {
    StoreError::new(ErrorClass::Configuration, format!("DATABASE_URL is invalid: {error}"))
}

/// The error of a call after the store was closed.
pub(super) fn closed() -> StoreError {
    StoreError::new(ErrorClass::NotSent, "the store is closed")
}

/// Runs a query within `limit`. `action` completes "failed to ...". After the limit the outcome is ambiguous, and the caller
/// must drop the connection.
pub(super) async fn bounded<T>(
    limit: Duration,
    action: &'static str,
    query: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, StoreError> {
    match tokio::time::timeout(limit, query).await {
        Ok(result) => result.map_err(error::failed_to(action)),
        Err(_) => Err(StoreError::new(
            ErrorClass::Ambiguous,
            format!("failed to {action}: no answer from PostgreSQL within {limit:?}"),
        )),
    }
}

/// Closes a connection with a farewell to the server. A failure does not matter: the socket is closed all the same.
pub(super) async fn close(session: Session) {
    if let Err(error) = bounded(CLOSE_TIMEOUT, "close a connection", session.pg.close()).await {
        tracing::debug!("{}", error.line());
    }
}
