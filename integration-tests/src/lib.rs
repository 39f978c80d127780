//! Black-box tests of eventsieve: the real binary, a real PostgreSQL, and a fault proxy between the two. The library
//! `eventsieve` is never used here, so that a test can only rely on what a client, an operator or the database sees.
//!
//! # How to write a test
//!
//! ```no_run
//! use integration_tests::publish::{Publish, event};
//! use integration_tests::world::World;
//!
//! # async fn a_copy_is_stored_once() {
//! let world = World::new().await;
//! let service = world.serve().await;
//! let answer = service.publish(&event("orders", "evt-1")).await;
//! assert_eq!(answer.status, 201);
//! world.check(1).await;
//! # }
//! ```
//!
//! 1. A test is a file's `#[tokio::test]`, grouped by subject in `tests/*.rs`, and its name is a sentence.
//! 2. [`world::World`] gives it a database of its own, and drops it at the end, also when the test fails.
//! 3. [`service::Settings`] say how a service starts, [`world::World::serve`] starts one with what it needs and nothing else.
//!    The process is killed when its [`service::Service`] is dropped, and a test that fails shows its log.
//! 4. Nothing sleeps. What takes time is waited for by [`eventually::eventually`], with a condition.
//! 5. Faults come from [`proxy::Proxy`] (the network), from [`service::Service::kill`], from a
//!    [`postgres::PostgresServer`] of the test's own (the database server), or from a lock that the test holds
//!    ([`world::World::hold_writers`]).
//! 6. A test ends with [`world::World::check`]: rows, counters and `eventsieve verify` agree.
//!
//! # What it needs
//!
//! `make test` provides all of it: `DATABASE_URL` (a superuser of a throwaway PostgreSQL), `EVENTSIEVE_TEST_PG_BIN` and
//! `EVENTSIEVE_TEST_PG_USER` (for servers of a test's own), and the built binary, or `EVENTSIEVE_BIN`. Something missing
//! fails the test with a line that says what; nothing is ever skipped.

pub mod eventually;
pub mod http;
pub mod postgres;
pub mod program;
pub mod proxy;
pub mod publish;
pub mod service;
pub mod world;

/// The value of an environment variable that the tests are told by, if it is set and not empty.
pub(crate) fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}
