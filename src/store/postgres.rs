//! The store on PostgreSQL 14 or later: the schema in `migrations/postgres`, and who connects to it for what.
//!
//! Each writer owns a connection ([`append`]); reads share a few ([`connect::Readers`]); the probe and the relay ([`outbox`])
//! have one each of their own, so that a slow read can never make the service look dead, or hold up the fan-out. `sqlx`'s pool is not used: in sqlx 0.9.0 a query that is
//! cancelled gives its connection back through a ping without a time limit, so a connection that died silently takes its
//! place in the pool with it. Here whatever is not surely idle is dropped.

mod append;
mod connect;
mod error;
mod outbox;
mod prune;
mod read;
mod statistics;
mod verify;

use std::sync::LazyLock;
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use sqlx::migrate::{MigrateError, Migration, MigrationType, Migrator};
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{Connection, Row, SqlSafeStr};
use tokio::sync::Mutex;

use self::connect::{Readers, Role, bounded, connect};
use crate::config::DatabaseUrl;
use crate::event::{Timestamp, Topic};
use crate::store::{
    Appender, Counts, ErrorClass, EventReader, EventWriter, List, Maintenance, Named, Page, Prune, Pruned, Scan,
    Stability, StoreError, StoreStats, Verification,
};

/// The migrations in `migrations/postgres`, by version. Compiled in by hand: sqlx's own macro for it brings a third of sqlx with it.
static MIGRATIONS: LazyLock<Migrator> = LazyLock::new(|| {
    let migrations = MIGRATION_FILES.into_iter().map(|(version, name, sql)| {
        Migration::new(version, name.into(), MigrationType::Simple, sql.into_sql_str(), false)
    });
    Migrator::with_migrations(migrations.collect())
});
const MIGRATION_FILES: [(i64, &str, &str); 4] = [
    (1, "log", include_str!("../../migrations/postgres/0001_log.sql")),
    (
        2,
        "append v1",
        include_str!("../../migrations/postgres/0002_append_v1.sql"),
    ),
    (3, "parked", include_str!("../../migrations/postgres/0003_parked.sql")),
    (
        4,
        "append v2",
        include_str!("../../migrations/postgres/0004_append_v2.sql"),
    ),
];

/// Whether the server takes writes, and how far the log is settled.
const PROBE: &str = concat!(
    "select pg_is_in_recovery() or current_setting('transaction_read_only')::boolean as read_only, s.edge, s.horizon, ",
    statistics::unsettled_seconds!("s.edge"),
    " as unsettled_seconds from ",
    statistics::settled!(),
    " s"
);

/// The server's clock; a transaction's own, `now()`, is what `received_at` is made of.
const CLOCK: &str = "select clock_timestamp()";

/// As `17.2`: what a packager adds to it is left out.
const VERSION: &str = "select split_part(current_setting('server_version'), ' ', 1)";

/// The versions of the migrations that were applied.
const APPLIED: &str = "select version from _sqlx_migrations where success";

/// How the database keeps text.
const ENCODING: &str = "select current_setting('server_encoding')";

/// The settings of the whole server without which "durable" would not be true. (`synchronous_commit` is a session's own:
/// writers set it.)
const SETTINGS: &str = "select name from pg_settings
    where name in ('fsync', 'full_page_writes') and setting = 'off' order by name";

/// How long a probe may take before the store counts as unreachable.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);
/// How long reading the counters may take; their number is small, so only a server in trouble takes longer.
const STATS_TIMEOUT: Duration = Duration::from_secs(5);

/// With how many events a flush is full. Larger ones are slower: of the events that are sent twice at the same time more wait for
/// each other's transactions, and for longer. From four connections PostgreSQL stores 78 000, 94 000, 96 000, 76 000 and 74 000
/// events/s in flushes of 64, 250, 1000, 2000 and 5000, 30 % of them duplicates of any earlier one; the service, of sixteen
/// requests with 1000 events at a time, 84 700/s, and 64 600/s when it gathered up to 10 000; of 64 requests with 100 events at a
/// time, 89 300 and 82 500/s when it gathered up to 500 and 1000 (medians of 9 and 13 runs; two cores, PostgreSQL 15).
const BATCH_EVENTS: usize = 500;

/// A store on PostgreSQL.
pub struct Postgres {
    options: PgConnectOptions,
    readers: Readers,
    probe: Mutex<Option<PgConnection>>,
    pruner: Mutex<Option<PgConnection>>,
    relay: Mutex<Option<PgConnection>>,
}

