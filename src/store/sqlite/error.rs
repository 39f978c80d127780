//! What SQLite's errors mean for a flush: the one table from result codes to [`ErrorClass`].
//!
//! Before the commit every error is definite: the transaction is rolled back, if need be by the next process that opens the
//! file ([`StoreError::before_sending`] says so of those that nobody knows). Of the commit itself only few are: what is on disk
//! when a write or a sync has failed is found out after a crash.

use std::path::Path;

use rusqlite::ErrorCode;

use crate::store::{ErrorClass, StoreError};

/// Turns an error of a statement, other than a commit, into a [`StoreError`].
pub(super) fn during(what: &'static str) -> impl Fn(rusqlite::Error) -> StoreError {
    move |error| StoreError::new(classify(&error), what).with_source(cause(&error))
}

/// Turns an error of a commit into a [`StoreError`].
pub(super) fn committing(error: rusqlite::Error) -> StoreError {
    let class = match code(&error) {
        // No frame follows that of the commit, so a write that found no room has left the commit out.
        Some(ErrorCode::DiskFull | ErrorCode::DatabaseBusy | ErrorCode::ReadOnly | ErrorCode::ConstraintViolation) => {
            classify(&error)
        }
        _ => ErrorClass::Ambiguous,
    };
    StoreError::new(class, "committing").with_source(cause(&error))
}

/// Turns an error of opening the file into a [`StoreError`].
pub(super) fn opening(path: &Path, error: rusqlite::Error) -> StoreError {
    let (class, what) = match code(&error) {
        Some(ErrorCode::CannotOpen) => (
            ErrorClass::Configuration,
            "may this user write to it and to its folder?",
        ),
        Some(ErrorCode::NotADatabase) => (ErrorClass::Configuration, "it is something else than a SQLite database"),
        _ => (classify(&error), "trying again may help"),
    };
    StoreError::new(class, format!("cannot open {} ({what})", path.display())).with_source(cause(&error))
}

fn code(error: &rusqlite::Error) -> Option<ErrorCode> {
    error.sqlite_error_code()
}

/// What SQLite said, without the words that rusqlite puts around it and without the statement.
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
        // SQLITE_ERROR: a table or a column that is not there, or is there already. Our statements are fixed, so what does
        // not fit is the schema.
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
    fn every_result_code_of_the_table_has_its_class() {
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
                assert_eq!(during("testing")(failure(code)).class, class, "{code}");
            }
        }
    }

    #[test]
    fn only_a_commit_is_ambiguous_and_not_when_the_disk_was_full() {
        for code in [ffi::SQLITE_IOERR_WRITE, ffi::SQLITE_IOERR_FSYNC, ffi::SQLITE_NOMEM] {
            assert_eq!(committing(failure(code)).class, ErrorClass::Ambiguous);
            assert_eq!(during("writing")(failure(code)).class, ErrorClass::Resources);
        }
        assert_eq!(committing(failure(ffi::SQLITE_FULL)).class, ErrorClass::Resources);
        assert_eq!(committing(failure(ffi::SQLITE_BUSY)).class, ErrorClass::Contention);
    }

    #[test]
    fn a_file_that_cannot_be_opened_is_for_people_to_mend() {
        let path = Path::new("data/eventsieve.db");
        for code in [ffi::SQLITE_CANTOPEN, ffi::SQLITE_NOTADB] {
            let error = opening(path, failure(code));
            assert_eq!(error.class, ErrorClass::Configuration);
            assert!(error.line().contains("data/eventsieve.db"), "{}", error.line());
        }
        assert_eq!(opening(path, failure(ffi::SQLITE_IOERR)).class, ErrorClass::Resources);
    }
}
