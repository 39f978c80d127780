//! An archive in a folder.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use bytes::Bytes;

use super::target::{Target, TargetError};

/// A folder. It is made when the first object is written; the folder above it must be there, so that a disk that is not mounted
/// is noticed.
pub(super) struct Folder(pub(super) PathBuf);

#[async_trait]
impl Target for Folder {
    async fn put(&self, name: &str, body: Bytes) -> Result<(), TargetError> {
        let (folder, name) = (self.0.clone(), name.to_owned());
        blocking(move || {
            write(&folder, &name, &body)
                .map_err(|error| format!("cannot write {name} to {}: {error}", folder.display()))
        })
        .await
    }

    async fn get(&self, name: &str) -> Result<Bytes, TargetError> {
        let path = self.0.join(name);
        blocking(move || {
            let read = fs::read(&path).map_err(|error| format!("cannot read {}: {error}", path.display()));
            read.map(Bytes::from)
        })
        .await
    }
}

/// Writes a file of another name and renames it when it is on disk, so that a file is whole or not there.
fn write(folder: &Path, name: &str, body: &[u8]) -> io::Result<()> {
    if let Err(error) = fs::create_dir(folder)
        && error.kind() != io::ErrorKind::AlreadyExists
    {
        return Err(error);
    }
    let partial = folder.join(format!(".{name}.part"));
    let written = File::create(&partial).and_then(|mut file| {
        file.write_all(body)?;
        file.sync_all()
    });
    if let Err(error) = written {
        // A part of a file is of no use, and takes space that is missing. The first error is the one that counts.
        drop(fs::remove_file(&partial));
        return Err(error);
    }
    fs::rename(&partial, folder.join(name))?;
    File::open(folder)?.sync_all()
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> Result<T, TargetError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(error.to_string())).map_err(TargetError)
}