impl Postgres {
    /// Understands `url`; connects to nothing yet.
    ///
    /// # Errors
    /// [`ErrorClass::Configuration`] when it is no `postgres://` URL.
    pub fn open(url: &DatabaseUrl) -> Result<Self, StoreError> {
        let options: PgConnectOptions = url
            .expose()
            .parse()
            .map_err(|error: sqlx::Error| connect::invalid_url(&error))?;
        Ok(Self {
            readers: Readers::new(options.clone()),
            options,
            probe: Mutex::new(None),
            pruner: Mutex::new(None),
            relay: Mutex::new(None),
        })
    }

    /// The way to the server, as long as the store is open.
    fn options(&self) -> Result<&PgConnectOptions, StoreError> {
        if self.readers.is_closed() {
            return Err(connect::closed());
        }
        Ok(&self.options)
    }
}

impl Named for Postgres {
    fn name(&self) -> &'static str {
        "postgres"
    }
}

#[async_trait]
impl EventWriter for Postgres {
    fn writers_max(&self) -> u32 {
        u32::MAX
    }

    fn batch_events(&self) -> usize {
        BATCH_EVENTS
    }

    async fn appender(&self, writer_id: u32) -> Result<Box<dyn Appender>, StoreError> {
        Ok(Box::new(append::PgAppender::open(self.options()?, writer_id).await?))
    }
}

#[async_trait]
impl EventReader for Postgres {
    async fn list(&self, list: &List) -> Result<Page, StoreError> {
        self.readers
            .run(read::LIST_TIMEOUT, |mut pg| async move {
                let read = read::list(&mut pg, list).await?;
                Ok((pg, read))
            })
            .await
    }

    async fn scan(&self, walk: &Scan) -> Result<Page, StoreError> {
        self.readers
            .run(read::LIST_TIMEOUT, |mut pg| async move {
                let read = read::scan(&mut pg, walk).await?;
                Ok((pg, read))
            })
            .await
    }

    async fn stats(&self) -> Result<StoreStats, StoreError> {
        self.readers
            .run(STATS_TIMEOUT, |mut pg| async move {
                let read = statistics::stats(&mut pg).await?;
                Ok((pg, read))
            })
            .await
    }

    async fn topic_counts(&self, topic: &Topic) -> Result<Counts, StoreError> {
        self.readers
            .run(STATS_TIMEOUT, |mut pg| async move {
                let read = statistics::topic_counts(&mut pg, topic).await?;
                Ok((pg, read))
            })
            .await
    }

    async fn stability(&self) -> Result<Stability, StoreError> {
        self.readers
            .run(STATS_TIMEOUT, |mut pg| async move {
                let read = statistics::settled_now(&mut pg).await?;
                Ok((pg, read))
            })
            .await
    }

    async fn clock(&self) -> Result<Timestamp, StoreError> {
        self.readers
            .run(STATS_TIMEOUT, |mut pg| async move {
                let read = sqlx::query_scalar::<_, DateTime<Utc>>(CLOCK).fetch_one(&mut pg).await;
                Ok((pg, append::timestamp(read.map_err(error::during("reading the clock"))?)))
            })
            .await
    }
}

#[async_trait]
impl Maintenance for Postgres {
    async fn claim(&self) -> Result<(), StoreError> {
        Ok(())
    }

    async fn migrate(&self) -> Result<i64, StoreError> {
        let mut pg = connect(self.options()?, Role::Admin).await?;
        check_encoding(&mut pg).await?;
        // `run` is not usable in a boxed future (its bound on the connection is not general enough); this is its inside.
        MIGRATIONS
            .run_direct(None, &mut pg, false)
            .await
            .or_else(newer_is_fine)?;
        close(pg).await;
        Ok(newest_migration())
    }

    async fn check_schema(&self) -> Result<(), StoreError> {
        let mut pg = connect(self.options()?, Role::Admin).await?;
        check_encoding(&mut pg).await?;
        let applied: Vec<i64> = match sqlx::query_scalar(APPLIED).fetch_all(&mut pg).await {
            Ok(versions) => versions,
            Err(error) if error::sqlstate(&error) == "42P01" => Vec::new(),
            Err(error) => return Err(error::during("reading the schema's version")(error)),
        };
        close(pg).await;
        if MIGRATIONS.iter().all(|migration| applied.contains(&migration.version)) {
            return Ok(());
        }
        let message = format!(
            "the database's schema is older than this program's (version {}): run `eventsieve migrate`, or start without --no-migrate",
            newest_migration()
        );
        Err(StoreError::new(ErrorClass::Configuration, message))
    }

