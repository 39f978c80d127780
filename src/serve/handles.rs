//! How many files and connections the process may open.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Handles that are not for connections of clients: those of the store, of Redis, of the log and of the second address, and some to spare.
const OTHERS: u64 = 256;

/// At least so many connections are tried, however low the limit is.
const CONNECTIONS_MIN: usize = 16;

/// Raises the limit of the process for so many connections, as far as it may, and returns how many fit. Where there were more connections
/// than handles, the next probe, or the next connection to the store, would fail.
pub(super) fn make_room(connections: usize) -> usize {
    let needed = u64::try_from(connections).unwrap_or(u64::MAX).saturating_add(OTHERS);
    let limit = getrlimit(Resource::Nofile);
    let may_have = limit.maximum.unwrap_or(u64::MAX);
    let mut has = limit.current.unwrap_or(u64::MAX);
    if has < needed {
        let current = Some(needed.min(may_have));
        match setrlimit(Resource::Nofile, Rlimit { current, ..limit }) {
            Ok(()) => has = needed.min(may_have),
            Err(error) => tracing::debug!(%error, "cannot raise the limit of open files"),
        }
    }
    let fits = fitting(connections, has);
    if fits < connections {
        tracing::warn!(
            "this process may open {has} files, which is enough for {fits} connections instead of {connections}: set a hard limit of at least {needed} (ulimit -Hn, LimitNOFILE=)"
        );
    }
    fits
}

fn fitting(connections: usize, handles: u64) -> usize {
    let left = usize::try_from(handles.saturating_sub(OTHERS)).unwrap_or(usize::MAX);
    connections.min(left.max(CONNECTIONS_MIN))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_handles_to_others() {
        assert_eq!(fitting(8192, 1024), 768);
        assert_eq!(fitting(8192, 8448), 8192);
        assert_eq!(fitting(8192, u64::MAX), 8192);
        assert_eq!(fitting(8192, 100), CONNECTIONS_MIN);
        assert_eq!(fitting(4, 100), 4);
    }
}
