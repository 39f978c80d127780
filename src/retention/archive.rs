//! The archive of partitions: the events as compressed lines, and a manifest that says which.
//!
//! A partition is written as some segments, `events-FIRST-LAST.ndjson.zst` by the cursors of the first and last event, and then
//! `manifest-FIRST-LAST.json`. Each segment is read back and compared. The same events have the same names, so an attempt that was
//! cut off is simply made again.

use async_compression::tokio::bufread::ZstdDecoder;
use async_compression::tokio::write::ZstdEncoder;
use bytes::Bytes;
use ring::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::folder::Folder;
#[cfg(feature = "s3")]
use super::s3::S3;
use super::target::{Target, TargetError};
use crate::api::events::{Form, LIMIT_MAX, StoredEvent};
use crate::config::{ArchiveOptions, ArchiveUrl};
use crate::event::Cursor;
use crate::store::{Archived, EventReader, Filter, Partition, Retention, Scan, ScanError, StoreError, Turn};

/// A segment ends when its lines have so many bytes before compression.
const SEGMENT_BYTES: usize = 32 << 20;
/// How many bytes of payload are read at once.
const PAGE_BYTES: usize = 4 << 20;

/// The version of the manifest.
const VERSION: u32 = 1;

/// Why a partition is not archived.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The archive is away or full.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// What is in the archive is not what was written.
    #[error("{0} is not as it was written")]
    Differs(String),
    /// The partition has changed meanwhile.
    #[error("the partition has changed while it was archived")]
    Changed,
    /// The store cannot be read.
    #[error("{}", .0.line())]
    Store(#[from] StoreError),
    /// The store does not know its own partition.
    #[error("the partition does not lie in the log")]
    Unknown,
}

impl From<ScanError> for ArchiveError {
    fn from(error: ScanError) -> Self {
        match error {
            ScanError::UnknownCursor => Self::Unknown,
            ScanError::Store(error) => Self::Store(error),
        }
    }
}

/// What a manifest says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The version of this form.
    pub version: u32,
    /// The cursor of the first event.
    pub first_cursor: Cursor,
    /// The cursor of the last event.
    pub last_cursor: Cursor,
    /// How many events there are.
    pub events: u64,
    /// The segments, in log order.
    pub segments: Vec<Segment>,
}

/// A segment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Segment {
    /// The name of the file.
    pub name: String,
    /// The cursor of its first event.
    pub first_cursor: Cursor,
    /// The cursor of its last event.
    pub last_cursor: Cursor,
    /// How many events it has.
    pub events: u64,
    /// The size of the file.
    pub bytes: u64,
    /// The SHA-256 of the file, in hexadecimal digits.
    pub sha256: String,
}

/// An archive.
pub struct Archive(pub(super) Box<dyn Target>);

impl Archive {
    /// The archive of these settings; `None`: there is none. Fails with what is wrong with them.
    pub fn open(options: &ArchiveOptions) -> Result<Option<Self>, String> {
        Ok(match &options.archive {
            ArchiveUrl::None => None,
            ArchiveUrl::Folder(folder) => Some(Self(Box::new(Folder(folder.clone())))),
            #[cfg(feature = "s3")]
            ArchiveUrl::Bucket { name, prefix } => Some(Self(Box::new(S3::new(options, name, prefix)?))),
            #[cfg(not(feature = "s3"))]
            ArchiveUrl::Bucket { .. } => {
                return Err(
                    "this eventsieve was built without S3: build it with the feature `s3`, or use file:///FOLDER"
                        .to_owned(),
                );
            }
        })
    }

    /// Archives a partition that has ended, unless that was done before.
    pub async fn keep<S: EventReader + Retention + ?Sized>(
        &self,
        store: &S,
        partition: &Partition,
    ) -> Result<(), ArchiveError> {
        if partition.archived_as.is_some() {
            return Ok(());
        }
        if partition.is_open {
            return Err(ArchiveError::Changed);
        }
        let Some(manifest) = self.write(store, partition).await? else {
            return Ok(());
        };
        let archived = Archived {
            manifest: name_of(&manifest),
            events: manifest.events,
        };
        if store.mark_archived(partition.first_batch, &archived).await? {
            tracing::info!(
                partition.first = partition.first_batch,
                events.archived = archived.events,
                manifest = archived.manifest,
                "archived a partition"
            );
            Ok(())
        } else {
            Err(ArchiveError::Changed)
        }
    }

