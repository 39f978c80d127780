//! Processor time, memory and connections of processes, as Linux reports them.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};

/// The unit in which Linux counts processor time, on every machine that Rust runs on.
const TICKS_PER_SECOND: u64 = 100;

/// The processor time of a process so far.
///
/// # Errors
/// There is no such process.
pub fn processor_time(pid: u32) -> Result<Duration> {
    Ok(Stat::of(pid)?.own)
}

/// The same for a process and its children, including children that have ended: for a server that forks for each connection.
///
/// # Errors
/// There is no such process.
pub fn processor_time_with_children(pid: u32) -> Result<Duration> {
    let parent = Stat::of(pid)?;
    let mut time = parent.own + parent.of_ended_children;
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        // A process may end meanwhile.
        if let Some(Ok(child)) = name.to_str().map(str::parse)
            && let Ok(child) = Stat::of(child)
            && child.parent == pid
        {
            time += child.own;
        }
    }
    Ok(time)
}

/// The same of the children of a process that have ended and were waited for.
///
/// # Errors
/// There is no such process.
pub fn processor_time_of_ended_children(pid: u32) -> Result<Duration> {
    Ok(Stat::of(pid)?.of_ended_children)
}

/// The parent of a process.
///
/// # Errors
/// There is no such process.
pub fn parent(pid: u32) -> Result<u32> {
    Ok(Stat::of(pid)?.parent)
}

/// The resident memory of a process in bytes.
///
/// # Errors
/// There is no such process.
pub fn resident_bytes(pid: u32) -> Result<u64> {
    status_bytes(pid, "VmRSS:")
}

/// The peak resident memory of a process in bytes.
///
/// # Errors
/// There is no such process.
pub fn peak_resident_bytes(pid: u32) -> Result<u64> {
    status_bytes(pid, "VmHWM:")
}

/// The number of connections to this port that a process still holds open.
///
/// # Errors
/// There is no such process.
pub fn open_connections(pid: u32, port: u16) -> Result<usize> {
    /// The state of a socket that waits for connections.
    const LISTENS: &str = "0A";
    let table = fs::read_to_string(format!("/proc/{pid}/net/tcp"))?;
    let is_open = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let local = fields
            .get(1)
            .is_some_and(|local| local.ends_with(&format!(":{port:04X}")));
        // A closed connection whose end the other side has not acknowledged yet has no inode.
        let is_held = fields.get(9).is_some_and(|inode| *inode != "0");
        local && is_held && fields.get(3) != Some(&LISTENS)
    };
    Ok(table.lines().skip(1).filter(|line| is_open(line)).count())
}

fn status_bytes(pid: u32, name: &str) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let kilobytes = status
        .lines()
        .find_map(|line| line.strip_prefix(name)?.split_whitespace().next());
    Ok(kilobytes.context("proc(5) has it")?.parse::<u64>()? * 1024)
}

/// A line of `/proc/PID/stat`: proc(5).
struct Stat {
    parent: u32,
    own: Duration,
    /// Of the children that have ended and were waited for.
    of_ended_children: Duration,
}

impl Stat {
    fn of(pid: u32) -> Result<Self> {
        let line = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        // The name of the program stands in parentheses and may hold blanks; the fields are counted from behind it.
        let fields: Vec<&str> = line.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let field = |number: usize| fields.get(number).context("proc(5) has it");
        let time = |number| -> Result<Duration> {
            let ticks: u64 = field(number)?.parse()?;
            Ok(Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND))
        };
        Ok(Self {
            parent: field(1)?.parse()?,
            own: time(11)? + time(12)?,
            of_ended_children: time(13)? + time(14)?,
        })
    }
}
