//! The HTTP server: routes and handlers, the layers around them, and the accept loop.
//!
//! A handler parses a request, calls `ingest` or the store, and fills an answer of [`crate::api`]. Errors are an
//! [`error::ApiError`] until the outermost layer ([`observe`]) writes them.

mod admission;
mod body;
mod client_address;
mod compress;
mod dashboard;
mod docs;
mod error;
mod events;
mod guard;
mod keys;
pub mod listener;
mod measure;
mod metrics;
mod new_topics;
mod observe;
mod prefer;
mod prefix;
mod probe;
mod publish;
mod query;
mod request_id;
mod room;
mod routes;
mod shared_stats;
mod state;
mod stats;
mod stream;
mod topics;

pub use self::routes::{document, metrics_routes, routes};
pub use self::state::{AppState, Health, Parts, Phase, SinkState};
