//! PostgreSQL servers of a test's own, for tests that kill a server, hold transactions open, or need passwords.

use std::fs::{self, File};
use std::net::Ipv4Addr;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};

use anyhow::ensure;
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};
use tempfile::TempDir;
use tokio::net::TcpSocket;

use crate::environment;
use crate::eventually::{SOON, eventually};
use crate::service::{Signal, send};

/// Linux assigns ports from 32768 on to outgoing connections: below that, a port stays free while a server restarts.
const FIRST_PORT: u16 = 20_000;
const PORTS: u16 = 12_000;

/// The password of the superuser of a server with passwords.
pub const PASSWORD: &str = "right-Sw0rdfish";

/// How connections are authenticated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Authentication {
    /// No password is needed.
    Trust,
    /// The superuser needs [`PASSWORD`].
    Password,
}

/// A server with `fsync` on, in a temporary folder. It is killed and removed when this is dropped.
#[derive(Debug)]
pub struct PostgresServer {
    folder: TempDir,
    port: u16,
    authentication: Authentication,
    settings: Vec<String>,
    process: Option<Child>,
}

impl PostgresServer {
    /// Starts a server without a password, and waits until it accepts connections.
    pub async fn new() -> Self {
        Self::with(Authentication::Trust).await
    }

    /// Starts a server, and waits until it accepts connections.
    pub async fn with(authentication: Authentication) -> Self {
        Self::made(authentication, &[]).await
    }

    /// Starts a server without a password, with settings such as `shared_buffers=1GB`, and waits until it accepts connections.
    pub async fn with_settings(settings: &[&str]) -> Self {
        Self::made(Authentication::Trust, settings).await
    }

    async fn made(authentication: Authentication, settings: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        give_away(folder.path());
        let mut server = PostgresServer {
            folder,
            port: free_port(),
            authentication,
            settings: settings
                .iter()
                .flat_map(|setting| ["-c", setting])
                .map(str::to_owned)
                .collect(),
            process: None,
        };
        server.initialise();
        server.start().await;
        server
    }

    fn initialise(&self) {
        let password = self.folder.path().join("password");
        fs::write(&password, PASSWORD).expect("a file in a folder of our own");
        give_away(&password);
        let method = match self.authentication {
            Authentication::Trust => "trust",
            Authentication::Password => "scram-sha-256",
        };
        // The initial files of a short-lived server need not be synced; its commits are.
        let output = postgres_program("initdb")
            .args(["--username=postgres", "--encoding=UTF8", "--locale=C", "--no-sync"])
            .arg(format!("--auth={method}"))
            .arg(format!("--pwfile={}", password.display()))
            .arg(self.data())
            .output()
            .expect("initdb runs");
        assert!(
            output.status.success(),
            "initdb: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }

    /// Starts the server after [`Self::kill`], on the same port, and waits until it accepts connections.
    pub async fn start(&mut self) {
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.folder.path().join("log"))
            .expect("a file in a folder of our own");
        let both = log.try_clone().expect("a descriptor more");
        let process = postgres_program("postgres")
            .arg("-D")
            .arg(self.data())
            .args(["-p", &self.port.to_string()])
            .args(["-c", "listen_addresses=127.0.0.1"])
            .args(["-c", "unix_socket_directories="])
            .args(["-c", "max_connections=100"])
            .args(&self.settings)
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(both)
            .spawn()
            .expect("postgres starts");
        self.process = Some(process);
        self.accepts().await;
    }

    /// Kills the server as `pg_ctl stop -m immediate` does: it writes nothing more, and the next start runs recovery.
    pub async fn kill(&mut self) {
        self.end(Signal::Quit).await;
    }

    /// A streaming standby of this server: a copy of it that follows it, and can be read.
    pub async fn standby(&self) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        give_away(folder.path());
        let mut standby = PostgresServer {
            folder,
            port: free_port(),
            authentication: self.authentication,
            settings: self.settings.clone(),
            process: None,
        };
        let output = postgres_program("pg_basebackup")
            .args(["--write-recovery-conf", "--checkpoint=fast", "--no-sync"])
            .arg(format!("--pgdata={}", standby.data().display()))
            .arg(format!("--dbname={}", self.url()))
            .output()
            .expect("pg_basebackup runs");
        assert!(
            output.status.success(),
            "pg_basebackup: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        standby.start().await;
        standby
    }

    /// Makes a standby the primary.
    pub async fn promote(&self) {
        self.execute("select pg_promote()").await;
    }

    /// Executes statements as the superuser, each in a transaction of its own.
    pub async fn execute(&self, statements: &str) {
        let mut connection = PgConnection::connect(&self.url())
            .await
            .expect("the server of the test");
        for statement in statements.split(';') {
            connection
                .execute(AssertSqlSafe(statement.to_owned()))
                .await
                .unwrap_or_else(|error| panic!("{statement}: {error}"));
        }
    }

    /// The one text that a query gives.
    pub async fn text(&self, query: &str) -> String {
        let mut connection = PgConnection::connect(&self.url())
            .await
            .expect("the server of the test");
        sqlx::query_scalar(AssertSqlSafe(query.to_owned()))
            .fetch_one(&mut connection)
            .await
            .unwrap_or_else(|error| panic!("{query}: {error}"))
    }

    /// Kills one of the server's processes as `kill -9` does: the server ends all others, and recovers.
    pub async fn crash_backend(&self) {
        let connect = async || {
            PgConnection::connect(&self.url())
                .await
                .expect("the server of the test")
        };
        let mut connection = connect().await;
        // Until the server has noticed, its other processes go on.
        let mut other = connect().await;
        let pid: i32 = sqlx::query_scalar("select pg_backend_pid()")
            .fetch_one(&mut connection)
            .await
            .expect("any connection has a process");
        send(Signal::Kill, u32::try_from(pid).expect("a process id"));
        eventually(SOON, async || {
            ensure!(other.ping().await.is_err(), "its processes still run");
            Ok(())
        })
        .await;
        self.accepts().await;
    }

    /// Asks the server to stop as `pg_ctl stop -m fast` does, and waits until it has.
    pub async fn stop(&mut self) {
        self.end(Signal::Interrupt).await;
    }

    async fn accepts(&self) {
        // A server that was killed syncs all its files before it accepts connections.
        eventually(3 * SOON, async || {
            Ok(PgConnection::connect(&self.url()).await?.close().await?)
        })
        .await;
    }

    async fn end(&mut self, signal: Signal) {
        let mut process = self.process.take().expect("the server runs");
        send(signal, process.id());
        eventually(SOON, async || {
            process.try_wait()?.ok_or_else(|| anyhow::anyhow!("it still runs"))
        })
        .await;
    }

    /// Copies a database of this server to another one by a dump.
    pub fn dump_to(&self, database: &str, other: &Self) {
        let url = |server: &Self, database: &str| server.url().replace("/postgres?", &format!("/{database}?"));
        let dump = postgres_program("pg_dump")
            .arg(url(self, database))
            .arg("--create")
            .output()
            .expect("pg_dump runs");
        assert!(
            dump.status.success(),
            "pg_dump: {}",
            String::from_utf8_lossy(&dump.stderr)
        );
        let file = other.folder.path().join("dump.sql");
        fs::write(&file, dump.stdout).expect("a file in a folder of our own");
        give_away(&file);
        let restored = postgres_program("psql")
            .args(["--quiet", "--no-psqlrc", "--set=ON_ERROR_STOP=1"])
            .arg(format!("--file={}", file.display()))
            .arg(other.url())
            .output()
            .expect("psql runs");
        assert!(
            restored.status.success(),
            "psql: {}",
            String::from_utf8_lossy(&restored.stderr)
        );
    }

    /// A transaction in a database without a service, which has an id and stays open: whatever a service on this server commits
    /// meanwhile is not yet stable.
    pub async fn unended_transaction(&self) -> PgConnection {
        let mut connection = PgConnection::connect(&self.url())
            .await
            .expect("the server of the test");
        connection
            .execute("begin; select pg_current_xact_id()")
            .await
            .expect("any transaction can get an id");
        connection
    }

    /// The process's id.
    pub fn pid(&self) -> u32 {
        self.process.as_ref().expect("the server runs").id()
    }

    /// The superuser's URL of its database `postgres`.
    pub fn url(&self) -> String {
        let password = match self.authentication {
            Authentication::Trust => String::new(),
            Authentication::Password => format!(":{PASSWORD}"),
        };
        format!(
            "postgres://postgres{password}@127.0.0.1:{}/postgres?sslmode=disable",
            self.port
        )
    }

    /// The port it listens on.
    pub fn port(&self) -> u16 {
        self.port
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }
}

impl Drop for PostgresServer {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = fs::read_to_string(self.folder.path().join("log"));
            eprintln!("--- the log of PostgreSQL:\n{}", log.unwrap_or_default());
        }
        let Some(mut process) = self.process.take() else {
            return;
        };
        // The server ends its child processes at once on SIGQUIT; SIGKILL would leave them behind.
        send(Signal::Quit, process.id());
        drop(process.wait());
    }
}

