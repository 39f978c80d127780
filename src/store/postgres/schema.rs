//! The schema of the database: its migrations, and whether the database is new enough and able to store every event.

use std::collections::BTreeMap;

use ring::digest::{SHA256, digest};
use sqlx::{AssertSqlSafe, Row, SqlSafeStr};

use super::connect::{READ_COMMITTED, Session};
use super::error::{connecting, decoding, failed_to, sqlstate};
use crate::store::{ErrorClass, StoreError};

/// The migrations in `migrations/postgres`, by version.
///
/// Not sqlx's migrator: it locks its session, and prepares statements for it, which a pooler between a session and the server does
/// not allow.
const MIGRATIONS: [(i64, &str, &str); 2] = [
    (1, "log", include_str!("../../../migrations/postgres/0001_log.sql")),
    (
        2,
        "access",
        include_str!("../../../migrations/postgres/0002_access.sql"),
    ),
];

/// Lets one transaction migrate at a time, whatever the schema's name is. The number says "evsv".
const LOCK: &str = "select pg_advisory_xact_lock(1702261622)";

/// Creates the schema, and the table in which the migrations are recorded: one of our own, for a database may be shared with another
/// program. Not `if not exists`, which asks for the right to create them also where they exist.
const CREATE_SCHEMA: &str = "do $$ begin
    if to_regnamespace('eventsieve') is null then create schema eventsieve; end if;
    if to_regclass('eventsieve.migrations') is null then
        create table eventsieve.migrations (
            version    bigint      not null,
            name       text        not null,
            checksum   bytea       not null,
            applied_at timestamptz not null default now(),
            constraint migrations_pkey primary key (version)
        );
    end if;
end $$";

const APPLIED_CHECKSUMS: &str = "select version, checksum from eventsieve.migrations order by version";

const RECORD: &str = "insert into eventsieve.migrations (version, name, checksum) values ($1, $2, $3)";

/// Whether the database holds a log that was made before the first release.
const HAS_OLD_LOG: &str = "select exists (
    select from pg_attribute where attrelid = to_regclass('public.log') and attname = 'xid_offset'
)";

/// The versions of the applied migrations.
const APPLIED: &str = "select version from eventsieve.migrations";

/// What the newest migration has made, by which the schema is recognized.
const MISSING: &str = "select name from unnest(array[
    'log', 'gaps', 'identities', 'events', 'partitions', 'batches', 'topic_counts', 'topics', 'totals',
    'largest_topics', 'forgotten_topics', 'conflicts', 'parked', 'log_end', 'access', 'keys'
]) as name where to_regclass('eventsieve.' || name) is null";

/// Begins the numbering of batches anew if the server was started since it was done last, and returns whether it was. Makes the
/// partition of the next batch.
pub(super) const PREPARE_NUMBERS: &str = "select eventsieve.prepare_numbers()";

/// The grants of a role that serves, and what stands for its name in them.
const GRANTS: &str = include_str!("sql/grants.sql");
const SERVICE_ROLE: &str = "service_role";

/// The encoding of the database's text.
const ENCODING: &str = "select current_setting('server_encoding')";

/// Applies the missing migrations, and returns the version that this program has.
pub(super) async fn migrate(pg: &mut Session) -> Result<i64, StoreError> {
    check_encoding(pg).await?;
    let has_old_log: bool = pg.scalar(pg.query(HAS_OLD_LOG)).await.map_err(connecting)?;
    if has_old_log {
        let message = "the database holds a log of an eventsieve from before its first release, which this version cannot read: set DATABASE_URL to another database";
        return Err(StoreError::new(ErrorClass::Configuration, message));
    }
    pg.begin(READ_COMMITTED).await.map_err(connecting)?;
    let applied = apply(pg).await;
    let ended = pg.end(if applied.is_ok() { "commit" } else { "rollback" }).await;
    applied?;
    ended.map_err(failed_to("migrate the schema"))?;
    check(pg).await?;
    Ok(newest_migration())
}

