//! Eventsieve.

pub mod cli;
pub mod client;
