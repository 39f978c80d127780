//! The live stream: delivers the log inside the process to its subscribers, in order and without a gap.
//!
//! One watcher serves all subscribers ([`Subscribers::watch`]): it follows the last stable position and reads each newly stable
//! event once, into a bounded ring buffer, already formatted for the wire. A [`Subscriber`] takes the events after its own
//! cursor from the ring buffer, and reads the store only when it is behind that. Both use the same cursors, so no event is
//! lost between catching up and the live stream.
//!
//! The watcher reads the store often while there are subscribers, and not at all otherwise. So it learns of events of other
//! replicas within some hundredths of a second, with or without Redis, and needs no Redis subscription: a read that finds
//! nothing costs the store less than a message for each event would cost this process.
//!
//! Publishing has priority. What many subscribers read costs more than what was published once, so while requests wait for a
//! writer the watcher delivers little at a time and pauses in between: subscribers lag, and catch up when the load falls. After
//! some seconds of lag they get their share regardless.

mod hub;
mod ring;
mod subscriber;
#[cfg(test)]
mod tests;
mod watcher;

pub(crate) use self::hub::{Settings, Subscribers};
pub(crate) use self::subscriber::Subscriber;
