//! The embedded store on SQLite: one file, the schema in `migrations/sqlite`, and who opens it for what.
//!
//! One writer ([`append`]) and a few readers ([`connect::Readers`]) on one file in WAL mode, with `synchronous = full`: an
//! answer means that the write-ahead log was synced. (The relay's connection ([`outbox`]) waits for the disk only where it must.) SQLite calls block, so reads run on tokio's threads for blocking work,
//! and the writer hands its thread's other tasks over while it commits. Other processes may open the same file, to `verify`
//! it or to `prune` it; only one may serve from it ([`connect::claim`]).

mod append;
mod connect;
mod error;
mod outbox;
mod prune;
mod read;
mod schema;
mod verify;

use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use rusqlite::TransactionBehavior;

use self::connect::{Link, Readers, Role, StoreFile, blocking, closed};
use self::error::during;
use crate::event::{Timestamp, Topic};
use crate::store::{
    Appender, Counts, ErrorClass, EventReader, EventWriter, List, Maintenance, Named, Page, Prune, Pruned, Scan,
    Stability, StoreError, StoreStats, Verification,
};

/// The first version whose write-ahead log loses nothing: before it, a checkpoint that met a reset of the log could.
const SQLITE_VERSION_MIN: i32 = 3_051_003;

/// With how many events a flush is full. Nobody else writes, so nothing waits for it, and the fewer flushes there are the fewer
/// times the disk is waited for: sixteen requests with 1000 events at a time are stored at 56 000 events/s in flushes of up to
/// 1000, at 77 000 to 80 000 in such of 5000, and at 91 000 in such of 10 000, for which others wait longer (two cores, one run each).
const BATCH_EVENTS: usize = 5000;

/// How long a probe may take before the store counts as unreachable.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);
/// How long reading the counters may take; their number is small, so only a disk in trouble takes longer.
const STATS_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a recount may take: as long as it needs.
const PATIENCE: Duration = Duration::from_secs(24 * 3600);

/// A store on SQLite.
pub struct Sqlite {
    file: Arc<StoreFile>,
    readers: Readers,
    probe: Arc<tokio::sync::Mutex<()>>,
    /// The connection that writes to the outbox; `None`: it is opened by the next call.
    relay: Arc<tokio::sync::Mutex<Option<Link>>>,
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
            relay: Arc::default(),
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

impl Named for Sqlite {
    fn name(&self) -> &'static str {
        "sqlite"
    }
}

#[async_trait]
impl EventWriter for Sqlite {
    fn writers_max(&self) -> u32 {
        1
    }

    fn batch_events(&self) -> usize {
        BATCH_EVENTS
    }

    async fn appender(&self, _lane: u32) -> Result<Box<dyn Appender>, StoreError> {
        let readers = self.readers.clone();
        self.alone(Role::Writer, |link| {
            link.check_writable()?;
            schema::check(&link.connection)?;
            schema::check_durable(&link)?;
            Ok(Box::new(append::SqliteAppender::new(link, readers)) as Box<dyn Appender>)
        })
        .await
        .map_err(StoreError::before_sending)
    }
}

#[async_trait]
impl EventReader for Sqlite {
    async fn list(&self, list: &List) -> Result<Page, StoreError> {
        let list = list.clone();
        self.readers
            .run(read::LIST_TIMEOUT, move |connection| read::list(connection, &list))
            .await
    }

    async fn scan(&self, walk: &Scan) -> Result<Page, StoreError> {
        let walk = walk.clone();
        self.readers
            .run(read::LIST_TIMEOUT, move |connection| read::scan(connection, &walk))
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

    async fn stability(&self) -> Result<Stability, StoreError> {
        self.readers
            .run(STATS_TIMEOUT, |connection| {
                read::stability(connection).map_err(during("reading the settled edge"))
            })
            .await
    }

    async fn clock(&self) -> Result<Timestamp, StoreError> {
        if self.readers.is_closed() {
            return Err(closed());
        }
        Ok(append::now())
    }
}

#[async_trait]
impl Maintenance for Sqlite {
    async fn claim(&self) -> Result<(), StoreError> {
        let file = self.file.clone();
        let claim = blocking(move || connect::claim(&file)).await?;
        *self.claim.lock().expect("nothing panics while it holds the claim") = Some(claim);
        Ok(())
    }

    async fn migrate(&self) -> Result<i64, StoreError> {
        self.alone(Role::Migrator, |mut link| schema::migrate(&mut link)).await
    }

    async fn check_schema(&self) -> Result<(), StoreError> {
        self.alone(Role::Reader, |link| schema::check(&link.connection)).await
    }

    async fn probe(&self) -> Result<Stability, StoreError> {
        // A connection of its own: a slow read can never make the service look dead. Opening it looks at the file anew. A
        // disk that hangs holds its thread, so there is never more than one.
        let hanging = || StoreError::new(ErrorClass::NotSent, "probing: the disk does not answer");
        let probe = self.probe.clone().try_lock_owned().map_err(|_| hanging())?;
        let probing = self.alone(Role::Writer, move |link| {
            let _probe = probe;
            link.limit(PROBE_TIMEOUT)?;
            link.check_writable()?;
            read::stability(&link.connection).map_err(during("probing"))
        });
        match tokio::time::timeout(PROBE_TIMEOUT, probing).await {
            Ok(probed) => probed.map_err(StoreError::before_sending),
            Err(_) => Err(hanging()),
        }
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

    async fn version(&self) -> Result<String, StoreError> {
        Ok(rusqlite::version().to_owned())
    }

    async fn warnings(&self) -> Result<Vec<String>, StoreError> {
        if self.readers.is_closed() {
            return Err(closed());
        }
        Ok(Vec::new())
    }

    async fn close(&self) {
        self.readers.close();
        self.relay.lock().await.take();
        self.claim
            .lock()
            .expect("nothing panics while it holds the claim")
            .take();
    }
}
