//! The real binary: how its processes start, how they are killed and stopped, and what they logged.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::ops::Deref;
use std::path::{Path, PathBuf, absolute};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, ensure};
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::api::Api;
use crate::environment;
use crate::eventually::{SOON, block_until, eventually};
use crate::http::try_ask;
use crate::processes;

/// How long a command may take: the load generator, with everything being killed under it, is the slowest.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(120);

/// The number of log lines that are shown when a test fails.
const LOG_LINES_SHOWN: usize = 60;

/// What a process of the binary is started with. It inherits nothing else from the environment of the tests.
#[derive(Debug, Clone)]
pub struct Settings {
    starter: Vec<String>,
    variables: BTreeMap<String, String>,
    arguments: Vec<String>,
    folder: Option<PathBuf>,
}

impl Settings {
    /// A service on a free port of 127.0.0.1, with its log at info in JSON.
    pub fn new(database_url: &str) -> Self {
        let settings = Settings {
            starter: Vec::new(),
            variables: BTreeMap::new(),
            arguments: vec!["serve".to_owned()],
            folder: None,
        };
        settings
            .with("DATABASE_URL", database_url)
            .with("HOST", "127.0.0.1")
            .with("PORT", "0")
            .with("LOG_FORMAT", "json")
            .with("RUST_LOG", "info")
    }

    /// The same with a variable set.
    #[must_use]
    pub fn with(mut self, variable: &str, value: &str) -> Self {
        self.variables.insert(variable.to_owned(), value.to_owned());
        self
    }

    /// The same without a variable.
    #[must_use]
    pub fn without(mut self, variable: &str) -> Self {
        self.variables.remove(variable);
        self
    }

    /// The same with this as the current folder.
    #[must_use]
    pub fn within(mut self, folder: &Path) -> Self {
        self.folder = Some(folder.to_owned());
        self
    }

    /// The same, started by a program that becomes the binary, with these arguments before the binary's path.
    #[must_use]
    pub fn by(mut self, program: &str, arguments: &[String]) -> Self {
        self.starter = [&[program.to_owned()], arguments].concat();
        self
    }

    /// The same with other arguments than `serve`.
    #[must_use]
    pub fn arguments(mut self, arguments: &[&str]) -> Self {
        self.arguments = arguments.iter().map(ToString::to_string).collect();
        self
    }

    /// The process, not yet started.
    pub(crate) fn command(&self) -> Command {
        let binary = binary();
        let mut command = match self.starter.split_first() {
            None => Command::new(binary),
            Some((program, arguments)) => {
                let mut command = Command::new(program);
                command.args(arguments).arg(binary);
                command
            }
        };
        if let Some(folder) = &self.folder {
            command.current_dir(folder);
        }
        command
            .args(&self.arguments)
            .env_clear()
            .envs(&self.variables)
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command
    }

