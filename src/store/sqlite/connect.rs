//! Connections to the file: how they are opened and set up, who holds the store, and the connections that reads share.

use std::fs::{self, File, TryLockError};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use rusqlite::{Connection, OpenFlags};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::error;
use crate::store::{ErrorClass, StoreError};

/// What every connection is set up with. `full`: a commit is on disk when it returns. Temporary tables and sorts stay in
/// memory, so that no file is made elsewhere. The write-ahead log shrinks again after it had to grow (64 MiB).
const SETTINGS: &str = "pragma synchronous = full; pragma temp_store = memory; pragma journal_size_limit = 67108864;";

/// The writer's memory for pages (in KiB, thus negative): the unique key is hit at random places.
const WRITER_CACHE: &str = "pragma cache_size = -32768";

/// How long a connection waits for another one's lock, if nothing else was said.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// How many steps of SQLite's machine pass between two looks at the clock: a millisecond or less.
const STEPS_BETWEEN_LOOKS: i32 = 10_000;

/// The most reads at once; more wait for their turn.
const READERS_MAX: usize = 8;

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// Makes the file if it is not there, and its schema.
    Migrator,
    /// Writes.
    Writer,
    /// Reads only.
    Reader,
    /// Writes to the outbox.
    Relay,
}

/// The file that a store is kept in: its name, and which file that was when it was first opened.
#[derive(Debug)]
pub(super) struct StoreFile {
    path: PathBuf,
    first: OnceLock<FileId>,
}

/// Tells a file from another one that took its name: device and inode.
type FileId = (u64, u64);

impl StoreFile {
    pub(super) fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            first: OnceLock::new(),
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Refuses a file that lost its name since it was first opened: what were written to it would be gone with the process,
    /// and what took its place must not be opened beside the write-ahead log of the other.
    pub(super) fn check(&self) -> Result<(), StoreError> {
        match self.first.get() {
            Some(first) if self.id() != Some(*first) => {
                let message = format!(
                    "{} was removed or replaced while it was in use: put it back, or start again",
                    self.path.display()
                );
                Err(StoreError::new(ErrorClass::NotSent, message))
            }
            _ => Ok(()),
        }
    }

    /// The size of the write-ahead log.
    pub(super) fn wal_bytes(&self) -> u64 {
        let mut name = self.path.clone().into_os_string();
        name.push("-wal");
        fs::metadata(name).map_or(0, |metadata| metadata.len())
    }

    fn id(&self) -> Option<FileId> {
        use std::os::unix::fs::MetadataExt;
        let metadata = fs::metadata(&self.path).ok()?;
        Some((metadata.dev(), metadata.ino()))
    }
}

/// A connection to the store's file.
pub(super) struct Link {
    pub(super) connection: Connection,
    pub(super) file: Arc<StoreFile>,
}

impl Link {
    /// Opens the file and sets the connection up. Only a [`Role::Migrator`] makes a file that is not there.
    pub(super) fn open(file: &Arc<StoreFile>, role: Role) -> Result<Self, StoreError> {
        file.check()?;
        let path = &file.path;
        let mut flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        if role == Role::Migrator {
            flags |= OpenFlags::SQLITE_OPEN_CREATE;
            make_folder(path)?;
        } else if !path.exists() {
            let message = format!(
                "there is no store at {}: name yours in DATABASE_URL, or run `eventsieve migrate` or `eventsieve serve`, which make one",
                path.display()
            );
            return Err(StoreError::new(ErrorClass::Configuration, message));
        }
        let opened = Connection::open_with_flags(path, flags).and_then(|connection| {
            connection.busy_timeout(BUSY_TIMEOUT)?;
            connection.execute_batch(SETTINGS)?;
            match role {
                Role::Reader => connection.pragma_update(None, "query_only", true)?,
                Role::Writer => connection.execute_batch(WRITER_CACHE)?,
                Role::Migrator | Role::Relay => {}
            }
            // The file is opened for real by the first look into it.
            connection.query_row("select count(*) from sqlite_schema", [], |_| Ok(()))?;
            Ok(connection)
        });
        let connection = opened.map_err(|error| error::opening(path, error))?;
        if let Some(id) = file.id() {
            file.first.get_or_init(|| id);
        }
        file.check()?;
        Ok(Self {
            connection,
            file: file.clone(),
        })
    }

    /// Refuses a file that cannot be written to.
    pub(super) fn check_writable(&self) -> Result<(), StoreError> {
        match self.connection.is_readonly("main") {
            Ok(false) => Ok(()),
            Ok(true) => {
                let message = format!(
                    "{} cannot be written to: may this user do so, and is it a disk that takes writes?",
                    self.file.path.display()
                );
                Err(StoreError::new(ErrorClass::ReadOnly, message))
            }
            Err(error) => Err(error::during("looking at the file")(error)),
        }
    }

    /// From now on, a statement that takes longer than `limit` is interrupted, the wait for a lock included.
    pub(super) fn limit(&self, limit: Duration) -> Result<(), StoreError> {
        let deadline = Instant::now() + limit;
        self.connection
            .busy_timeout(limit)
            .and_then(|()| {
                self.connection
                    .progress_handler(STEPS_BETWEEN_LOOKS, Some(move || Instant::now() >= deadline))
            })
            .map_err(error::during("setting a time limit"))
    }
}

