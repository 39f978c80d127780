//! The schema of the file: its migrations, and whether the file is ours, new enough, and durable.
//!
//! Not `rusqlite_migration`: it reads the version before its transaction, so that two processes could apply a migration twice, and
//! it rejects a newer schema.

use std::time::{Duration, Instant};

use rusqlite::{Connection, ErrorCode, TransactionBehavior};

use super::connect::Link;
use super::error::failed_to;
use crate::store::{ErrorClass, StoreError};

/// The migrations; the `user_version` of a file is [`RELEASED`] and the number of those applied.
const MIGRATIONS: [&str; 2] = [
    include_str!("../../../migrations/sqlite/0001_log.sql"),
    include_str!("../../../migrations/sqlite/0002_access.sql"),
];

/// The versions up to this one were made before the first release, and cannot be read.
const RELEASED: i64 = 4;

/// The `application_id` of our files: "evsv".
const APPLICATION_ID: i64 = 0x6576_7376;

/// The owner of the file, the version of its schema, and how much is in it. One statement, because another process may be
/// migrating the file at the same time.
const IDENTITY: &str = "
    select (select application_id from pragma_application_id), (select user_version from pragma_user_version),
           (select count(*) from sqlite_schema)";

/// How long a change to WAL mode is retried while other processes have the file open, and how often.
const WAL_TIMEOUT: Duration = Duration::from_secs(10);
const WAL_RETRY: Duration = Duration::from_millis(5);

/// Applies the missing migrations in one transaction. Several processes may do so at once: they wait for each other. A schema
/// that a newer program has made stays as it is, because migrations only add.
pub(super) fn migrate(link: &mut Link) -> Result<i64, StoreError> {
    let failed = || failed_to("migrate the schema");
    // Checked before anything is changed: the file may belong to another program or be read-only.
    version(&link.connection)?;
    link.check_writable()
        .map_err(|error| error.as_class(ErrorClass::Configuration))?;
    // Takes effect only in a file without tables: expired events give their space back in steps.
    link.connection
        .pragma_update(None, "auto_vacuum", "incremental")
        .map_err(failed())?;
    let mode = set_wal(&link.connection).map_err(failed())?;
    if mode != "wal" {
        let message = format!(
            "{} cannot have a write-ahead log (its journal mode stays {mode}): check that it is not on a network file system",
            link.file.path().display()
        );
        return Err(StoreError::new(ErrorClass::Configuration, message));
    }
    let transaction = link
        .connection
        .transaction_with_behavior(TransactionBehavior::Immediate)
        .map_err(failed())?;
    let version = version(&transaction)?;
    let known = newest_migration();
    if version > known {
        tracing::warn!(
            schema.version = version,
            "the schema was created by a newer version of eventsieve, continuing: newer versions only add to it"
        );
    }
    let applied = usize::try_from(version - RELEASED).unwrap_or(0);
    for migration in MIGRATIONS.iter().skip(applied) {
        transaction.execute_batch(migration).map_err(failed())?;
    }
    if version < known {
        transaction
            .pragma_update(None, "application_id", APPLICATION_ID)
            .and_then(|()| transaction.pragma_update(None, "user_version", known))
            .map_err(failed())?;
    }
    transaction.commit().map_err(failed())?;
    Ok(known)
}

/// Puts the file into WAL mode, which is stored in the file, and returns its mode. The change needs an exclusive lock, and SQLite
/// does not wait for that (it does not call its busy handler when a lock is upgraded).
#[expect(
    clippy::disallowed_methods,
    reason = "this thread may block, and no notification exists to wait for"
)]
fn set_wal(connection: &Connection) -> rusqlite::Result<String> {
    let deadline = Instant::now() + WAL_TIMEOUT;
    loop {
        match connection.query_row("pragma journal_mode = wal", [], |row| row.get(0)) {
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) && Instant::now() < deadline => {
                std::thread::sleep(WAL_RETRY);
            }
            result => return result,
        }
    }
}

/// The version of the file's schema; 0 for an empty file. Fails for a file of another program.
fn version(connection: &Connection) -> Result<i64, StoreError> {
    let read = connection.query_row(IDENTITY, [], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)));
    match read.map_err(failed_to("read the version of the schema"))? {
        (APPLICATION_ID, 1..=RELEASED, _) => {
            let message = format!(
                "{} holds a log of an eventsieve from before its first release, which this version cannot read: set DATABASE_URL to another file",
                connection.path().unwrap_or("the file")
            );
            Err(StoreError::new(ErrorClass::Configuration, message))
        }
        (APPLICATION_ID, version, _) => Ok(version),
        (0, 0, 0_i64) => Ok(0),
        _ => {
            let message = format!(
                "{} is the database of another program: set DATABASE_URL to another file",
                connection.path().unwrap_or("the file")
            );
            Err(StoreError::new(ErrorClass::Configuration, message))
        }
    }
}

/// Fails as [`ErrorClass::Configuration`] when the schema is older than this program's.
pub(super) fn check(connection: &Connection) -> Result<(), StoreError> {
    let known = newest_migration();
    if version(connection)? >= known {
        return Ok(());
    }
    let message = format!(
        "the schema of the store is older than this program's (version {known}): run `eventsieve migrate`, or start without --no-migrate"
    );
    Err(StoreError::new(ErrorClass::Configuration, message))
}

/// Fails for a connection whose commits would not be on disk when they return.
pub(super) fn check_durable(link: &Link) -> Result<(), StoreError> {
    let read = || {
        let mode: String = link.connection.query_row("pragma journal_mode", [], |row| row.get(0))?;
        let synchronous: i64 = link.connection.query_row("pragma synchronous", [], |row| row.get(0))?;
        Ok(mode == "wal" && synchronous == 2)
    };
    if read().map_err(failed_to("read the settings of the file"))? {
        return Ok(());
    }
    let message = format!(
        "{} is no longer in WAL mode: run `eventsieve migrate`, which sets it again",
        link.file.path().display()
    );
    Err(StoreError::new(ErrorClass::Configuration, message))
}

fn newest_migration() -> i64 {
    RELEASED + i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use super::*;

    fn migrations(dialect: &str) -> Vec<PathBuf> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations").join(dialect);
        let mut files: Vec<_> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        files.sort();
        files
    }

    #[test]
    fn both_dialects_have_the_same_migrations() {
        let names = |dialect| -> Vec<_> {
            let files = migrations(dialect).into_iter();
            files.map(|path| path.file_name().unwrap().to_owned()).collect()
        };
        assert_eq!(names("sqlite"), names("postgres"));
        let texts: Vec<_> = migrations("sqlite")
            .iter()
            .map(|path| std::fs::read_to_string(path).unwrap())
            .collect();
        assert_eq!(texts, MIGRATIONS);
    }
}