    /// Writes the events of a partition; `None`: it has none.
    async fn write<S: EventReader + ?Sized>(
        &self,
        store: &S,
        partition: &Partition,
    ) -> Result<Option<Manifest>, ArchiveError> {
        let mut segments = Vec::new();
        let mut draft = Draft::default();
        let mut scan = Scan {
            filter: Filter::default(),
            after: partition.begin(),
            limit: LIMIT_MAX,
            bytes_max: PAGE_BYTES,
            turn: Turn::Service,
        };
        loop {
            let page = store.scan(&scan).await?;
            let is_beyond = |cursor: Cursor| cursor.batch() >= partition.before_batch;
            let events = page.events.iter().take_while(|event| !is_beyond(event.cursor));
            for event in events {
                draft.add(&StoredEvent::of(event, Form::OneLine));
            }
            let is_end = page.is_last || is_beyond(page.next);
            if draft.lines.len() >= SEGMENT_BYTES || is_end {
                segments.extend(self.put(std::mem::take(&mut draft)).await?);
            }
            if is_end {
                break;
            }
            scan.after = page.next;
        }
        let (Some(first), Some(last)) = (segments.first(), segments.last()) else {
            return Ok(None);
        };
        let manifest = Manifest {
            version: VERSION,
            first_cursor: first.first_cursor,
            last_cursor: last.last_cursor,
            events: segments.iter().map(|segment: &Segment| segment.events).sum(),
            segments,
        };
        let name = name_of(&manifest);
        let text = serde_json::to_vec_pretty(&manifest).expect("texts and numbers are always JSON");
        self.0.put(&name, text.clone().into()).await?;
        match self.0.get(&name).await? {
            read if read == text => Ok(Some(manifest)),
            _ => Err(ArchiveError::Differs(name)),
        }
    }

    /// Writes a segment, and reads it back. `None`: it would be empty.
    async fn put(&self, draft: Draft) -> Result<Option<Segment>, ArchiveError> {
        let Some((first, last)) = draft.range else {
            return Ok(None);
        };
        let name = format!("events-{first}-{last}.ndjson.zst");
        let broken = |error: std::io::Error| TargetError(format!("cannot compress {name}: {error}"));
        let mut encoder = ZstdEncoder::new(Vec::new());
        encoder.write_all(&draft.lines).await.map_err(broken)?;
        encoder.shutdown().await.map_err(broken)?;
        let body = Bytes::from(encoder.into_inner());
        let segment = Segment {
            name,
            first_cursor: first,
            last_cursor: last,
            events: draft.events,
            bytes: body.len() as u64,
            sha256: sha256(&body),
        };
        self.0.put(&segment.name, body).await?;
        self.check(&segment).await?;
        Ok(Some(segment))
    }

    /// Reads a segment and compares its size, hash and number of lines.
    async fn check(&self, segment: &Segment) -> Result<(), ArchiveError> {
        let body = self.0.get(&segment.name).await?;
        let differs = || ArchiveError::Differs(segment.name.clone());
        if body.len() as u64 != segment.bytes || sha256(&body) != segment.sha256 {
            return Err(differs());
        }
        let (mut decoder, mut lines) = (ZstdDecoder::new(&*body), 0);
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let read = decoder.read(&mut buffer).await.map_err(|_| differs())?;
            if read == 0 {
                break;
            }
            lines += buffer[..read].iter().filter(|byte| **byte == b'\n').count() as u64;
        }
        if lines == segment.events {
            Ok(())
        } else {
            Err(differs())
        }
    }

    /// Reads what was archived and compares it with its manifest, and that with what the store says. One sentence for each difference.
    pub async fn verify(&self, archived: &[Archived]) -> Vec<String> {
        let mut drifts = Vec::new();
        for one in archived {
            let manifest = match self.0.get(&one.manifest).await {
                Ok(text) => serde_json::from_slice::<Manifest>(&text).ok(),
                Err(error) => {
                    drifts.push(format!("archive: {error}"));
                    continue;
                }
            };
            let Some(manifest) = manifest else {
                drifts.push(format!("archive: {} is not a manifest", one.manifest));
                continue;
            };
            let sum: u64 = manifest.segments.iter().map(|segment| segment.events).sum();
            if manifest.events != one.events || sum != one.events {
                drifts.push(format!(
                    "archive: {} says {} events, its segments {sum}, and the store {}",
                    one.manifest, manifest.events, one.events
                ));
            }
            for segment in &manifest.segments {
                if let Err(error) = self.check(segment).await {
                    drifts.push(format!("archive: {error}"));
                }
            }
        }
        drifts
    }
}

fn name_of(manifest: &Manifest) -> String {
    format!("manifest-{}-{}.json", manifest.first_cursor, manifest.last_cursor)
}

fn sha256(bytes: &[u8]) -> String {
    let hash = digest(&SHA256, bytes);
    hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The lines of a segment.
#[derive(Default)]
struct Draft {
    lines: Vec<u8>,
    events: u64,
    range: Option<(Cursor, Cursor)>,
}

impl Draft {
    fn add(&mut self, event: &StoredEvent<'_>) {
        event.write_json(&mut self.lines);
        self.lines.push(b'\n');
        self.events += 1;
        let first = self.range.map_or(event.cursor, |(first, _)| first);
        self.range = Some((first, event.cursor));
    }
}
