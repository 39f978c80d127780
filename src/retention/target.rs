//! Where an archive is written.

use async_trait::async_trait;
use bytes::Bytes;

/// Why an archive cannot be written or read. Its text is for logs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct TargetError(pub String);

/// A place for named objects.
#[async_trait]
pub trait Target: Send + Sync {
    /// Writes an object, or replaces it; when this returns it is durable.
    async fn put(&self, name: &str, body: Bytes) -> Result<(), TargetError>;

    /// Reads an object.
    async fn get(&self, name: &str) -> Result<Bytes, TargetError>;
}
