//! The schema of the database: its migrations, and whether the database is new enough and able to store every event.

use std::sync::LazyLock;

use sqlx::SqlSafeStr;
use sqlx::migrate::{MigrateError, Migration, MigrationType, Migrator};
use sqlx::postgres::PgConnection;

use super::error::{connecting, failed_to, sqlstate};
use crate::store::{ErrorClass, StoreError};

/// The migrations in `migrations/postgres`, by version. Listed by hand: sqlx's macro for it needs a third of sqlx.
static MIGRATIONS: LazyLock<Migrator> = LazyLock::new(|| {
    let migrations = MIGRATION_FILES.into_iter().map(|(version, name, sql)| {
        Migration::new(version, name.into(), MigrationType::Simple, sql.into_sql_str(), false)
    });
    Migrator::with_migrations(migrations.collect())
});

const MIGRATION_FILES: [(i64, &str, &str); 4] = [
    (1, "log", include_str!("../../../migrations/postgres/0001_log.sql")),
    (
        2,
        "append v1",
        include_str!("../../../migrations/postgres/0002_append_v1.sql"),
    ),
    (
        3,
        "parked",
        include_str!("../../../migrations/postgres/0003_parked.sql"),
    ),
    (
        4,
        "append v2",
        include_str!("../../../migrations/postgres/0004_append_v2.sql"),
    ),
];

/// The versions of the applied migrations.
const APPLIED: &str = "select version from _sqlx_migrations where success";

/// The encoding of the database's text.
const ENCODING: &str = "select current_setting('server_encoding')";

/// Applies the missing migrations, and returns the version that this program has.
pub(super) async fn migrate(pg: &mut PgConnection) -> Result<i64, StoreError> {
    check_encoding(pg).await?;
    // `run` is not usable in a boxed future (its bound on the connection is not general enough); this is its inside.
    MIGRATIONS.run_direct(None, pg, false).await.or_else(accept_newer)?;
    Ok(newest_migration())
}

/// Fails as [`ErrorClass::Configuration`] when the schema is older than this program's.
pub(super) async fn check(pg: &mut PgConnection) -> Result<(), StoreError> {
    check_encoding(pg).await?;
    let applied: Vec<i64> = match sqlx::query_scalar(APPLIED).fetch_all(pg).await {
        Ok(versions) => versions,
        Err(error) if sqlstate(&error) == "42P01" => Vec::new(),
        Err(error) => return Err(failed_to("read the version of the schema")(error)),
    };
    if MIGRATIONS.iter().all(|migration| applied.contains(&migration.version)) {
        return Ok(());
    }
    let message = format!(
        "the schema of the database is older than this program's (version {}): run `eventsieve migrate`, or start without --no-migrate",
        newest_migration()
    );
    Err(StoreError::new(ErrorClass::Configuration, message))
}

/// Fails on a database that cannot hold every character: it would reject events that clients may publish.
async fn check_encoding(pg: &mut PgConnection) -> Result<(), StoreError> {
    let encoding: String = sqlx::query_scalar(ENCODING).fetch_one(pg).await.map_err(connecting)?;
    if encoding == "UTF8" {
        return Ok(());
    }
    let message =
        format!("the encoding of the database is {encoding}: create it with encoding 'UTF8' template template0");
    Err(StoreError::new(ErrorClass::Configuration, message))
}

/// Accepts a migration that this program does not know: a newer program has applied it. Migrations only add (a changed
/// function gets a new name), so an older replica may start beside it. A roll-back needs that.
fn accept_newer(error: MigrateError) -> Result<(), StoreError> {
    match error {
        MigrateError::VersionMissing(version) => {
            tracing::warn!(
                schema.version = version,
                "the schema was created by a newer version of eventsieve, continuing: newer versions only add to it"
            );
            Ok(())
        }
        MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => {
            let mut error = failed_to("migrate the schema")(error);
            if matches!(
                error.class,
                ErrorClass::Unexpected | ErrorClass::Data | ErrorClass::LostRace
            ) {
                // The statements are ours and fixed, so the conflict is with what was there before.
                error.class = ErrorClass::Configuration;
            }
            Err(error)
        }
        other => {
            let error = StoreError::new(
                ErrorClass::Configuration,
                "the schema does not match this version of eventsieve: set DATABASE_URL to another database, or use the version that created it",
            );
            Err(error.with_source(other))
        }
    }
}

fn newest_migration() -> i64 {
    MIGRATIONS.iter().map(|migration| migration.version).max().unwrap_or(0)
}
