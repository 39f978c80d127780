//! The embedded store on SQLite: one file, the schema in `migrations/sqlite`, and who opens it for what.
//!
//! One writer ([`append`]) and a few readers ([`connect::Readers`]) on one file in WAL mode, with `synchronous = full`: an
//! answer means that the write-ahead log was synced. SQLite calls block, so reads run on tokio's threads for blocking work,
//! and the writer hands its thread's other tasks over while it commits. Other processes may open the same file, to `verify`
//! it or to `prune` it; only one may serve from it ([`connect::claim`]).

mod append;
mod connect;
mod error;
mod prune;
mod read;
mod verify;

use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use rusqlite::{Connection, ErrorCode, TransactionBehavior};

use self::connect::{Link, Readers, Role, StoreFile, blocking, closed};
use self::error::during;
use crate::event::{Timestamp, Topic};
use crate::store::{
    Appender, Counts, ErrorClass, List, Page, Prune, Pruned, Settled, Store, StoreError, StoreStats, Verification, Walk,
};

/// The steps of the schema; how many a file has is its `user_version`.
const MIGRATIONS: [&str; 2] = [
    include_str!("../../migrations/sqlite/0001_log.sql"),
    include_str!("../../migrations/sqlite/0002_append_v1.sql"),
];

/// What the file says that it is (`application_id`): "evsv".
const APPLICATION_ID: i64 = 0x6576_7376;

/// The first version whose write-ahead log loses nothing: before it, a checkpoint that met a reset of the log could.
const SQLITE_VERSION_MIN: i32 = 3_051_003;

/// How long a probe may take before the store counts as unreachable.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);
/// How long reading the counters may take; their number is small, so only a disk in trouble takes longer.
const STATS_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a change to WAL mode is tried again while others have the file open, and how often.
const WAL_PATIENCE: Duration = Duration::from_secs(10);
const WAL_RETRY: Duration = Duration::from_millis(5);
/// How long a recount may take: as long as it needs.
const PATIENCE: Duration = Duration::from_secs(24 * 3600);

/// A store on SQLite.
pub struct Sqlite {
    file: Arc<StoreFile>,
    readers: Readers,
    probe: Arc<tokio::sync::Mutex<()>>,
    claim: std::sync::Mutex<Option<File>>,
}

impl Sqlite {
    /// A store in the file at `path`; opens nothing yet.
    ///
    /// # Errors
    /// [`ErrorClass::Configuration`] when the SQLite that this program was built with is too old.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        if rusqlite::version_number() < SQLITE_VERSION_MIN {
            let message = format!("SQLite {} is too old: it may lose data", rusqlite::version());
            return Err(StoreError::new(ErrorClass::Configuration, message));
        }
        let file = Arc::new(StoreFile::new(path));
        Ok(Self {
            readers: Readers::new(file.clone()),
            file,
            probe: Arc::default(),
            claim: std::sync::Mutex::default(),
        })
    }

    /// Runs something on a connection of its own, on a thread where it may block.
    async fn alone<T: Send + 'static>(
        &self,
        role: Role,
        work: impl FnOnce(Link) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        if self.readers.is_closed() {
            return Err(closed());
        }
        let file = self.file.clone();
        blocking(move || work(Link::open(&file, role)?)).await
    }
}

#[async_trait]
impl Store for Sqlite {
    fn name(&self) -> &'static str {
        "sqlite"
    }

    fn writers_max(&self) -> u32 {
        1
    }

    async fn claim(&self) -> Result<(), StoreError> {
        let file = self.file.clone();
        let claim = blocking(move || connect::claim(&file)).await?;
        *self.claim.lock().expect("nothing panics while it holds the claim") = Some(claim);
        Ok(())
    }

    async fn migrate(&self) -> Result<i64, StoreError> {
        self.alone(Role::Migrator, |mut link| migrate(&mut link)).await
    }

    async fn check_schema(&self) -> Result<(), StoreError> {
        self.alone(Role::Reader, |link| check_schema(&link.connection)).await
    }

    async fn appender(&self, _lane: u32) -> Result<Box<dyn Appender>, StoreError> {
        let readers = self.readers.clone();
        self.alone(Role::Writer, |link| {
            link.check_writable()?;
            check_schema(&link.connection)?;
            check_durable(&link)?;
            Ok(Box::new(append::SqliteAppender::new(link, readers)) as Box<dyn Appender>)
        })
        .await
        .map_err(StoreError::before_sending)
    }

    async fn list(&self, list: &List) -> Result<Page, StoreError> {
        let list = list.clone();
        self.readers
            .run(read::LIST_TIMEOUT, move |connection| read::list(connection, &list))
            .await
    }

    async fn walk(&self, walk: &Walk) -> Result<Page, StoreError> {
        let walk = walk.clone();
        self.readers
            .run(read::LIST_TIMEOUT, move |connection| read::walk(connection, &walk))
            .await
    }

    async fn stats(&self) -> Result<StoreStats, StoreError> {
        self.readers.run(STATS_TIMEOUT, read::stats).await
    }

    async fn topic_counts(&self, topic: &Topic) -> Result<Counts, StoreError> {
        let topic = topic.clone();
        self.readers
            .run(STATS_TIMEOUT, move |connection| read::topic_counts(connection, &topic))
            .await
    }

    async fn settled(&self) -> Result<Settled, StoreError> {
        self.readers
            .run(STATS_TIMEOUT, |connection| {
                read::settled(connection).map_err(during("reading the settled edge"))
            })
            .await
    }

    async fn probe(&self) -> Result<Settled, StoreError> {
        // A connection of its own: a slow read can never make the service look dead. Opening it looks at the file anew. A
        // disk that hangs holds its thread, so there is never more than one.
        let hanging = || StoreError::new(ErrorClass::NotSent, "probing: the disk does not answer");
        let probe = self.probe.clone().try_lock_owned().map_err(|_| hanging())?;
        let probing = self.alone(Role::Writer, move |link| {
            let _probe = probe;
            link.limit(PROBE_TIMEOUT)?;
            link.check_writable()?;
            read::settled(&link.connection).map_err(during("probing"))
        });
        match tokio::time::timeout(PROBE_TIMEOUT, probing).await {
            Ok(probed) => probed.map_err(StoreError::before_sending),
            Err(_) => Err(hanging()),
        }
    }

    async fn clock(&self) -> Result<Timestamp, StoreError> {
        if self.readers.is_closed() {
            return Err(closed());
        }
        Ok(append::now())
    }

    async fn prune(&self, step: &Prune) -> Result<Pruned, StoreError> {
        let step = step.clone();
        if step.dry_run {
            return self
                .readers
                .run(PATIENCE, move |connection| prune::look(connection, &step))
                .await;
        }
        self.alone(Role::Writer, move |mut link| {
            link.check_writable()?;
            let transaction = link
                .connection
                .transaction_with_behavior(TransactionBehavior::Immediate)
                .map_err(during("beginning to prune"))?;
            let pruned = prune::prune(&transaction, &step)?;
            transaction.commit().map_err(error::committing)?;
            Ok(pruned)
        })
        .await
    }

    async fn verify(&self) -> Result<Verification, StoreError> {
        self.readers.run(PATIENCE, verify::verify).await
    }

    async fn warnings(&self) -> Result<Vec<String>, StoreError> {
        if self.readers.is_closed() {
            return Err(closed());
        }
        Ok(Vec::new())
    }

    async fn close(&self) {
        self.readers.close();
        self.claim
            .lock()
            .expect("nothing panics while it holds the claim")
            .take();
    }
}

