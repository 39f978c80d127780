//! Eventsieve.

pub mod cli;
pub mod client;
pub mod config;
pub mod event;
pub mod http;
pub mod ingest;
pub mod lifecycle;
pub mod metrics;
pub mod serve;
pub mod store;
pub mod telemetry;
