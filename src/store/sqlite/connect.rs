//! Connections to the file: how they are opened and set up.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use rusqlite::{Connection, OpenFlags};

use super::error;
use crate::store::{ErrorClass, StoreError};

/// The settings of every connection. `full`: a commit is on disk when it returns. Temporary tables and sorts stay in memory, so
/// that no file is made elsewhere. The write-ahead log shrinks again after it had to grow (64 MiB).
const SETTINGS: &str = "pragma synchronous = full; pragma temp_store = memory; pragma journal_size_limit = 67108864;";

/// The memory of the writer for pages (in KiB, thus negative): keys are looked up at random places.
const WRITER_CACHE: &str = "pragma cache_size = -32768";

/// The rights of folders and files that the store makes: its owner's alone.
const PRIVATE_FOLDER: u32 = 0o700;
pub(super) const PRIVATE_FILE: u32 = 0o600;

/// How long a connection waits for the lock of another connection, unless a call sets another limit.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// How many instructions SQLite executes between two checks of the deadline: a millisecond or less.
const STEPS_BETWEEN_CHECKS: i32 = 10_000;

/// The purpose of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// Creates the file if it is missing, and its schema.
    Migrator,
    /// Writes.
    Writer,
    /// Reads only.
    Reader,
    /// Writes to the outbox.
    Relay,
}

/// The file of a store: its name, and the identity of the file when it was first opened.
#[derive(Debug)]
pub(super) struct StoreFile {
    path: PathBuf,
    first: OnceLock<FileId>,
}

/// Device and inode: distinguishes a file from another file of the same name.
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

    /// Fails when the file was removed or replaced since it was first opened: writes to it would be lost at the end of the
    /// process, and a new file must not be opened beside the write-ahead log of the old one.
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
    /// Opens the file and sets up the connection. Only a [`Role::Migrator`] creates a missing file.
    pub(super) fn open(file: &Arc<StoreFile>, role: Role) -> Result<Self, StoreError> {
        file.check()?;
        let path = &file.path;
        let mut flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        if role == Role::Migrator {
            flags |= OpenFlags::SQLITE_OPEN_CREATE;
            make_folder(path)?;
            make_private(path)?;
        } else if !path.exists() {
            let message = format!(
                "there is no store at {}: set DATABASE_URL to your store, or create one with `eventsieve migrate` or `eventsieve serve`",
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
            // SQLite opens the file only when it is read first.
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

    /// Fails when the file cannot be written to.
    pub(super) fn check_writable(&self) -> Result<(), StoreError> {
        match self.connection.is_readonly("main") {
            Ok(false) => Ok(()),
            Ok(true) => {
                let message = format!(
                    "{} cannot be written to: check its permissions, and that its disk is not mounted read-only",
                    self.file.path.display()
                );
                Err(StoreError::new(ErrorClass::ReadOnly, message))
            }
            Err(error) => Err(error::failed_to("check that the file is writable")(error)),
        }
    }

    /// Interrupts every statement that is still running in `limit` from now, the wait for a lock included.
    pub(super) fn limit(&self, limit: Duration) -> Result<(), StoreError> {
        let deadline = Instant::now() + limit;
        self.connection
            .busy_timeout(limit)
            .and_then(|()| {
                self.connection
                    .progress_handler(STEPS_BETWEEN_CHECKS, Some(move || Instant::now() >= deadline))
            })
            .map_err(error::failed_to("set a time limit"))
    }
}

/// Creates the folder of the file if it is missing, and syncs it, so that it survives a power cut: SQLite syncs the folder of
/// its files, but not the folders above.
pub(super) fn make_folder(path: &Path) -> Result<(), StoreError> {
    let is_missing = |folder: &&Path| !folder.as_os_str().is_empty() && !folder.exists();
    let missing: Vec<&Path> = path.ancestors().skip(1).take_while(is_missing).collect();
    let Some(folder) = missing.first() else { return Ok(()) };
    let sync = |folder: &&Path| {
        let above = folder.parent().filter(|above| !above.as_os_str().is_empty());
        File::open(above.unwrap_or(Path::new(".")))?.sync_all()
    };
    let making = DirBuilder::new().recursive(true).mode(PRIVATE_FOLDER).create(folder);
    making
        .and_then(|()| missing.iter().try_for_each(sync))
        .map_err(|error| {
            let message = format!("cannot create the folder {} for the store", folder.display());
            StoreError::new(ErrorClass::Configuration, message).with_source(error)
        })
}

/// Makes an empty file for the store where there is none, which only its owner can read. SQLite gives its other files the same rights.
fn make_private(path: &Path) -> Result<(), StoreError> {
    let made = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(PRIVATE_FILE)
        .open(path);
    match made {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => {
            let message = format!("cannot create the file {}", path.display());
            Err(StoreError::new(ErrorClass::Configuration, message).with_source(error))
        }
        _ => Ok(()),
    }
}

/// The error of a call after the store was closed.
pub(super) fn closed() -> StoreError {
    StoreError::new(ErrorClass::NotSent, "the store is closed")
}

/// Runs `work` on a thread for blocking work.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| {
        Err(StoreError::new(ErrorClass::Unexpected, "a thread of the store panicked").with_source(error))
    })
}
