//! A control group with a limit of memory, in either version.

use std::fs;
use std::path::{Path, PathBuf};

use uuid::Uuid;

use crate::eventually::{SOON, eventually};

/// A group for processes of this machine.
pub struct MemoryGroup {
    folder: PathBuf,
    peak: &'static str,
}

impl MemoryGroup {
    /// A group whose processes together may use so many bytes, and no swap.
    pub fn new(bytes: u64) -> Self {
        let name = format!("eventsieve-test-{}", Uuid::new_v4().simple());
        let first = Path::new("/sys/fs/cgroup/memory");
        let (folder, limit, peak) = if first.is_dir() {
            (first.join(name), "memory.limit_in_bytes", "memory.max_usage_in_bytes")
        } else {
            (Path::new("/sys/fs/cgroup").join(name), "memory.max", "memory.peak")
        };
        fs::create_dir(&folder).unwrap_or_else(|error| panic!("cannot make a control group: {error}"));
        let group = Self { folder, peak };
        fs::write(group.folder.join(limit), bytes.to_string()).expect("the limit of a group of our own");
        group
    }

    /// The program, with its arguments, that starts another one in the group.
    pub fn starter(&self) -> (String, Vec<String>) {
        let procs = self.folder.join("cgroup.procs");
        let script = format!("echo $$ > '{}' && exec \"$0\" \"$@\"", procs.display());
        ("/bin/sh".to_owned(), vec!["-c".to_owned(), script])
    }

    /// The same, with standard error written to a file.
    pub fn starter_with_log(&self, log: &Path) -> (String, Vec<String>) {
        let procs = self.folder.join("cgroup.procs");
        let script = format!(
            "echo $$ > '{}' && exec \"$0\" \"$@\" 2>'{}'",
            procs.display(),
            log.display()
        );
        ("/bin/sh".to_owned(), vec!["-c".to_owned(), script])
    }

    /// Removes the group, once the last of its processes has ended.
    pub async fn remove(self) {
        eventually(SOON, async || Ok(fs::remove_dir(&self.folder)?)).await;
    }

    /// The most bytes that were used, caches of files included.
    pub fn peak(&self) -> u64 {
        let text = fs::read_to_string(self.folder.join(self.peak)).expect("a figure of a group of our own");
        text.trim().parse().expect("a number of bytes")
    }
}

impl Drop for MemoryGroup {
    fn drop(&mut self) {
        // After a failure a process may still be in it: then it stays, without a limit for anybody else.
        fs::remove_dir(&self.folder).ok();
    }
}
