//! The memory that the process may use, and the limits that follow from it where none are set.

use std::fs;
use std::path::{Path, PathBuf};

use super::http::HttpConfig;
use super::ingest::{EVENT_BYTES, IngestConfig};

/// A setting with this value follows from the memory.
pub(super) const AUTO: usize = 0;

/// The limits where the memory sets none.
const QUEUE_BYTES: usize = 32 << 20;
const ANSWER_BYTES: usize = 64 << 20;
const CONNECTIONS: usize = 8192;

/// Their parts of the memory: a sixteenth, an eighth, and for each connection so many bytes. What a batch takes on its way to the store
/// comes to about twice the queue, so that together they leave half to the rest.
const QUEUE_PART: usize = 16;
const ANSWER_PART: usize = 8;
const CONNECTION_BYTES: usize = 64 << 10;

/// The least room for all answers together, and the least number of connections that is chosen.
pub(super) const ANSWER_BYTES_MIN: usize = 16 << 20;
const CONNECTIONS_MIN: usize = 256;

/// Where the system keeps its control groups.
const CGROUPS: &str = "/sys/fs/cgroup";

/// Sets the limits that follow from the memory. `limit`: how many bytes the process may use, if that is known.
pub(super) fn derive_limits(http: &mut HttpConfig, ingest: &mut IngestConfig, limit: Option<usize>) {
    let limit = limit.unwrap_or(usize::MAX);
    if ingest.queue_bytes_max == AUTO {
        let request = http.body_bytes_max + http.events_max * EVENT_BYTES;
        ingest.queue_bytes_max = (limit / QUEUE_PART).min(QUEUE_BYTES).max(request);
    }
    if http.answer_bytes_max == AUTO {
        http.answer_bytes_max = (limit / ANSWER_PART).clamp(ANSWER_BYTES_MIN, ANSWER_BYTES);
    }
    if http.connections_max == AUTO {
        http.connections_max = (limit / CONNECTION_BYTES).clamp(CONNECTIONS_MIN, CONNECTIONS);
    }
}

/// How many bytes the control groups of this process let it use, in either version; `None`: as many as the machine has.
pub(super) fn limit() -> Option<usize> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    limit_in(Path::new(CGROUPS), &groups).filter(|limit| *limit < machine().unwrap_or(usize::MAX))
}

/// The lowest limit of the groups that are named in the form of `/proc/self/cgroup`, and of those around them.
fn limit_in(root: &Path, groups: &str) -> Option<usize> {
    let lines = groups.lines().filter_map(|line| {
        let mut parts = line.splitn(3, ':');
        let (_, controllers, group) = (parts.next()?, parts.next()?, parts.next()?);
        if controllers.is_empty() {
            // Where both versions are there, the second has a folder of its own.
            return Some(vec![
                (root.to_owned(), group, "memory.max"),
                (root.join("unified"), group, "memory.max"),
            ]);
        }
        let has_memory = controllers.split(',').any(|name| name == "memory");
        has_memory.then(|| vec![(root.join("memory"), group, "memory.limit_in_bytes")])
    });
    let limits = lines.flatten().flat_map(|(folder, group, file)| {
        let group = group.trim_start_matches('/');
        // In a container the path may be that outside of it, and the limit is at the top.
        let around: Vec<PathBuf> = Path::new(group)
            .ancestors()
            .map(|part| folder.join(part).join(file))
            .collect();
        around
    });
    limits
        .filter_map(|file| fs::read_to_string(file).ok()?.trim().parse().ok())
        .min()
}

/// The memory of the machine in bytes.
fn machine() -> Option<usize> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kilobytes: usize = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kilobytes.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn derived(limit: Option<usize>, queue_bytes_max: usize) -> (usize, usize, usize) {
        let config = Config::with_defaults("sqlite://x.db", "127.0.0.1", 0).unwrap();
        let mut http = HttpConfig {
            answer_bytes_max: AUTO,
            connections_max: AUTO,
            ..config.http
        };
        let mut ingest = IngestConfig {
            queue_bytes_max,
            ..config.ingest
        };
        derive_limits(&mut http, &mut ingest, limit);
        (ingest.queue_bytes_max, http.answer_bytes_max, http.connections_max)
    }

    #[test]
    fn limits_follow_from_the_memory() {
        const MIB: usize = 1 << 20;
        assert_eq!(derived(None, AUTO), (32 * MIB, 64 * MIB, 8192));
        assert_eq!(derived(Some(512 * MIB), AUTO), (32 * MIB, 64 * MIB, 8192));
        assert_eq!(derived(Some(256 * MIB), AUTO), (16 * MIB, 32 * MIB, 4096));
        let request = 10 * MIB + 10_000 * EVENT_BYTES;
        assert_eq!(derived(Some(64 * MIB), AUTO), (request, 16 * MIB, 1024));
        assert_eq!(derived(Some(256 * MIB), 50 * MIB).0, 50 * MIB, "what is set is kept");
    }

    #[test]
    fn reads_groups_of_both_versions() {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let file = root.path().join(path);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, text).unwrap();
        };
        assert_eq!(limit_in(root.path(), "0::/a/b\n"), None);
        write("a/memory.max", "1000\n");
        write("a/b/memory.max", "max\n");
        assert_eq!(
            limit_in(root.path(), "0::/a/b\n"),
            Some(1000),
            "that of the group around it"
        );
        assert_eq!(limit_in(root.path(), "0::/\n"), None);
        write("memory/memory.limit_in_bytes", "900\n");
        let both = "9:name=systemd:/\n4:cpu,memory:/not/here\n0::/a/b\n";
        assert_eq!(
            limit_in(root.path(), both),
            Some(900),
            "in a container the limit is at the top"
        );
        assert_eq!(limit_in(root.path(), "3:cpuset:/a\nnonsense\n"), None);
    }
}
