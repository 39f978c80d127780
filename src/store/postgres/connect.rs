//! Connections: how they are opened, bounded, and shared by readers.

use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{ConnectOptions, Connection, Executor};
use tokio::sync::Semaphore;

use super::error;
use crate::store::{ErrorClass, StoreError};

/// How long opening a connection may take, the handshake included: less than a read may, so that a store that does not answer
/// is not taken for a slow query.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// How many reads run at once; more wait for their turn.
const READERS_MAX: usize = 8;

/// What a connection is for. Its name is seen in `pg_stat_activity.application_name`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// Flushes of one writer.
    Writer,
    /// `/events` and `/stats`.
    Reader,
    /// Health.
    Probe,
    /// Removing old events, beside the service.
    Pruner,
    /// The outbox: claims, marks, what is parked.
    Relay,
    /// Migrations and recounts, which may take long.
    Admin,
}

/// A server that lost its client (cut off, not closed) must not go on for it: it looks at the socket each second.
macro_rules! everybody {
    () => {
        "set client_connection_check_interval = '1s'; set idle_in_transaction_session_timeout = '10s';"
    };
}
impl Role {
    fn name(self) -> &'static str {
        match self {
            Role::Writer => "eventsieve writer",
            Role::Reader => "eventsieve reader",
            Role::Probe => "eventsieve probe",
            Role::Pruner => "eventsieve prune",
            Role::Relay => "eventsieve relay",
            Role::Admin => "eventsieve",
        }
    }

    /// The session's settings, as statements and not as start-up options, which a pooler in between may refuse.
    fn settings(self) -> &'static str {
        match self {
            // A flush that waits for another's key, or for a lock of somebody's DDL, gives way before the request's
            // deadline. A large batch must not spill its arrays to disk. READ COMMITTED whatever the database's default
            // is: the flush needs a fresh snapshot for each of its queries.
            Role::Writer => concat!(
                everybody!(),
                "set lock_timeout = '3s'; set statement_timeout = '10s'; set work_mem = '32MB';
                 set default_transaction_isolation = 'read committed';"
            ),
            Role::Reader => concat!(everybody!(), "set statement_timeout = '5s';"),
            Role::Probe => concat!(everybody!(), "set statement_timeout = '2s';"),
            // A step is short; what holds it up is somebody else's lock, and the step is taken again.
            Role::Pruner => concat!(
                everybody!(),
                "set lock_timeout = '3s'; set statement_timeout = '60s';
                 set default_transaction_isolation = 'read committed';"
            ),
            // A claim or a mark that is lost in a crash of the server only means that a batch is published again, so no
            // commit waits for the disk (what must be durable says so itself). Nobody holds a lock for long that the relay
            // wants: one that lasts is given up and asked for again.
            Role::Relay => concat!(
                everybody!(),
                "set synchronous_commit = off; set lock_timeout = '1s'; set statement_timeout = '5s';
                 set default_transaction_isolation = 'read committed';"
            ),
            Role::Admin => concat!(everybody!(), "set lock_timeout = 0; set statement_timeout = 0;"),
        }
    }
}

/// Opens a connection with the settings of its role.
pub(super) async fn connect(options: &PgConnectOptions, role: Role) -> Result<PgConnection, StoreError> {
    let options = options
        .clone()
        .application_name(role.name())
        .disable_statement_logging();
    let connecting = async {
        let mut pg = PgConnection::connect_with(&options).await?;
        pg.execute(role.settings()).await?;
        Ok(pg)
    };
    match tokio::time::timeout(CONNECT_TIMEOUT, connecting).await {
        Ok(connected) => connected.map_err(error::connecting),
        Err(_) => Err(StoreError::new(
            ErrorClass::NotSent,
            "connecting to PostgreSQL took too long",
        )),
    }
}

/// An error for a URL that is not understood. The URL itself is not shown: it may hold a password.
pub(super) fn invalid_url(error: &sqlx::Error) -> StoreError {
    StoreError::new(
        ErrorClass::Configuration,
        format!("DATABASE_URL is not understood: {error}"),
    )
}

/// An error for a call of a store that was closed.
pub(super) fn closed() -> StoreError {
    StoreError::new(ErrorClass::NotSent, "the store is closed")
}

/// Runs a query within `limit`; longer is ambiguous, and the caller drops the connection.
pub(super) async fn bounded<T>(
    limit: Duration,
    what: &'static str,
    query: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, StoreError> {
    match tokio::time::timeout(limit, query).await {
        Ok(result) => result.map_err(error::during(what)),
        Err(_) => Err(StoreError::new(
            ErrorClass::Ambiguous,
            format!("{what}: no answer from PostgreSQL in {limit:?}"),
        )),
    }
}

/// The connections that reads share. One is idle here, or owned by the read that uses it: a read that fails, is cancelled
/// or takes too long takes its connection with it.
pub(super) struct Readers {
    options: PgConnectOptions,
    turns: Semaphore,
    idle: std::sync::Mutex<Vec<PgConnection>>,
}

impl Readers {
    pub(super) fn new(options: PgConnectOptions) -> Self {
        Self {
            options,
            turns: Semaphore::new(READERS_MAX),
            idle: std::sync::Mutex::default(),
        }
    }

    /// Runs one read within `limit`, waiting for a turn included. The read owns its connection and gives it back when all is
    /// well. A connection that had been idle may have died meanwhile: then all idle ones are dropped and the read is made
    /// once more on a new one.
    pub(super) async fn run<T, F, R>(&self, limit: Duration, read: F) -> Result<T, StoreError>
    where
        F: Fn(PgConnection) -> R,
        R: Future<Output = Result<(PgConnection, T), StoreError>>,
    {
        let attempt = async {
            let _turn = self.turns.acquire().await.map_err(|_| closed())?;
            let idle = self.lock().pop();
            if let Some(pg) = idle {
                match read(pg).await {
                    Err(error) if error.class.breaks_connection() => self.lock().clear(),
                    result => return self.keep(result),
                }
            }
            let pg = connect(&self.options, Role::Reader).await?;
            self.keep(read(pg).await)
        };
        tokio::time::timeout(limit, attempt).await.unwrap_or_else(|_| {
            // A slow query, or a network that swallows everything: then the idle connections are dead as well.
            self.lock().clear();
            Err(StoreError::new(ErrorClass::Contention, "the read took too long"))
        })
    }

    pub(super) fn is_closed(&self) -> bool {
        self.turns.is_closed()
    }

    pub(super) async fn close(&self) {
        self.turns.close();
        let idle = std::mem::take(&mut *self.lock());
        for pg in idle {
            super::close(pg).await;
        }
    }

    fn keep<T>(&self, result: Result<(PgConnection, T), StoreError>) -> Result<T, StoreError> {
        let (pg, read) = result?;
        let mut idle = self.lock();
        // A read that was under way when the store was closed must not leave its connection behind.
        if !self.is_closed() {
            idle.push(pg);
        }
        Ok(read)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<PgConnection>> {
        self.idle
            .lock()
            .expect("nothing panics while it holds the idle connections")
    }
}
