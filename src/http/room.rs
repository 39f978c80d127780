//! The memory of answers: one budget for all of them.
//!
//! A page of events is as large as its payloads, and lies in memory until its client has read it. Room for it is taken before the
//! store is read, so that waiting requests hold nothing, and is free again once the last byte is handed to the system.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use serde::Serialize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::error::ApiError;

/// Room is counted in units of this many bytes.
const UNIT: usize = 1 << 10;

/// An answer of up to this size needs no room: the limit of connections bounds these.
const SMALL_BYTES: usize = 4 << 10;

/// How long a request waits for room.
const PATIENCE: Duration = Duration::from_secs(5);

/// The budget.
#[derive(Debug, Clone)]
pub(super) struct Answers {
    free: Arc<Semaphore>,
    units: usize,
}

impl Answers {
    pub(super) fn new(bytes: usize) -> Self {
        let units = (bytes / UNIT).min(Semaphore::MAX_PERMITS);
        Self {
            free: Arc::new(Semaphore::new(units)),
            units,
        }
    }

    /// The bytes that are taken.
    pub(super) fn taken(&self) -> usize {
        (self.units - self.free.available_permits()) * UNIT
    }

    /// The bytes that may be taken.
    pub(super) fn max(&self) -> usize {
        self.units * UNIT
    }

    /// Waits for room, in the order of the calls. Fails when there is none for a while.
    pub(super) async fn room(&self, bytes: usize) -> Result<Room, ApiError> {
        if bytes <= SMALL_BYTES {
            return Ok(Room(None));
        }
        let taking = self.free.clone().acquire_many_owned(self.units_of(bytes));
        match tokio::time::timeout(PATIENCE, taking).await {
            Ok(permit) => Ok(Room(Some(permit.expect("the semaphore is never closed")))),
            Err(_) => Err(ApiError::NO_ROOM),
        }
    }

    /// Room that is free at once.
    pub(super) fn room_now(&self, bytes: usize) -> Option<Room> {
        let permit = self.free.clone().try_acquire_many_owned(self.units_of(bytes));
        permit.ok().map(|permit| Room(Some(permit)))
    }

    /// An answer that is already in memory. Fails at once when there is no room for it.
    pub(super) fn hold(&self, answer: Vec<u8>) -> Result<Bytes, ApiError> {
        if answer.len() <= SMALL_BYTES {
            return Ok(answer.into());
        }
        let units = self.units_of(answer.capacity());
        let permit = self.free.clone().try_acquire_many_owned(units);
        Ok(Room(Some(permit.map_err(|_| ApiError::NO_ROOM)?)).hold(answer))
    }

    /// An answer as JSON, as by [`hold`](Self::hold).
    pub(super) fn json(&self, answer: &impl Serialize) -> Result<Response, ApiError> {
        Ok(response(self.hold(json(answer)?)?))
    }

    /// All of the budget stands for an answer that is larger: it is then the only one.
    fn units_of(&self, bytes: usize) -> u32 {
        u32::try_from(bytes.div_ceil(UNIT).min(self.units)).unwrap_or(u32::MAX)
    }
}

/// Room for one answer, free again when it is dropped. A small answer has none.
#[derive(Debug)]
pub(super) struct Room(Option<OwnedSemaphorePermit>);

impl Room {
    /// The answer as bytes that keep the room they need until they are written. The rest is free at once.
    pub(super) fn hold(mut self, answer: Vec<u8>) -> Bytes {
        let Some(permit) = &mut self.0 else {
            return answer.into();
        };
        let needed = answer.capacity().div_ceil(UNIT);
        let spare = permit.num_permits().saturating_sub(needed);
        drop(permit.split(spare));
        Bytes::from_owner(Held { answer, _room: self })
    }

    /// An answer as JSON, as by [`hold`](Self::hold).
    pub(super) fn json(self, answer: &impl Serialize) -> Result<Response, ApiError> {
        Ok(response(self.hold(json(answer)?)))
    }
}

fn json(answer: &impl Serialize) -> Result<Vec<u8>, ApiError> {
    serde_json::to_vec(answer).map_err(|error| {
        tracing::error!(%error, "failed to write an answer, answering 500");
        ApiError::Internal
    })
}

fn response(json: Bytes) -> Response {
    let content_type = (header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    ([content_type], Body::from(json)).into_response()
}

/// The owner of the bytes of an answer.
struct Held {
    answer: Vec<u8>,
    _room: Room,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.answer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn answers_keep_their_room_until_they_are_dropped() {
        let answers = Answers::new(100 * UNIT);
        let room = answers.room(60 * UNIT).await.unwrap();
        let bytes = room.hold(vec![0; 50 * UNIT]);
        assert_eq!((answers.taken(), answers.max()), (50 * UNIT, 100 * UNIT));
        let part = bytes.slice(..10);
        drop(bytes);
        assert_eq!(answers.taken(), 50 * UNIT);
        assert_eq!(answers.room(51 * UNIT).await.unwrap_err().status(), 503);
        assert_eq!(answers.hold(vec![0; 51 * UNIT]).unwrap_err().status(), 503);
        assert_eq!(answers.hold(vec![0; 50 * UNIT]).unwrap().len(), 50 * UNIT);
        assert_eq!(answers.hold(vec![0; SMALL_BYTES]).unwrap().len(), SMALL_BYTES);
        let mut waiting = std::pin::pin!(answers.room(1000 * UNIT));
        assert!(futures_util::poll!(waiting.as_mut()).is_pending());
        drop(part);
        assert!(
            waiting.await.is_ok(),
            "an answer larger than the budget takes all of it"
        );
        assert_eq!(answers.taken(), 0);
    }
}
