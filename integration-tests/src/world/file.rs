//! A file of the embedded store, of a test's own.

use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags};
use tempfile::TempDir;

use crate::eventually::SOON;

/// The name of the file in the test's folder.
const NAME: &str = "events.db";

/// A folder of the test's own, for the file of an embedded store. It is removed at the end, also when the test fails.
#[derive(Debug)]
pub struct File {
    folder: TempDir,
    url: String,
}

impl File {
    pub(super) fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let url = format!("sqlite://{}", folder.path().join(NAME).display());
        File { folder, url }
    }

    /// The folder, which contains only what services have created.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The file, which a service creates.
    pub fn path(&self) -> PathBuf {
        self.folder.path().join(NAME)
    }

    /// The names of the files in the folder, sorted.
    pub fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(self.folder())
            .expect("a folder of our own")
            .map(|entry| entry.expect("a folder of our own").file_name())
            .map(|name| name.into_string().expect("UTF-8"))
            .collect();
        names.sort();
        names
    }

    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// A connection of the test's own. It waits for the locks of services.
    pub fn connect(&self) -> Connection {
        // Without the flag to create the file: a test that expects it must fail if it is missing.
        let connection = Connection::open_with_flags(self.path(), OpenFlags::SQLITE_OPEN_READ_WRITE)
            .unwrap_or_else(|error| panic!("{}: {error}", self.path().display()));
        connection.busy_timeout(SOON).expect("a time that fits");
        connection
    }

    pub(super) fn execute(&self, sql: &str) {
        self.connect()
            .execute_batch(sql)
            .unwrap_or_else(|error| panic!("{sql}: {error}"));
    }

    pub(super) fn texts(&self, sql: &str) -> Vec<String> {
        let connection = self.connect();
        let mut statement = connection.prepare(sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
        let texts = statement.query_map([], |row| row.get(0)).and_then(Iterator::collect);
        texts.unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    pub(super) fn row(&self, sql: &str) -> Vec<i64> {
        self.connect()
            .prepare(sql)
            .and_then(|mut statement| {
                let columns = statement.column_count();
                statement.query_row([], |row| (0..columns).map(|column| row.get(column)).collect())
            })
            .unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    pub(super) fn hold_writers(&self) -> Connection {
        let connection = self.connect();
        connection
            .execute_batch("begin immediate")
            .expect("the schema of the service");
        connection
    }

    /// Asserts that SQLite finds no corruption.
    pub fn check_integrity(&self) {
        let found: String = self
            .connect()
            .query_row("pragma integrity_check", [], |row| row.get(0))
            .expect("a file that can be read");
        assert_eq!(found, "ok");
    }
}
