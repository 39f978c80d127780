//! What PostgreSQL's errors mean for a group commit: the only table from SQLSTATE to [`ErrorClass`].

use crate::store::{ErrorClass, StoreError};

/// The SQLSTATE of an error; empty when the server did not send the error.
pub(super) fn sqlstate(error: &sqlx::Error) -> String {
    error
        .as_database_error()
        .and_then(|error| error.code())
        .unwrap_or_default()
        .into_owned()
}

/// Turns an error of a statement that was sent into a [`StoreError`]. `action` completes "failed to ...".
pub(super) fn failed_to(action: &'static str) -> impl Fn(sqlx::Error) -> StoreError {
    move |error| {
        let class = match &error {
            // A check without a name is that of a partitioned table: this session does not know the partition yet.
            sqlx::Error::Database(database) if database.is_check_violation() && database.constraint().is_none() => {
                ErrorClass::Contention
            }
            sqlx::Error::Database(database) => classify(&database.code().unwrap_or_default(), database.message()),
            sqlx::Error::Io(_) | sqlx::Error::Tls(_) | sqlx::Error::Protocol(_) => ErrorClass::Ambiguous,
            _ => ErrorClass::Unexpected,
        };
        StoreError::new(class, format!("failed to {action}")).with_source(cause(error))
    }
}

/// The message of the server, without the words that sqlx adds.
fn cause(error: sqlx::Error) -> Box<dyn std::error::Error + Send + Sync> {
    match error {
        sqlx::Error::Database(database) => {
            let code = database.code().unwrap_or_default().into_owned();
            format!("{} (SQLSTATE {code})", database.message()).into()
        }
        other => other.into(),
    }
}

/// Turns an error of opening a connection into a [`StoreError`]: no statement was sent yet, so nothing is ambiguous.
pub(super) fn connecting(error: sqlx::Error) -> StoreError {
    let code = sqlstate(&error);
    let class = match &error {
        sqlx::Error::Database(database) => match classify(&code, database.message()) {
            ErrorClass::Ambiguous => ErrorClass::NotSent,
            // An unknown setting: the server is older than PostgreSQL 14.
            ErrorClass::Unexpected | ErrorClass::Data if code.starts_with("42") || code.starts_with("22") => {
                ErrorClass::Configuration
            }
            ErrorClass::Unexpected => ErrorClass::NotSent,
            class => class,
        },
        sqlx::Error::Configuration(_) => ErrorClass::Configuration,
        _ => ErrorClass::NotSent,
    };
    let what = match code.as_str() {
        "28P01" | "28000" => "failed to connect to PostgreSQL (check the user and the password in DATABASE_URL)",
        "3D000" => "failed to connect to PostgreSQL (create the database first, or correct DATABASE_URL)",
        "42704" => "failed to connect to PostgreSQL (version 14 or later is required)",
        _ => "failed to connect to PostgreSQL",
    };
    StoreError::new(class, what).with_source(cause(error))
}

/// An answer that does not fit the schema.
pub(super) fn decoding(error: sqlx::Error) -> StoreError {
    StoreError::new(ErrorClass::Unexpected, "failed to read the answer of PostgreSQL").with_source(error)
}

/// The error of a server that takes no writes.
pub(super) fn read_only() -> StoreError {
    let message = "the server is read-only (a standby, or set read-only)";
    StoreError::new(ErrorClass::ReadOnly, message)
}

/// The class of a SQLSTATE. The codes are those of the PostgreSQL documentation, appendix A.
pub(super) fn classify(code: &str, message: &str) -> ErrorClass {
    match code {
        "23502" | "23514" | "54000" | "54001" | "21000" => ErrorClass::Data,
        "23505" => ErrorClass::LostRace,
        "40001" | "40P01" | "55P03" | "57014" => ErrorClass::Contention,
        "53100" | "53200" | "53300" | "53400" => ErrorClass::Resources,
        "25006" => ErrorClass::ReadOnly,
        "57P01" | "57P02" | "57P05" => ErrorClass::Ambiguous,
        "57P03" => ErrorClass::NotSent,
        "26000" | "42P05" => ErrorClass::StalePlan,
        "0A000" if message.contains("cached plan") => ErrorClass::StalePlan,
        "28P01" | "28000" | "3D000" | "3F000" | "42501" | "42P01" | "42703" | "42883" => ErrorClass::Configuration,
        _ if code.starts_with("22") => ErrorClass::Data,
        _ if code.starts_with("08") => ErrorClass::Ambiguous,
        _ => ErrorClass::Unexpected,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_sqlstate_has_its_class() {
        let table = [
            (
                ErrorClass::Data,
                "22P05 22P02 22003 22021 22008 23502 23514 54000 54001 21000",
            ),
            (ErrorClass::LostRace, "23505"),
            (ErrorClass::Contention, "40001 40P01 55P03 57014"),
            (ErrorClass::Resources, "53100 53200 53300 53400"),
            (ErrorClass::ReadOnly, "25006"),
            (ErrorClass::Ambiguous, "57P01 57P02 57P05 08000 08003 08006 08007"),
            (ErrorClass::NotSent, "57P03"),
            (ErrorClass::StalePlan, "26000 42P05"),
            (
                ErrorClass::Configuration,
                "28P01 28000 3D000 3F000 42501 42P01 42703 42883",
            ),
            (ErrorClass::Unexpected, "58030 XX000 0A000 25P02 42601"),
        ];
        for (class, codes) in table {
            for code in codes.split(' ') {
                assert_eq!(classify(code, "something"), class, "{code}");
            }
        }
        assert_eq!(
            classify("0A000", "cached plan must not change result type"),
            ErrorClass::StalePlan
        );
    }

    #[test]
    fn lost_connection_is_ambiguous_only_after_a_statement() {
        let lost = || sqlx::Error::Io(std::io::ErrorKind::ConnectionReset.into());
        assert_eq!(failed_to("commit a batch")(lost()).class, ErrorClass::Ambiguous);
        assert_eq!(connecting(lost()).class, ErrorClass::NotSent);
    }
}
