//! The directory of the store of a demonstration.

use std::fmt;
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use tempfile::TempDir;

/// Where the directory is created: where the store of `serve` is, too.
const PARENT: &str = "data";

/// A new directory. It is removed with all that is in it when this is dropped.
#[derive(Debug)]
pub(crate) struct Folder {
    // Before the parent, which is removed after it.
    own: TempDir,
    _parent: Parent,
}

impl Folder {
    /// Creates the directory, and its parent if that does not exist.
    pub(crate) fn new() -> io::Result<Self> {
        let parent = Parent::new(Path::new(PARENT))?;
        let own = tempfile::Builder::new().prefix("demo-").tempdir_in(PARENT)?;
        Ok(Self { own, _parent: parent })
    }

    /// The URL of a store in it. It is relative to the current directory, whose name may have characters that a URL cannot have.
    pub(crate) fn database_url(&self) -> String {
        format!("sqlite://{self}/eventsieve.db")
    }

    /// Removes it now.
    pub(crate) fn remove(self) -> io::Result<()> {
        self.own.close()
    }
}

impl fmt::Display for Folder {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.own.path().file_name().unwrap_or_default();
        write!(out, "{PARENT}/{}", name.display())
    }
}

/// A directory that may have been created for the one in it. If so, it is removed with it, unless there is something else in it.
#[derive(Debug)]
struct Parent {
    made: Option<PathBuf>,
}

impl Parent {
    fn new(path: &Path) -> io::Result<Self> {
        let made = match fs::create_dir(path) {
            Ok(()) => Some(path.to_owned()),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => None,
            Err(error) => return Err(error),
        };
        Ok(Self { made })
    }
}

impl Drop for Parent {
    fn drop(&mut self) {
        if let Some(path) = &self.made {
            // It fails when there are other files in it, which must stay.
            fs::remove_dir(path).ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parent_is_removed_if_it_was_created_and_is_empty() {
        let outside = tempfile::tempdir().unwrap();
        let path = outside.path().join("data");
        drop(Parent::new(&path).unwrap());
        assert!(!path.exists());

        let parent = Parent::new(&path).unwrap();
        drop(Parent::new(&path).unwrap());
        assert!(path.exists(), "the second one found it there");
        fs::write(path.join("other"), "").unwrap();
        drop(parent);
        assert!(path.join("other").exists());
    }
}