/// Makes the folder that the file lies in, if it is not there, and sees to it that it is still there after a power cut:
/// SQLite syncs the folder of its files, but not those above it.
fn make_folder(path: &Path) -> Result<(), StoreError> {
    let is_missing = |folder: &&Path| !folder.as_os_str().is_empty() && !folder.exists();
    let missing: Vec<&Path> = path.ancestors().skip(1).take_while(is_missing).collect();
    let Some(folder) = missing.first() else { return Ok(()) };
    let sync = |folder: &&Path| {
        let above = folder.parent().filter(|above| !above.as_os_str().is_empty());
        File::open(above.unwrap_or(Path::new(".")))?.sync_all()
    };
    fs::create_dir_all(folder)
        .and_then(|()| missing.iter().try_for_each(sync))
        .map_err(|error| {
            let message = format!("cannot make the folder {} for the store", folder.display());
            StoreError::new(ErrorClass::Configuration, message).with_source(error)
        })
}

/// Locks the file beside the store that says whose it is, and writes our process id into it. The lock ends with the file's
/// handle, and so with the process, however that ends. (Not the store itself: closing another handle of it would drop
/// SQLite's own locks.)
pub(super) fn claim(store: &StoreFile) -> Result<File, StoreError> {
    let path = &store.path;
    make_folder(path)?;
    // Whatever name leads to it, a link for example, one file has one lock.
    let real = fs::canonicalize(path).unwrap_or_else(|_| path.clone());
    let name = PathBuf::from(format!("{}-lock", real.display()));
    let refused = |message: String| StoreError::new(ErrorClass::Configuration, message);
    let cannot_write = |error: std::io::Error| {
        refused(format!(
            "cannot write {}: may this user write to its folder?",
            name.display()
        ))
        .with_source(error)
    };
    let mut file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&name)
        .map_err(cannot_write)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            // Whether the number can be read does not matter: it is there for people.
            let holder = match file.read_to_string(&mut holder) {
                Ok(_) if !holder.trim().is_empty() => format!(" (process {})", holder.trim()),
                _ => String::new(),
            };
            return Err(refused(format!(
                "{} is served by another eventsieve{holder}: stop that one, or name another file in DATABASE_URL",
                path.display()
            )));
        }
        Err(TryLockError::Error(error)) => return Err(cannot_write(error)),
    }
    // A full disk takes no number, and need not: the lock is what counts.
    if let Err(error) = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id())) {
        tracing::debug!(%error, "the process's number is not in {}", name.display());
    }
    Ok(file)
}

/// An error for a call of a store that was closed.
pub(super) fn closed() -> StoreError {
    StoreError::new(ErrorClass::NotSent, "the store is closed")
}

/// Runs what blocks on a thread where it may.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| Err(StoreError::new(ErrorClass::Unexpected, "the store's thread").with_source(error)))
}

/// The connections that reads share. One is idle here, or lent to the read that uses it; a read whose caller has gone away
/// goes on until its time limit, and keeps its turn for so long.
#[derive(Clone)]
pub(super) struct Readers {
    file: Arc<StoreFile>,
    turns: Arc<Semaphore>,
    idle: Arc<std::sync::Mutex<Vec<Link>>>,
}

impl Readers {
    pub(super) fn new(file: Arc<StoreFile>) -> Self {
        Self {
            file,
            turns: Arc::new(Semaphore::new(READERS_MAX)),
            idle: Arc::default(),
        }
    }

    /// Runs one read within `limit`, waiting for a turn included, in a transaction: all that it sees is one snapshot.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        limit: Duration,
        read: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let begun = Instant::now();
        let turn = match tokio::time::timeout(limit, self.turns.clone().acquire_owned()).await {
            Ok(turn) => turn.map_err(|_| closed())?,
            Err(_) => {
                return Err(StoreError::new(
                    ErrorClass::Contention,
                    "the read waited too long for its turn",
                ));
            }
        };
        let readers = self.clone();
        blocking(move || {
            let _turn = turn;
            let link = readers.link()?;
            link.limit(limit.saturating_sub(begun.elapsed()))?;
            let snapshot = link
                .connection
                .unchecked_transaction()
                .map_err(error::during("beginning to read"))?;
            let result = read(&snapshot)?;
            snapshot.finish().map_err(error::during("ending a read"))?;
            readers.keep(link);
            Ok(result)
        })
        .await
    }

    /// Waits for the reads that have begun, and holds back those that come, for as long as the answer is kept. Nothing if they
    /// take longer than `limit`.
    pub(super) async fn hold_back(&self, limit: Duration) -> Option<OwnedSemaphorePermit> {
        let all = u32::try_from(READERS_MAX).unwrap_or(u32::MAX);
        let turns = tokio::time::timeout(limit, self.turns.clone().acquire_many_owned(all)).await;
        turns.ok()?.ok()
    }

    pub(super) fn is_closed(&self) -> bool {
        self.turns.is_closed()
    }

    pub(super) fn close(&self) {
        self.turns.close();
        self.lock().clear();
    }

    fn link(&self) -> Result<Link, StoreError> {
        let idle = self.lock().pop();
        match idle {
            Some(link) => link.file.check().map(|()| link),
            None => Link::open(&self.file, Role::Reader),
        }
    }

    fn keep(&self, link: Link) {
        let mut idle = self.lock();
        // A read that was under way when the store was closed must not leave its connection behind.
        if !self.is_closed() {
            idle.push(link);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Link>> {
        self.idle
            .lock()
            .expect("nothing panics while it holds the idle connections")
    }
}
