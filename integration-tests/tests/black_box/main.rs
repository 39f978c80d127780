//! The black-box tests of the service and its commands, a module for each subject. `cargo test -p integration-tests --test black_box
//! faults::` runs one of them. They run side by side; tests that would disturb each other are in `tests/alone`.

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