/// A port that is not in use, and that no outgoing connection will get.
///
/// The port is tested by binding a socket, without listening: a process that another thread is just starting inherits our sockets
/// until it calls `exec`, and a listening socket would block the port for that time. A bound socket does not.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Each test process starts at another port.
    let start = u16::try_from(std::process::id() * 37 % u32::from(PORTS)).expect("PORTS is a u16");
    loop {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = FIRST_PORT + (start + step) % PORTS;
        let socket = TcpSocket::new_v4().expect("a socket more");
        socket.set_reuseaddr(true).expect("a socket of our own takes options");
        if socket.bind((Ipv4Addr::LOCALHOST, port).into()).is_ok() {
            return port;
        }
    }
}

/// One of PostgreSQL's programs, run as a user that it accepts.
fn postgres_program(name: &str) -> Command {
    let folder = environment("EVENTSIEVE_TEST_PG_BIN")
        .expect("EVENTSIEVE_TEST_PG_BIN is not set: run the tests with `make test`");
    let program = Path::new(&folder).join(name);
    let Some(user) = environment("EVENTSIEVE_TEST_PG_USER") else {
        return Command::new(program);
    };
    let mut command = Command::new("setpriv");
    command
        .arg(format!("--reuid={}", id_of(&user, "-u")))
        .arg(format!("--regid={}", id_of(&user, "-g")))
        .arg("--clear-groups")
        .arg(program);
    command
}

/// Changes the owner of a file or a folder to the user that PostgreSQL runs as.
pub(crate) fn give_away(path: &Path) {
    if let Some(user) = environment("EVENTSIEVE_TEST_PG_USER") {
        chown(path, Some(id_of(&user, "-u")), Some(id_of(&user, "-g"))).expect("root can change the owner of files");
    }
}

fn id_of(user: &str, which: &str) -> u32 {
    let output = Command::new("id")
        .args([which, user])
        .output()
        .expect("every machine has `id`");
    String::from_utf8_lossy(&output.stdout)
        .trim()
        .parse()
        .unwrap_or_else(|_| panic!("there is no user {user}"))
}
