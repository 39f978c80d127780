//! Eventsieve.

pub mod event;
