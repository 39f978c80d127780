//! A PgBouncer of a test's own in front of a PostgreSQL of its own.

use std::fs::{self, File};
use std::process::{Child, Command, Stdio};

use sqlx::{Connection, PgConnection};
use tempfile::TempDir;

use crate::environment;
use crate::eventually::{SOON, eventually};
use crate::postgres::{PostgresServer, free_port, give_away};
use crate::service::{Signal, send};

/// Which one, as installed by `integration-tests/setup test`.
#[derive(Debug, Clone, Copy)]
pub enum Version {
    /// That of this system.
    Installed,
    /// That of Debian 13, 1.24.
    Next,
}

impl Version {
    fn program(self) -> &'static str {
        match self {
            Version::Installed => "/usr/sbin/pgbouncer",
            Version::Next => concat!(env!("CARGO_MANIFEST_DIR"), "/../target/next/pgbouncer"),
        }
    }
}

/// A PgBouncer. It ends when this is dropped.
#[derive(Debug)]
pub struct PgBouncer {
    folder: TempDir,
    port: u16,
    process: Child,
}

impl PgBouncer {
    /// Starts one with its default settings, but for the mode (`session` or `transaction`) and the number of connections that a
    /// database has, and waits until it accepts connections.
    pub async fn new(server: &PostgresServer, version: Version, mode: &str, connections: u32) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let port = free_port();
        let config = folder.path().join("pgbouncer.ini");
        // It does not run as root, and changes to another user by itself.
        let user = environment("EVENTSIEVE_TEST_PG_USER").map_or(String::new(), |user| format!("user = {user}\n"));
        let text = format!(
            "[databases]\n* = host=127.0.0.1 port={} user=postgres\n\
             [pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\nauth_type = any\n\
             pool_mode = {mode}\ndefault_pool_size = {connections}\n{user}",
            server.port()
        );
        fs::write(&config, text).expect("a file in a folder of our own");
        give_away(folder.path());
        give_away(&config);
        let log = File::create(folder.path().join("log")).expect("a file in a folder of our own");
        let process = Command::new(version.program())
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("it is there after `integration-tests/setup test`");
        let pooler = Self { folder, port, process };
        let url = pooler.through(&server.url());
        eventually(SOON, async || {
            // Its own statements are unnamed, as the pooler may be in any mode.
            let mut connection = pooler.connect(&url).await?;
            Ok(connection.ping().await?)
        })
        .await;
        pooler
    }

    /// The URL of a database, through the pooler.
    pub fn through(&self, url: &str) -> String {
        let mut url = reqwest::Url::parse(url).expect("a URL of a database");
        url.set_port(Some(self.port)).expect("it has a host");
        url.into()
    }

    /// A connection through the pooler, as another program would have.
    pub async fn connect(&self, url: &str) -> sqlx::Result<PgConnection> {
        let options: sqlx::postgres::PgConnectOptions = url.parse()?;
        PgConnection::connect_with(&options.extra_float_digits(None)).await
    }
}

impl Drop for PgBouncer {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = fs::read_to_string(self.folder.path().join("log"));
            eprintln!("--- the log of PgBouncer:\n{}", log.unwrap_or_default());
        }
        send(Signal::Quit, self.process.id());
        drop(self.process.wait());
    }
}
