//! The black-box tests of the service and its commands, one module for each subject. They run side by side; tests that need the
//! machine for themselves are in `tests/alone`. One module is run by
//!
//! ```text
//! deploy/test-services.sh cargo test --workspace --test black_box faults::
//! ```

mod access;
mod answers;
mod client_commands;
mod commands;
mod compatibility;
mod completions;
mod compression;
mod dashboard;
mod demo;
mod docs_examples;
mod embedded;
mod end_to_end;
mod errors;
mod events;
mod faults;
mod harness;
mod kubernetes;
mod lifecycle;
mod limits;
mod logs;
mod metrics;
mod openapi;
mod outbox;
mod output;
mod places;
mod poison;
mod poolers;
mod prefixes;
mod proxies;
mod prune;
mod publish;
mod redis_addresses;
mod redis_cluster;
mod redis_sentinel;
mod redis_sink;
mod redis_stream;
mod replicas;
mod requests;
mod retention;
mod s3_server;
mod servers;
mod service_manager;
mod stats;
mod stats_command;
mod stream;
mod tail;
mod tester;
mod traces;
