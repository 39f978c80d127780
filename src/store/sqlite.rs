//! The embedded store on SQLite: one file; the schema is in `migrations/sqlite`.
//!
//! One writer ([`append`]) and a few readers ([`readers`]) use the file in WAL mode, with `synchronous = full`: a group commit
//! returns after the write-ahead log was synced. (The connection of the relay, in [`outbox`], waits for the disk only where it
//! must.) Calls of SQLite block, so reads run on tokio's threads for blocking work, and while the writer commits, the other
//! tasks of its thread move to another thread. Other processes may open the same file, to `verify` or `prune` it; only one
//! process may serve from it ([`claim`]).

mod append;
mod claim;
mod clock;
mod connect;
mod counters;
mod error;
mod expiry;
mod keys;
mod numbers;
mod outbox;
mod read;
mod readers;
mod retention;
mod schema;
mod statistics;
mod verify;

use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use rusqlite::Connection;

use self::connect::{Link, Role, StoreFile, blocking, closed};
use self::error::failed_to;
use self::readers::Readers;
use crate::event::{EventId, Timestamp, Topic, TopicGlobs};
use crate::store::{
    Appender, ConflictList, ConflictPage, Counts, ErrorClass, EventReader, EventWriter, Found, List, Maintenance,
    Named, Page, Scan, ScanError, Stability, StoreError, StoreStats, TopicList, TopicSummary, TopicSums, Turn,
    Verification,
};

/// The first version whose write-ahead log loses nothing: in older versions a checkpoint that met a reset of the log could.
const SQLITE_VERSION_MIN: i32 = 3_051_003;

/// The number of events at which a group commit is full. There is no other writer that would wait for it, and fewer commits wait
/// for the disk less often: sixteen concurrent requests with 1000 events each are stored at 56 000 events/s in commits of up to
/// 1000 events, at 77 000 to 80 000 in commits of 5000, and at 91 000 in commits of 10 000, which make small requests wait longer
/// (two cores, one run each).
const BATCH_EVENTS: usize = 5000;

/// How long a probe may take before the store counts as unreachable.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);
/// How long reading the counters may take. There are few of them, so only an ailing disk takes longer.
const STATS_TIMEOUT: Duration = Duration::from_secs(5);
/// How long it may take to look whether topics are known, for which a request waits.
const TOPICS_TIMEOUT: Duration = Duration::from_secs(1);
/// How long a recount may take: practically without limit.
const RECOUNT_TIMEOUT: Duration = Duration::from_secs(24 * 3600);

/// A store on SQLite.
pub struct Sqlite {
    file: Arc<StoreFile>,
    readers: Readers,
    probe: Arc<tokio::sync::Mutex<()>>,
    /// The connection that writes to the outbox; `None`: the next call opens it.
    relay: Arc<tokio::sync::Mutex<Option<Link>>>,
    claim: std::sync::Mutex<Option<File>>,
    /// Whether the numbering of batches has begun anew since this process has opened the file.
    is_numbered: Arc<AtomicBool>,
}

impl Sqlite {
    /// A store in the file at `path`; opens nothing yet. Fails as [`ErrorClass::Configuration`] when this program was built with
    /// an SQLite that is too old.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        if rusqlite::version_number() < SQLITE_VERSION_MIN {
            let message = format!("SQLite {} is too old and may lose data", rusqlite::version());
            return Err(StoreError::new(ErrorClass::Configuration, message));
        }
        let file = Arc::new(StoreFile::new(path));
        Ok(Self {
            readers: Readers::new(file.clone()),
            file,
            probe: Arc::default(),
            relay: Arc::default(),
            claim: std::sync::Mutex::default(),
            is_numbered: Arc::default(),
        })
    }

    /// Runs `work` on a new connection, on a thread for blocking work.
    async fn with_new_connection<T: Send + 'static>(
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

