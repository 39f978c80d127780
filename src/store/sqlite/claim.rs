//! The claim of a service on the file of its store.

use std::fs::{self, File, TryLockError};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use rustix::fs::OFlags;
use rustix::io::Errno;

use super::connect::{PRIVATE_FILE, StoreFile, make_folder};
use crate::store::{ErrorClass, StoreError};

const NO_LINKS: i32 = OFlags::NOFOLLOW.bits().cast_signed();

/// Locks a file beside the store and writes the id of this process into it. The lock ends with the handle of the file, and so
/// with the process, however the process ends. (Not the store itself is locked: closing another handle of it would drop
/// SQLite's own locks.)
pub(super) fn claim(store: &StoreFile) -> Result<File, StoreError> {
    let path = store.path();
    make_folder(path)?;
    // One file has one lock, under whatever name it is opened, for example through a link.
    let real = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let name = PathBuf::from(format!("{}-lock", real.display()));
    let unusable = |message: String| StoreError::new(ErrorClass::Configuration, message);
    let cannot_write = |error: std::io::Error| {
        let is_link = error.raw_os_error() == Some(Errno::LOOP.raw_os_error());
        let hint = if is_link {
            "it is a symbolic link, which is not followed"
        } else {
            "check that this user may write to its folder"
        };
        unusable(format!("cannot write {}: {hint}", name.display())).with_source(error)
    };
    let mut file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(PRIVATE_FILE)
        // A link in its place would let whoever made it choose the file that is locked and written to.
        .custom_flags(NO_LINKS)
        .open(&name)
        .map_err(cannot_write)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            // It does not matter whether the process id can be read: it only helps people.
            let holder = match file.read_to_string(&mut holder) {
                Ok(_) if !holder.trim().is_empty() => format!(" (process {})", holder.trim()),
                _ => String::new(),
            };
            return Err(unusable(format!(
                "{} is served by another eventsieve{holder}: stop that one, or name another file in DATABASE_URL",
                path.display()
            )));
        }
        Err(TryLockError::Error(error)) => return Err(cannot_write(error)),
    }
    // On a full disk the process id is missing, which does not matter: only the lock counts.
    if let Err(error) = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id())) {
        tracing::debug!("failed to write the process id to {}: {error}", name.display());
    }
    Ok(file)
}