/// Grants a role what it needs to serve, in one transaction.
pub(super) async fn grant(pg: &mut Session, role: &str) -> Result<(), StoreError> {
    let failed = |error| {
        let mut error = failed_to("grant a role what it needs")(error);
        // There is no such role, or it is not for the owner of the schema to grant.
        if error.class == ErrorClass::Unexpected {
            error.class = ErrorClass::Configuration;
        }
        error
    };
    let quoted = format!("\"{}\"", role.replace('"', "\"\""));
    let grants = pg.schema.statement(GRANTS);
    let grants = AssertSqlSafe(grants.as_str().replace(SERVICE_ROLE, &quoted));
    pg.begin(READ_COMMITTED).await.map_err(failed)?;
    let granted = pg.run_text(grants.into_sql_str()).await;
    let ended = pg.end(if granted.is_ok() { "commit" } else { "rollback" }).await;
    granted.map_err(failed)?;
    ended.map_err(failed)
}

/// Applies the missing migrations in the transaction that has begun. A migration that this program does not know is accepted: a newer
/// program has applied it. Migrations only add (a changed function gets a new name), so an older replica may start beside it. A
/// roll-back needs that.
async fn apply(pg: &mut Session) -> Result<(), StoreError> {
    let failed = |error| {
        let mut error = failed_to("migrate the schema")(error);
        let is_conflict = matches!(
            error.class,
            ErrorClass::Unexpected | ErrorClass::Data | ErrorClass::LostRace
        );
        if is_conflict {
            // The statements are ours and fixed, so the conflict is with what was there before.
            error.class = ErrorClass::Configuration;
        }
        error
    };
    pg.fetch_all(pg.query(LOCK)).await.map_err(failed)?;
    pg.fetch_all(pg.query(CREATE_SCHEMA))
        .await
        .map_err(failed_to("create the schema"))?;
    let rows = pg.fetch_all(pg.query(APPLIED_CHECKSUMS)).await.map_err(failed)?;
    let applied: sqlx::Result<BTreeMap<i64, Vec<u8>>> =
        rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect();
    let applied = applied.map_err(decoding)?;
    if let Some((version, _)) = applied
        .last_key_value()
        .filter(|(version, _)| **version > newest_migration())
    {
        tracing::warn!(
            schema.version = version,
            "the schema was created by a newer version of eventsieve, continuing: newer versions only add to it"
        );
    }
    for (version, name, sql) in MIGRATIONS {
        let checksum = digest(&SHA256, sql.as_bytes());
        match applied.get(&version) {
            Some(known) if known == checksum.as_ref() => {}
            Some(_) => {
                let message = "the schema does not match this version of eventsieve: set DATABASE_URL to another database, or use the version that created it";
                return Err(StoreError::new(ErrorClass::Configuration, message));
            }
            None => {
                pg.run_text(pg.schema.statement(sql)).await.map_err(failed)?;
                let record = pg.query(RECORD).bind(version).bind(name).bind(checksum.as_ref());
                pg.fetch_all(record).await.map_err(failed)?;
            }
        }
    }
    Ok(())
}

/// Fails as [`ErrorClass::Configuration`] when the schema is older than this program's.
pub(super) async fn check(pg: &mut Session) -> Result<(), StoreError> {
    check_encoding(pg).await?;
    let applied: Vec<i64> = match pg.scalars(pg.query(APPLIED)).await {
        Ok(versions) => versions,
        Err(error) if sqlstate(&error) == "42P01" => Vec::new(),
        Err(error) => return Err(failed_to("read the version of the schema")(error)),
    };
    if MIGRATIONS.iter().all(|(version, ..)| applied.contains(version)) {
        let missing: Vec<String> = pg
            .scalars(pg.query(MISSING))
            .await
            .map_err(failed_to("check the schema"))?;
        let Some(name) = missing.first() else { return Ok(()) };
        let message = format!(
            "the schema of the database is damaged: {}.{name} is missing although its migration was applied: restore the database from a backup",
            pg.schema.name()
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
async fn check_encoding(pg: &mut Session) -> Result<(), StoreError> {
    let encoding: String = pg.scalar(pg.query(ENCODING)).await.map_err(connecting)?;
    if encoding == "UTF8" {
        return Ok(());
    }
    let message =
        format!("the encoding of the database is {encoding}: create it with encoding 'UTF8' template template0");
    Err(StoreError::new(ErrorClass::Configuration, message))
}

fn newest_migration() -> i64 {
    MIGRATIONS.iter().map(|(version, ..)| *version).max().unwrap_or(0)
}
