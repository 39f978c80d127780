//! Why a step of the relay ended early.

use crate::sink::SinkError;
use crate::store::StoreError;

/// The sink or the store has failed.
pub(super) enum RelayError {
    Sink(SinkError),
    Store(StoreError),
}

impl From<SinkError> for RelayError {
    fn from(error: SinkError) -> Self {
        RelayError::Sink(error)
    }
}

impl From<StoreError> for RelayError {
    fn from(error: StoreError) -> Self {
        RelayError::Store(error)
    }
}