    async fn probe(&self) -> Result<Stability, StoreError> {
        let mut slot = self.probe.lock().await;
        let mut pg = match slot.take() {
            Some(pg) => pg,
            None => connect(self.options()?, Role::Probe).await?,
        };
        let row = bounded(PROBE_TIMEOUT, "probing", sqlx::query(PROBE).fetch_one(&mut pg)).await?;
        if row.try_get("read_only").map_err(error::decoding)? {
            return Err(StoreError::new(
                ErrorClass::ReadOnly,
                "the server takes no writes (a standby, or read-only)",
            ));
        }
        *slot = Some(pg);
        statistics::settled_from(&row)
    }

    async fn prune(&self, step: &Prune) -> Result<Pruned, StoreError> {
        let mut slot = self.pruner.lock().await;
        let mut pg = match slot.take() {
            Some(pg) => pg,
            None => connect(self.options()?, Role::Pruner).await?,
        };
        let pruned = prune::prune(&mut pg, step).await?;
        *slot = Some(pg);
        Ok(pruned)
    }

    async fn verify(&self) -> Result<Verification, StoreError> {
        let mut pg = connect(self.options()?, Role::Admin).await?;
        let verification = verify::verify(&mut pg).await?;
        close(pg).await;
        Ok(verification)
    }

    async fn version(&self) -> Result<String, StoreError> {
        self.readers
            .run(STATS_TIMEOUT, |mut pg| async move {
                let version = sqlx::query_scalar::<_, String>(VERSION).fetch_one(&mut pg).await;
                Ok((pg, version.map_err(error::during("reading the server's version"))?))
            })
            .await
    }

    async fn warnings(&self) -> Result<Vec<String>, StoreError> {
        let off = self
            .readers
            .run(STATS_TIMEOUT, |mut pg| async move {
                let off = sqlx::query_scalar::<_, String>(SETTINGS).fetch_all(&mut pg).await;
                Ok((pg, off.map_err(error::during("reading settings"))?))
            })
            .await?;
        let warning =
            |name: String| format!("PostgreSQL runs with {name} = off: what is acknowledged may be lost in a crash");
        Ok(off.into_iter().map(warning).collect())
    }

    async fn close(&self) {
        self.readers.close().await;
        for slot in [&self.probe, &self.pruner, &self.relay] {
            if let Some(pg) = slot.lock().await.take() {
                close(pg).await;
            }
        }
    }
}

/// Refuses a database that cannot hold every character: what a client may publish would be refused, or not compare.
async fn check_encoding(pg: &mut PgConnection) -> Result<(), StoreError> {
    let encoding: String = sqlx::query_scalar(ENCODING)
        .fetch_one(pg)
        .await
        .map_err(error::connecting)?;
    if encoding == "UTF8" {
        return Ok(());
    }
    let message = format!("the database's encoding is {encoding}: create it with encoding 'UTF8' template template0");
    Err(StoreError::new(ErrorClass::Configuration, message))
}

/// A migration that this program does not know was applied by a newer one. Migrations only add (a changed function gets a
/// new name), so an older replica may start beside it: a roll-back needs that.
fn newer_is_fine(error: MigrateError) -> Result<(), StoreError> {
    match error {
        MigrateError::VersionMissing(version) => {
            tracing::warn!(
                schema.version = version,
                "the schema was made by a newer version of eventsieve"
            );
            Ok(())
        }
        MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => {
            let mut error = error::during("migrating the schema")(error);
            if matches!(
                error.class,
                ErrorClass::Unexpected | ErrorClass::Data | ErrorClass::LostRace
            ) {
                // The statements are ours and fixed: what does not fit is what was there before.
                error.class = ErrorClass::Configuration;
            }
            Err(error)
        }
        other => Err(StoreError::new(ErrorClass::Configuration, "the schema is not ours").with_source(other)),
    }
}

fn newest_migration() -> i64 {
    MIGRATIONS.iter().map(|migration| migration.version).max().unwrap_or(0)
}

/// Says good-bye to the server. A failure does not matter: the socket is closed all the same.
async fn close(pg: PgConnection) {
    if let Err(error) = bounded(PROBE_TIMEOUT, "closing", pg.close()).await {
        tracing::debug!(%error, "closing a connection");
    }
}
