//! Connections: how they are opened, used within a time limit, and closed.

use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{ConnectOptions, Connection, Executor};

use super::error;
use crate::store::{ErrorClass, StoreError};

/// How long opening a connection may take, the handshake included: less than a read may take, so that a server that does not
/// answer is not mistaken for a slow query.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

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
    /// Removing old events, beside the service.
    Pruner,
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
            Role::Pruner => "eventsieve prune",
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
            Role::Pruner => include_str!("sql/session_pruner.sql"),
            Role::Relay => include_str!("sql/session_relay.sql"),
            Role::Admin => include_str!("sql/session_admin.sql"),
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
            format!("failed to connect to PostgreSQL within {CONNECT_TIMEOUT:?}"),
        )),
    }
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
pub(super) async fn close(pg: PgConnection) {
    if let Err(error) = bounded(CLOSE_TIMEOUT, "close a connection", pg.close()).await {
        tracing::debug!("{}", error.line());
    }
}
