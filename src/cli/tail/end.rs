//! Why no more is printed.

use crate::client::ClientError;

/// Why no more is printed.
#[derive(Debug)]
pub(crate) enum End {
    /// As much was printed as was asked for, or the reader of the output has gone.
    Done,
    /// It cannot go on.
    Failed(anyhow::Error),
}

impl From<ClientError> for End {
    fn from(error: ClientError) -> Self {
        Self::Failed(error.into())
    }
}
