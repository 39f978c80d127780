//! The schema of the database: its migrations, and whether the database is new enough and able to store every event.

use std::sync::LazyLock;

use sqlx::migrate::{MigrateError, Migration, MigrationType, Migrator};
use sqlx::postgres::PgConnection;
use sqlx::{Executor, SqlSafeStr};

use super::error::{connecting, failed_to, sqlstate};
use crate::store::{ErrorClass, StoreError};

/// The migrations in `migrations/postgres`, by version. Listed by hand: sqlx's macro for it needs a third of sqlx. They are recorded
/// in a table of the service's own schema: a database that is shared with another program may have a `_sqlx_migrations`.
static MIGRATIONS: LazyLock<Migrator> = LazyLock::new(|| {
    let migrations = MIGRATION_FILES.into_iter().map(|(version, name, sql)| {
        Migration::new(version, name.into(), MigrationType::Simple, sql.into_sql_str(), false)
    });
    let mut migrator = Migrator::with_migrations(migrations.collect());
    migrator.dangerous_set_table_name("eventsieve.migrations");
    migrator
});

const MIGRATION_FILES: [(i64, &str, &str); 1] = [(1, "log", include_str!("../../../migrations/postgres/0001_log.sql"))];

/// Creates the schema. Not `if not exists`, which asks for the right to create one also where it exists.
const CREATE_SCHEMA: &str = "do $$ begin
    if to_regnamespace('eventsieve') is null then create schema eventsieve; end if;
exception when duplicate_schema or unique_violation then null;
end $$";

/// Whether the database holds a log that was made before the first release.
const HAS_OLD_LOG: &str = "select exists (
    select from pg_attribute where attrelid = to_regclass('public.log') and attname = 'xid_offset'
)";

/// The versions of the applied migrations.
const APPLIED: &str = "select version from eventsieve.migrations where success";

/// What the newest migration has made, by which the schema is recognized.
const MISSING: &str = "select name from unnest(array[
    'log', 'gaps', 'events', 'batches', 'topic_counts', 'parked', 'log_end'
]) as name where to_regclass('eventsieve.' || name) is null";

/// Begins the numbering of batches anew if the server was started since it was done last. Returns whether it was.
pub(super) const RAISE_NUMBERS: &str = "select eventsieve.raise_numbers()";

/// The encoding of the database's text.
const ENCODING: &str = "select current_setting('server_encoding')";

/// Applies the missing migrations, and returns the version that this program has.
pub(super) async fn migrate(pg: &mut PgConnection) -> Result<i64, StoreError> {
    check_encoding(pg).await?;
    let has_old_log: bool = sqlx::query_scalar(HAS_OLD_LOG)
        .fetch_one(&mut *pg)
        .await
        .map_err(connecting)?;
    if has_old_log {
        let message = "the database holds a log of an eventsieve from before its first release, which this version cannot read: set DATABASE_URL to another database";
        return Err(StoreError::new(ErrorClass::Configuration, message));
    }
    pg.execute(CREATE_SCHEMA)
        .await
        .map_err(failed_to("create the schema eventsieve"))?;
    // `run` is not usable in a boxed future (its bound on the connection is not general enough); this is its inside.
    MIGRATIONS.run_direct(None, pg, false).await.or_else(accept_newer)?;
    check(pg).await?;
    Ok(newest_migration())
}

/// Fails as [`ErrorClass::Configuration`] when the schema is older than this program's.
pub(super) async fn check(pg: &mut PgConnection) -> Result<(), StoreError> {
    check_encoding(pg).await?;
    let applied: Vec<i64> = match sqlx::query_scalar(APPLIED).fetch_all(&mut *pg).await {
        Ok(versions) => versions,
        Err(error) if sqlstate(&error) == "42P01" => Vec::new(),
        Err(error) => return Err(failed_to("read the version of the schema")(error)),
    };
    if MIGRATIONS.iter().all(|migration| applied.contains(&migration.version)) {
        let missing: Vec<String> = sqlx::query_scalar(MISSING)
            .fetch_all(pg)
            .await
            .map_err(failed_to("check the schema"))?;
        let Some(name) = missing.first() else { return Ok(()) };
        let message = format!(
            "the schema of the database is damaged: eventsieve.{name} is missing although its migration was applied: restore the database from a backup"
        );
        return Err(StoreError::new(ErrorClass::Configuration, message));
    }
    let message = format!(
        "the schema of the database is older than this program's (version {}): run `eventsieve migrate`, or start without --no-migrate",
        newest_migration()
    );
    Err(StoreError::new(ErrorClass::Configuration, message))
}

/// Fails on a database that cannot hold every character: it would reject events that clients may publish.
async fn check_encoding(pg: &mut PgConnection) -> Result<(), StoreError> {
    let encoding: String = sqlx::query_scalar(ENCODING)
        .fetch_one(&mut *pg)
        .await
        .map_err(connecting)?;
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
