//! Eventsieve.

pub mod cli;
pub mod client;
pub mod event;
