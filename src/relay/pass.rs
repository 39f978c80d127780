//! A pass through the outbox: when it comes, how large it is, and what it achieved.

use std::time::Duration;

/// How often the relay looks for batches that others have left in the outbox.
pub(super) const PASS_INTERVAL: Duration = Duration::from_secs(1);
/// How often while there is a backlog beside a busy fast path.
pub(super) const BACKLOG_PASS_INTERVAL: Duration = Duration::from_millis(150);

/// How long a pass lasts before it leaves the rest to the next one: batches in the handoff queue wait meanwhile.
pub(super) const PASS_LENGTH: Duration = Duration::from_millis(50);

/// How many batches a pass claims at most: many where they are small, for each costs a row and not a query.
pub(super) const CLAIMS_MAX: u32 = 256;
/// And at least.
pub(super) const CLAIMS_MIN: u32 = 4;

/// What a pass has published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pass {
    /// All unpublished batches that could be claimed.
    Whole,
    /// As many as a pass claims, or as its time allowed: there are more.
    Partial,
}