    /// Runs the process until it ends by itself.
    pub async fn run(&self) -> Finished {
        let output = timeout(COMMAND_TIMEOUT, self.command().output())
            .await
            .unwrap_or_else(|_| panic!("{:?} did not end in {COMMAND_TIMEOUT:?}", self.arguments))
            .expect("the binary starts");
        Finished {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// A process that has ended.
#[derive(Debug)]
pub struct Finished {
    /// The exit code, or none after a signal.
    pub code: Option<i32>,
    /// What it wrote to its standard output.
    pub stdout: String,
    /// What it wrote to its standard error.
    pub stderr: String,
}

impl Finished {
    /// Asserts the exit code, and shows the output if it is another one.
    #[track_caller]
    pub fn ended_with(&self, code: i32) -> &Self {
        assert_eq!(self.code, Some(code), "{}{}", self.stdout, self.stderr);
        self
    }

    /// The whole number in the row with this name of the table on standard output. Its digits may be grouped.
    #[track_caller]
    pub fn count(&self, name: &str) -> i64 {
        self.row(name, |value| value.replace([',', ' '], "").parse().ok())
    }

    /// The milliseconds in the row with this name of the table on standard output.
    #[track_caller]
    pub fn milliseconds(&self, name: &str) -> f64 {
        self.row(name, |value| value.strip_suffix("ms")?.trim().parse().ok())
    }

    #[track_caller]
    fn row<T>(&self, name: &str, parse: impl Fn(&str) -> Option<T>) -> T {
        self.stdout
            .lines()
            .find_map(|line| parse(line.trim().strip_prefix(name)?.trim()))
            .unwrap_or_else(|| panic!("no row {name}:\n{}{}", self.stdout, self.stderr))
    }
}

/// A signal to a process or a server.
#[derive(Debug, Clone, Copy)]
pub enum Signal {
    /// What a container's runtime sends first.
    Term,
    /// What Ctrl-C sends.
    Interrupt,
    /// What the end of a terminal sends.
    Hangup,
    /// What PostgreSQL treats as `-m immediate`.
    Quit,
    /// What `kill -9` sends.
    Kill,
    /// Freezes a process.
    Stop,
    /// Lets a frozen process go on.
    Continue,
}

/// Sends a signal to a process that this test has started.
pub fn send(signal: Signal, pid: u32) {
    let name = match signal {
        Signal::Term => "TERM",
        Signal::Interrupt => "INT",
        Signal::Hangup => "HUP",
        Signal::Quit => "QUIT",
        Signal::Kill => "KILL",
        Signal::Stop => "STOP",
        Signal::Continue => "CONT",
    };
    // The `kill` of the shell: the standard library has none, and a minimal machine has no such program.
    let status = std::process::Command::new("sh")
        .args(["-c", &format!("kill -s {name} {pid}")])
        .status()
        .expect("every machine has a shell");
    assert!(status.success(), "no process {pid} to send {name} to");
}

/// A running service, with the methods of an [`Api`]. Dropping it kills the process and waits until it is gone.
#[derive(Debug)]
pub struct Service {
    settings: Settings,
    folder: TempDir,
    child: Child,
    api: Api,
}

impl Service {
    /// Starts a service and waits until it listens, which is before it is ready.
    pub async fn start(settings: Settings) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let settings = settings.with(
            "EVENTSIEVE_READY_FILE",
            folder
                .path()
                .join("ready")
                .to_str()
                .expect("temporary folders have UTF-8 names"),
        );
        let child = launch(&settings, &folder);
        let mut service = Service {
            settings,
            folder,
            child,
            // Its ready-file contains its port once it listens.
            api: Api::at(""),
        };
        service.wait_until_listening().await;
        service
    }

    async fn wait_until_listening(&mut self) {
        let ready_file = self.folder.path().join("ready");
        let child = &mut self.child;
        let url = eventually(SOON, async || {
            let ended = child.try_wait()?;
            assert!(ended.is_none(), "the service ended before it listened: {ended:?}");
            let line = fs::read_to_string(&ready_file).context("no ready-file")?;
            Ok(line.trim().to_owned())
        })
        .await;
        self.api = Api::at(&url);
    }

    /// Waits until `/readyz` answers 200.
    pub async fn ready(&self) {
        self.ready_within(SOON).await;
    }

    /// Waits until `/readyz` answers 200, for no longer than `deadline`.
    pub async fn ready_within(&self, deadline: Duration) {
        eventually(deadline, async || self.expect_status("/readyz", 200).await).await;
    }

    /// Waits until `/readyz` answers 503, for no longer than `deadline`.
    pub async fn unready_within(&self, deadline: Duration) {
        eventually(deadline, async || self.expect_status("/readyz", 503).await).await;
    }

    async fn expect_status(&self, path: &str, status: u16) -> anyhow::Result<()> {
        let answer = try_ask(self.get(path)).await?;
        ensure!(answer.status == status, "{path}: {} {}", answer.status, answer.text());
        Ok(())
    }

    /// Kills the process as `kill -9` does, and waits until it is gone.
    pub async fn kill(&mut self) {
        self.child.kill().await.expect("a process of our own can be killed");
    }

    /// Sends the process a signal.
    pub fn signal(&self, signal: Signal) {
        send(signal, self.pid());
    }

    /// Waits until the process has ended by itself, for no longer than `deadline`.
    pub async fn ended_within(&mut self, deadline: Duration) -> ExitStatus {
        timeout(deadline, self.child.wait())
            .await
            .unwrap_or_else(|_| panic!("the service still runs after {deadline:?}"))
            .expect("a process of our own can be waited for")
    }

    /// Sends SIGTERM, and waits until the process has drained and exited with 0.
    pub async fn stop(&mut self) {
        self.signal(Signal::Term);
        let status = self.ended_within(SOON).await;
        assert_eq!(status.code(), Some(0), "a stopped service exits with 0");
    }

    /// Starts the process again on the same port, with the same settings, and waits until it listens.
    pub async fn restart(&mut self) {
        self.kill().await;
        let port = self.url().rsplit(':').next().expect("a URL with a port");
        self.settings = self.settings.clone().with("PORT", port);
        let ready_file = self.folder.path().join("ready");
        fs::remove_file(ready_file).expect("the killed process has left its ready-file");
        self.child = launch(&self.settings, &self.folder);
        self.wait_until_listening().await;
    }

    /// The process's id.
    pub fn pid(&self) -> u32 {
        self.child.id().expect("the process runs")
    }

    /// What it was started with.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// What it has written to standard output and standard error.
    pub fn log(&self) -> String {
        let mut log = Vec::new();
        File::open(self.folder.path().join("log"))
            .and_then(|mut file| file.read_to_end(&mut log))
            .expect("the log of the service");
        String::from_utf8_lossy(&log).into_owned()
    }

    /// Its resident memory in bytes.
    pub fn resident_bytes(&self) -> u64 {
        processes::resident_bytes(self.pid()).expect("the process runs")
    }

    /// Its processor time so far.
    pub fn processor_time(&self) -> Duration {
        processes::processor_time(self.pid()).expect("the process runs")
    }

    /// The number of its open file descriptors.
    pub fn open_files(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.pid()))
            .expect("the process runs")
            .count()
    }

