//! What SQLite's errors mean for a group commit: the only table from result codes to [`ErrorClass`].
//!
//! Before the commit every error is definite: the transaction is rolled back, if need be by the next process that opens the
//! file ([`StoreError::before_sending`] gives unknown errors that meaning). Of the errors of the commit itself only few are
//! definite: after a failed write or sync the content of the disk is unknown.

use std::path::Path;

use rusqlite::ErrorCode;

use crate::store::{ErrorClass, StoreError};

/// Turns an error of a statement, other than a commit, into a [`StoreError`]. `action` completes "failed to ...".
pub(super) fn failed_to(action: &'static str) -> impl Fn(rusqlite::Error) -> StoreError {
    move |error| StoreError::new(classify(&error), format!("failed to {action}")).with_source(cause(&error))
}

/// Turns an error of a commit into a [`StoreError`].
pub(super) fn committing(error: rusqlite::Error) -> StoreError {
    let class = match code(&error) {
        // The frame of the commit is the last one, so a write that ran out of space did not commit.
        Some(ErrorCode::DiskFull | ErrorCode::DatabaseBusy | ErrorCode::ReadOnly | ErrorCode::ConstraintViolation) => {
            classify(&error)
        }
        _ => ErrorClass::Ambiguous,
    };
    StoreError::new(class, "failed to commit").with_source(cause(&error))
}

/// Turns an error of opening the file into a [`StoreError`].
pub(super) fn opening(path: &Path, error: rusqlite::Error) -> StoreError {
    let (class, what) = match code(&error) {
        Some(ErrorCode::CannotOpen) => (
            ErrorClass::Configuration,
            "check that this user may write to it and to its folder",
        ),
        Some(ErrorCode::NotADatabase) => (ErrorClass::Configuration, "it is not a SQLite database"),
        _ => (classify(&error), "trying again may help"),
    };
    StoreError::new(class, format!("cannot open {} ({what})", path.display())).with_source(cause(&error))
}

fn code(error: &rusqlite::Error) -> Option<ErrorCode> {
    error.sqlite_error_code()
}

/// The message of SQLite, without the words that rusqlite adds and without the statement.
fn cause(error: &rusqlite::Error) -> String {
    match error {
        rusqlite::Error::SqliteFailure(failure, message) => {
            let message = message.clone().unwrap_or_else(|| failure.to_string());
            format!("{message} (SQLite {})", failure.extended_code)
        }
        rusqlite::Error::SqlInputError { error, msg, .. } => format!("{msg} (SQLite {})", error.extended_code),
        other => other.to_string(),
    }
}

fn classify(error: &rusqlite::Error) -> ErrorClass {
    let text = cause(error);
    match code(error) {
        Some(ErrorCode::ConstraintViolation | ErrorCode::TypeMismatch | ErrorCode::TooBig) => ErrorClass::Data,
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked | ErrorCode::OperationInterrupted) => {
            ErrorClass::Contention
        }
        Some(ErrorCode::DiskFull | ErrorCode::OutOfMemory | ErrorCode::SystemIoFailure | ErrorCode::CannotOpen) => {
            ErrorClass::Resources
        }
        Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => ErrorClass::ReadOnly,
        Some(ErrorCode::NotADatabase) => ErrorClass::Configuration,
        Some(ErrorCode::SchemaChanged) => ErrorClass::StalePlan,
        // SQLITE_ERROR: a table or a column is missing, or exists already. The statements are fixed, so the schema is wrong.
        Some(ErrorCode::Unknown)
            if ["no such ", "already exists", "has no column"]
                .iter()
                .any(|words| text.contains(words)) =>
        {
            ErrorClass::Configuration
        }
        _ => ErrorClass::Unexpected,
    }
}

#[cfg(test)]
mod tests {
    use rusqlite::ffi;

    use super::*;

    fn failure(code: i32) -> rusqlite::Error {
        rusqlite::Error::SqliteFailure(ffi::Error::new(code), None)
    }

    #[test]
    fn every_result_code_has_its_class() {
        let table = [
            (
                ErrorClass::Data,
                vec![
                    ffi::SQLITE_CONSTRAINT,
                    ffi::SQLITE_CONSTRAINT_TRIGGER,
                    ffi::SQLITE_MISMATCH,
                    ffi::SQLITE_TOOBIG,
                ],
            ),
            (
                ErrorClass::Contention,
                vec![
                    ffi::SQLITE_BUSY,
                    ffi::SQLITE_BUSY_SNAPSHOT,
                    ffi::SQLITE_LOCKED,
                    ffi::SQLITE_INTERRUPT,
                ],
            ),
            (
                ErrorClass::Resources,
                vec![
                    ffi::SQLITE_FULL,
                    ffi::SQLITE_NOMEM,
                    ffi::SQLITE_IOERR_WRITE,
                    ffi::SQLITE_IOERR_SHMSIZE,
                    ffi::SQLITE_CANTOPEN,
                ],
            ),
            (
                ErrorClass::ReadOnly,
                vec![ffi::SQLITE_READONLY, ffi::SQLITE_READONLY_DBMOVED, ffi::SQLITE_PERM],
            ),
            (ErrorClass::Configuration, vec![ffi::SQLITE_NOTADB]),
            (ErrorClass::StalePlan, vec![ffi::SQLITE_SCHEMA]),
            (
                ErrorClass::Unexpected,
                vec![ffi::SQLITE_CORRUPT, ffi::SQLITE_ERROR, ffi::SQLITE_MISUSE],
            ),
        ];
        for (class, codes) in table {
            for code in codes {
                assert_eq!(failed_to("test")(failure(code)).class, class, "{code}");
            }
        }
    }

    #[test]
    fn commit_is_ambiguous_unless_disk_is_full() {
        for code in [ffi::SQLITE_IOERR_WRITE, ffi::SQLITE_IOERR_FSYNC, ffi::SQLITE_NOMEM] {
            assert_eq!(committing(failure(code)).class, ErrorClass::Ambiguous);
            assert_eq!(failed_to("write")(failure(code)).class, ErrorClass::Resources);
        }
        assert_eq!(committing(failure(ffi::SQLITE_FULL)).class, ErrorClass::Resources);
        assert_eq!(committing(failure(ffi::SQLITE_BUSY)).class, ErrorClass::Contention);
    }

    #[test]
    fn unusable_file_is_a_configuration_error() {
        let path = Path::new("data/eventsieve.db");
        for code in [ffi::SQLITE_CANTOPEN, ffi::SQLITE_NOTADB] {
            let error = opening(path, failure(code));
            assert_eq!(error.class, ErrorClass::Configuration);
            assert!(error.line().contains("data/eventsieve.db"), "{}", error.line());
        }
        assert_eq!(opening(path, failure(ffi::SQLITE_IOERR)).class, ErrorClass::Resources);
    }
}
