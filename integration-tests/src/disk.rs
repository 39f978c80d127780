//! Disks of a test's own, which fill up or become read-only.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::PathBuf;
use std::process::Stdio;

use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use crate::service::Settings;

/// Mounts a disk, prints `mounted`, and keeps the mount until standard input is closed.
const HOLD: &str = r#"mount -t tmpfs -o "$2" eventsieve "$1" && echo mounted && exec cat"#;

/// A disk in memory. Only processes that are started on it can see it, and the test by [`Disk::path`]. It is removed with this value.
///
/// It is mounted in a namespace of its own, so it needs no clean-up and no root.
#[derive(Debug)]
pub struct Disk {
    folder: TempDir,
    holder: Child,
}

impl Disk {
    /// A disk with these options of `mount`, such as `size=4m`.
    pub async fn new(options: &str) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut holder = Command::new("unshare")
            .args(["--mount", "--map-root-user", "sh", "-c", HOLD, "sh"])
            .arg(folder.path())
            .arg(options)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("util-linux is on every Linux");
        let stdout = holder.stdout.take().expect("it is piped");
        let line = BufReader::new(stdout).lines().next_line().await;
        assert_eq!(
            line.ok().flatten().as_deref(),
            Some("mounted"),
            "no disk can be mounted: may this user create namespaces (user.max_user_namespaces, \
             kernel.apparmor_restrict_unprivileged_userns)?"
        );
        Disk { folder, holder }
    }

    /// The file with this name on the disk, as processes on it see it.
    pub fn inside(&self, name: &str) -> String {
        let path = self.folder.path().join(name);
        path.to_str().expect("temporary folders have UTF-8 names").to_owned()
    }

    /// The same file as the test sees it.
    pub fn path(&self, name: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{}", self.holder(), self.inside(name)))
    }

    /// A process with these settings that sees the disk.
    pub fn enter(&self, settings: Settings) -> Settings {
        let (program, arguments) = self.way_in();
        settings.by(program, &arguments)
    }

    /// The program, and its arguments, by which a command is started on the disk.
    fn way_in(&self) -> (&'static str, Vec<String>) {
        let target = format!("--target={}", self.holder());
        let arguments = ["--preserve-credentials", "--user", "--mount", &target];
        ("nsenter", arguments.map(str::to_owned).to_vec())
    }

    /// Makes it read-only (`ro`) or writable (`rw`). No process may have a file open for writing.
    pub async fn remount(&self, option: &str) {
        // Only the mount is changed: changing the file system itself needs root.
        let remount = format!("remount,bind,{option}");
        let (program, arguments) = self.way_in();
        let status = Command::new(program)
            .args(arguments)
            .args(["mount", "-o", &remount])
            .arg(self.folder.path())
            .status()
            .await
            .expect("util-linux is on every Linux");
        assert!(status.success(), "the disk is in use");
    }

    fn holder(&self) -> u32 {
        self.holder.id().expect("it runs until this is dropped")
    }

    /// Writes a file that takes up all free space.
    pub fn fill(&self) {
        let mut filling = File::create(self.path("filling")).expect("a file more");
        loop {
            match filling.write_all(&[0; 512]) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::StorageFull => return,
                Err(error) => panic!("the disk does not fill up: {error}"),
            }
        }
    }

    /// Removes the file of [`Disk::fill`].
    pub fn make_room(&self) {
        fs::remove_file(self.path("filling")).expect("the disk was filled");
    }
}