    /// The number of open connections of clients to its IPv4 port.
    pub fn open_connections(&self) -> usize {
        let (_, port) = self.address().rsplit_once(':').expect("an address has a port");
        let port = port.parse().expect("a port is a number");
        processes::open_connections(self.pid(), port).expect("the process runs")
    }
}

impl Deref for Service {
    type Target = Api;

    fn deref(&self) -> &Api {
        &self.api
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            let shown = &lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..];
            eprintln!("--- the log of {} ends:\n{}", self.url(), shown.join("\n"));
        }
        end(&mut self.child);
    }
}

/// Kills a process and waits until it is gone, because until then it holds its port, and the file of an embedded store.
pub(crate) fn end(child: &mut Child) {
    // A process that has ended by itself need not be killed.
    drop(child.start_kill());
    block_until(|| !matches!(child.try_wait(), Ok(None)));
}

fn launch(settings: &Settings, folder: &TempDir) -> Child {
    let log = File::options()
        .create(true)
        .append(true)
        .open(folder.path().join("log"))
        .expect("a file in a folder of our own");
    let both = log.try_clone().expect("a descriptor more");
    settings
        .command()
        .stdout(log)
        .stderr(both)
        .spawn()
        .expect("the binary starts")
}

/// The binary: `EVENTSIEVE_BIN`, or what cargo has built beside the tests.
pub fn binary() -> PathBuf {
    if let Some(path) = environment("EVENTSIEVE_BIN") {
        // The process may run in another current folder.
        return absolute(path).expect("a path that is not empty");
    }
    let test = std::env::current_exe().expect("a test knows its own path");
    let path = test
        .ancestors()
        .nth(2)
        .expect("tests lie in target/PROFILE/deps")
        .join("eventsieve");
    assert!(path.is_file(), "there is no {}: run cargo build first", path.display());
    path
}