/// Applies the migrations that are missing, one transaction for all. Several processes may do so at once: they wait for each
/// other. A schema that a newer program has made stays as it is: migrations only add.
fn migrate(link: &mut Link) -> Result<i64, StoreError> {
    let failed = || during("migrating the schema");
    // Before anything is changed: the file may be another program's, or not be ours to write.
    version(&link.connection)?;
    link.check_writable().map_err(|error| StoreError {
        class: ErrorClass::Configuration,
        ..error
    })?;
    let mode = set_wal(&link.connection).map_err(failed())?;
    if mode != "wal" {
        let message = format!(
            "{} cannot have a write-ahead log (SQLite says {mode}): is it on a network file system?",
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
            "the schema was made by a newer version of eventsieve"
        );
    }
    let applied = usize::try_from(version).unwrap_or(0);
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

/// Puts the file into WAL mode, which is kept in it, and answers with the mode that it has. The change needs the file for
/// itself, and SQLite does not wait for that by itself (its busy handler is not asked when a lock is raised).
#[expect(
    clippy::disallowed_methods,
    reason = "this thread may block, and there is nothing else to wait by"
)]
fn set_wal(connection: &Connection) -> rusqlite::Result<String> {
    let deadline = Instant::now() + WAL_PATIENCE;
    loop {
        match connection.query_row("pragma journal_mode = wal", [], |row| row.get(0)) {
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) && Instant::now() < deadline => {
                std::thread::sleep(WAL_RETRY);
            }
            result => return result,
        }
    }
}

/// The version of the file's schema; 0 for an empty file. Refuses the file of another program.
fn version(connection: &Connection) -> Result<i64, StoreError> {
    let number = |sql| connection.query_row(sql, [], |row| row.get::<_, i64>(0));
    let read = || {
        Ok((
            number("pragma application_id")?,
            number("pragma user_version")?,
            number("select count(*) from sqlite_schema")?,
        ))
    };
    match read().map_err(during("reading the schema's version"))? {
        (APPLICATION_ID, version, _) => Ok(version),
        (0, 0, 0) => Ok(0),
        _ => {
            let message = format!(
                "{} is the database of another program: name another file in DATABASE_URL",
                connection.path().unwrap_or("the file")
            );
            Err(StoreError::new(ErrorClass::Configuration, message))
        }
    }
}

fn check_schema(connection: &Connection) -> Result<(), StoreError> {
    let known = newest_migration();
    if version(connection)? >= known {
        return Ok(());
    }
    let message = format!(
        "the store's schema is older than this program's (version {known}): run `eventsieve migrate`, or start without --no-migrate"
    );
    Err(StoreError::new(ErrorClass::Configuration, message))
}

/// Refuses a connection whose commits would not be on disk when they return.
fn check_durable(link: &Link) -> Result<(), StoreError> {
    let read = || {
        let mode: String = link.connection.query_row("pragma journal_mode", [], |row| row.get(0))?;
        let synchronous: i64 = link.connection.query_row("pragma synchronous", [], |row| row.get(0))?;
        Ok(mode == "wal" && synchronous == 2)
    };
    if read().map_err(during("looking at the file's settings"))? {
        return Ok(());
    }
    let message = format!(
        "{} has left WAL mode: run `eventsieve migrate`, which sets it again",
        link.file.path().display()
    );
    Err(StoreError::new(ErrorClass::Configuration, message))
}

fn newest_migration() -> i64 {
    i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

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
    fn both_dialects_have_the_same_migrations_and_all_are_applied() {
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
