//! What expires: events by age and size, identities, and kept conflicts; and the archive of what expires.
//!
//! [`Keeper::run`] looks at intervals. In one pass ([`Keeper::pass`]), of which one runs at a time on all replicas:
//!
//! 1. The current partition of the log ends, if it is old or large enough.
//! 2. Each partition that has ended is asked for what is too old ([`policy::Policy`]), the oldest first; then, while all are too large
//!    together, the oldest go.
//! 3. What is to expire is archived first, the whole partition once ([`Archive`]), and expires only if that has succeeded.
//! 4. Identities and conflicts go by times of their own.
//!
//! An error ends a pass, or skips a partition; the next pass tries again.

pub(crate) mod archive;
mod folder;
mod keeper;
mod lease;
mod policy;
mod prune;
#[cfg(feature = "s3")]
mod s3;
mod target;
#[cfg(test)]
mod tests;

pub(crate) use self::archive::Archive;
pub(crate) use self::keeper::Keeper;
pub(crate) use self::prune::{Prune, prune};
