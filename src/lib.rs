//! Eventsieve.
