//! A command that runs until a signal ends it: its output so far, its ports, and how it ends.

use std::collections::{BTreeSet, HashSet};
use std::fs::{self, File};
use std::process::Stdio;
use std::time::Duration;

use anyhow::ensure;
use tempfile::TempDir;
use tokio::process::Child;
use tokio::time::timeout;

use crate::eventually::eventually;
use crate::service::{Finished, Settings, Signal, end, send};

/// How long an output or an exit may take: `demo` publishes 20 000 events meanwhile, with each commit on disk.
const PATIENCE: Duration = Duration::from_secs(60);

/// The state of a listening socket in `/proc/net/tcp`.
const LISTEN: &str = "0A";

/// A process of the binary, in a process group of its own. Dropping it kills the process and waits until it is gone.
#[derive(Debug)]
pub struct Program {
    child: Child,
    pid: u32,
    folder: TempDir,
}

impl Program {
    /// Starts it.
    pub fn start(settings: &Settings) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let file = |name| Stdio::from(File::create(folder.path().join(name)).expect("a file in a folder of our own"));
        let child = settings
            .command()
            .process_group(0)
            .stdout(file("stdout"))
            .stderr(file("stderr"))
            .spawn()
            .expect("the binary starts");
        let pid = child.id().expect("the process was just started");
        Self { child, pid, folder }
    }

    /// What it has written to its standard output.
    pub fn stdout(&self) -> String {
        self.written("stdout")
    }

    /// What it has written to its standard error.
    pub fn stderr(&self) -> String {
        self.written("stderr")
    }

    /// Asserts that it still runs.
    pub fn runs(&mut self) {
        let ended = self.child.try_wait().expect("a process of our own can be queried");
        assert!(ended.is_none(), "it ended: {ended:?}: {}", self.stderr());
    }

    fn written(&self, name: &str) -> String {
        let text = fs::read(self.folder.path().join(name)).expect("the file that the process writes");
        String::from_utf8_lossy(&text).into_owned()
    }

    /// Waits until `condition` holds for its standard output, and returns the output.
    pub async fn prints(&self, what: &str, condition: impl Fn(&str) -> bool) -> String {
        eventually(PATIENCE, async || {
            let output = self.stdout();
            ensure!(
                condition(&output),
                "{what} is not in the output: {output}{}",
                self.written("stderr")
            );
            Ok(output)
        })
        .await
    }

    /// Sends it a signal and waits until it has ended.
    pub async fn stop(self, signal: Signal) -> Finished {
        send(signal, self.pid);
        self.ended().await
    }

    /// Waits until it has ended.
    pub async fn ended(mut self) -> Finished {
        let status = timeout(PATIENCE, self.child.wait())
            .await
            .unwrap_or_else(|_| panic!("it still runs: {}{}", self.stdout(), self.written("stderr")))
            .expect("a process of our own can be waited for");
        assert!(!self.has_left_processes(), "a process of its group still runs");
        Finished {
            code: status.code(),
            stdout: self.stdout(),
            stderr: self.written("stderr"),
        }
    }

    fn has_left_processes(&self) -> bool {
        // The `kill` of the shell, as in `send`. It fails if the group does not exist.
        std::process::Command::new("sh")
            .args(["-c", &format!("kill -s 0 -- -{}", self.pid)])
            .stderr(Stdio::null())
            .status()
            .expect("every machine has a shell")
            .success()
    }

    /// The ports of its listening TCP sockets and of all its UDP sockets.
    pub fn ports(&self) -> BTreeSet<u16> {
        let descriptors = fs::read_dir(format!("/proc/{}/fd", self.pid)).expect("the process runs");
        let sockets: HashSet<String> = descriptors
            .filter_map(|descriptor| fs::read_link(descriptor.ok()?.path()).ok())
            .filter_map(|target| Some(target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned()))
            .collect();
        ["tcp", "tcp6", "udp", "udp6"]
            .iter()
            .flat_map(|protocol| {
                let table = fs::read_to_string(format!("/proc/{}/net/{protocol}", self.pid)).unwrap_or_default();
                let is_tcp = protocol.starts_with("tcp");
                table
                    .lines()
                    .skip(1)
                    .filter_map(|line| {
                        let columns: Vec<&str> = line.split_whitespace().collect();
                        let is_open = sockets.contains(columns[9]) && (!is_tcp || columns[3] == LISTEN);
                        let port = columns[1].rsplit(':').next()?;
                        is_open.then(|| u16::from_str_radix(port, 16).expect("ports are in hexadecimal"))
                    })
                    .collect::<Vec<_>>()
            })
            .collect()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}