/// Begins the numbering of batches anew, unless this process has done it since it opened the file.
fn begin_numbering(link: &mut Link, is_numbered: &AtomicBool) -> Result<(), StoreError> {
    if !is_numbered.load(Ordering::Relaxed) {
        numbers::raise_numbers(&mut link.connection)?;
        is_numbered.store(true, Ordering::Relaxed);
    }
    Ok(())
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

    async fn appender(&self, _writer_id: u32) -> Result<Box<dyn Appender>, StoreError> {
        let (readers, is_numbered) = (self.readers.clone(), self.is_numbered.clone());
        self.with_new_connection(Role::Writer, move |mut link| {
            link.check_writable()?;
            schema::check(&link.connection)?;
            schema::check_durable(&link)?;
            begin_numbering(&mut link, &is_numbered)?;
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
            .run_for_client(read::LIST_TIMEOUT, move |connection| read::list(connection, &list))
            .await
    }

    async fn scan(&self, scan: &Scan) -> Result<Page, ScanError> {
        let scan = scan.clone();
        let again = scan.clone();
        let (readers, turn, limit) = (&self.readers, scan.turn, read::LIST_TIMEOUT);
        let read = move |connection: &Connection| read::scan(connection, &scan);
        let page = match turn {
            Turn::Client => readers.run_for_client(limit, read).await?,
            Turn::Service => readers.run(limit, read).await?,
        };
        if let Some(page) = page {
            return Ok(page);
        }
        // An older copy of the file, before the first writer has opened it: its numbering has not begun anew yet.
        if !self.is_numbered.load(Ordering::Relaxed) {
            let is_numbered = self.is_numbered.clone();
            self.with_new_connection(Role::Writer, move |mut link| {
                link.check_writable()?;
                begin_numbering(&mut link, &is_numbered)
            })
            .await?;
        }
        // Also where the writer has done it by now: it may have been a moment after the first read.
        let read = move |connection: &Connection| read::scan(connection, &again);
        let page = self.readers.run(read::LIST_TIMEOUT, read).await?;
        page.ok_or(ScanError::UnknownCursor)
    }

    async fn find(&self, topic: &Topic, event_id: &EventId) -> Result<Option<Found>, StoreError> {
        let (topic, event_id) = (topic.clone(), event_id.clone());
        self.readers
            .run_for_client(read::LIST_TIMEOUT, move |connection| {
                read::find(connection, &topic, &event_id)
            })
            .await
    }

    async fn topics(&self, list: &TopicList) -> Result<Vec<TopicSummary>, StoreError> {
        let list = list.clone();
        self.readers
            .run_for_client(STATS_TIMEOUT, move |connection| statistics::topics(connection, &list))
            .await
    }

    async fn conflicts(&self, list: &ConflictList) -> Result<ConflictPage, StoreError> {
        let list = list.clone();
        self.readers
            .run_for_client(STATS_TIMEOUT, move |connection| {
                statistics::conflicts(connection, &list)
            })
            .await
    }

    async fn stats(&self) -> Result<StoreStats, StoreError> {
        self.readers.run(STATS_TIMEOUT, statistics::stats).await
    }

    async fn sums(&self, globs: &TopicGlobs) -> Result<TopicSums, StoreError> {
        let globs = globs.clone();
        self.readers
            .run_for_client(STATS_TIMEOUT, move |connection| statistics::sums(connection, &globs))
            .await
    }

    async fn topic_counts(&self, topic: &Topic) -> Result<Counts, StoreError> {
        let topic = topic.clone();
        self.readers
            .run(STATS_TIMEOUT, move |connection| {
                statistics::topic_counts(connection, &topic)
            })
            .await
    }

    async fn unknown_topics(&self, topics: &[&str]) -> Result<Vec<String>, StoreError> {
        let topics: Vec<String> = topics.iter().map(|&topic| topic.to_owned()).collect();
        self.readers
            .run(TOPICS_TIMEOUT, move |connection| {
                statistics::unknown_topics(connection, topics)
            })
            .await
    }

    async fn stability(&self) -> Result<Stability, StoreError> {
        self.readers
            .run(STATS_TIMEOUT, |connection| {
                statistics::stability(connection).map_err(failed_to("read the last stable position"))
            })
            .await
    }

    async fn clock(&self) -> Result<Timestamp, StoreError> {
        if self.readers.is_closed() {
            return Err(closed());
        }
        Ok(clock::now())
    }
}

#[async_trait]
impl Maintenance for Sqlite {
    async fn claim(&self) -> Result<(), StoreError> {
        let file = self.file.clone();
        let claim = blocking(move || claim::claim(&file)).await?;
        *self.claim.lock().expect("nothing panics while it holds the claim") = Some(claim);
        Ok(())
    }

    async fn migrate(&self) -> Result<i64, StoreError> {
        self.with_new_connection(Role::Migrator, |mut link| schema::migrate(&mut link))
            .await
    }

    async fn grant(&self, _role: &str) -> Result<(), StoreError> {
        let message = "the embedded store has no roles: who may read and write its file is up to the system";
        Err(StoreError::new(ErrorClass::Configuration, message))
    }

    async fn check_schema(&self) -> Result<(), StoreError> {
        self.with_new_connection(Role::Reader, |link| schema::check(&link.connection))
            .await
    }

    async fn probe(&self) -> Result<Stability, StoreError> {
        // On a new connection: a slow read can never make the service look dead, and opening it checks the file again. A disk
        // that hangs blocks the thread, so there is at most one probe.
        let hanging = || {
            StoreError::new(
                ErrorClass::NotSent,
                "failed to probe the store: the disk does not answer",
            )
        };
        let probe = self.probe.clone().try_lock_owned().map_err(|_| hanging())?;
        let probing = self.with_new_connection(Role::Writer, move |link| {
            let _probe = probe;
            link.limit(PROBE_TIMEOUT)?;
            link.check_writable()?;
            statistics::stability(&link.connection).map_err(failed_to("probe the store"))
        });
        match tokio::time::timeout(PROBE_TIMEOUT, probing).await {
            Ok(probed) => probed.map_err(StoreError::before_sending),
            Err(_) => Err(hanging()),
        }
    }

    async fn verify(&self) -> Result<Verification, StoreError> {
        self.readers.run(RECOUNT_TIMEOUT, verify::verify).await
    }

    /// An index knows them at any time.
    async fn find_largest_topics(&self) -> Result<(), StoreError> {
        Ok(())
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
