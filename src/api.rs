//! The HTTP API as types: each request and each answer once.
//!
//! The handlers fill these types, the client and the commands read them, the OpenAPI document describes them, and tests compare
//! their shape with what the service sends. A member that is removed here is missing in all of them, and none of them compiles.
//!
//! Texts are borrowed where a request or an answer is written and owned where one is read ([`std::borrow::Cow`]), so one type
//! serves both sides, and writing an answer copies no text before it is JSON.
//!
//! Two paths do not use serde's `Serialize` and `Deserialize`, because it would cost too much for each event:
//!
//! - Published events are parsed by [`crate::event`], not as [`events::Event`]. That parser keeps slices of the body instead of
//!   copies, and lists every validation error of every event, where `Deserialize` stops at the first.
//! - Stored events are written by [`events::StoredEvent::write_json`]. Through serde a payload is a `RawValue`, and serde_json makes
//!   one of a text only by parsing it again.

pub(crate) mod events;
pub(crate) mod health;
pub(crate) mod keys;
pub(crate) mod problem;
pub(crate) mod publish;
mod scalars;
pub(crate) mod stats;
pub(crate) mod topics;

pub(crate) use self::scalars::{KeyName, TopicPattern, cursor_schema, topic_part_schema};
