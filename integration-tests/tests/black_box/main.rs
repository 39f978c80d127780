//! The black-box tests of the service and its commands, one module for each subject. They run side by side; tests that need the
//! machine for themselves are in `tests/alone`. One module is run by
//!
//! ```text
//! deploy/test-services.sh cargo test --workspace --test black_box faults::
//! ```

mod client_commands;
mod commands;
mod compatibility;
mod completions;
mod dashboard;
mod demo;
mod docs_examples;
mod embedded;
mod end_to_end;
mod errors;
mod events;
mod faults;
mod harness;
mod lifecycle;
mod limits;
mod logs;
mod metrics;
mod openapi;
mod outbox;
mod places;
mod poison;
mod prune;
mod publish;
mod redis_sink;
mod replicas;
mod stats;
mod stats_command;
mod stream;
mod tail;
mod tester;
mod traces;
