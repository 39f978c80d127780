//! Black-box tests of eventsieve: the real binary on a real PostgreSQL and a real Redis, with a fault proxy between
//! them, and on the embedded store. The library `eventsieve` is never used here, so that a test can only rely on what a client, an operator or
//! the database sees.
//!
//! # How to write a test
//!
//! ```no_run
//! use integration_tests::on_both_stores;
//! use integration_tests::publish::{Publish, event};
//! use integration_tests::world::World;
//!
//! async fn an_event_is_stored(world: World) {
//!     let service = world.serve().await;
//!     let answer = service.publish(&event("orders", "evt-1")).await;
//!     assert_eq!(answer.status, 201);
//!     world.check(1).await;
//! }
//!
//! on_both_stores! { an_event_is_stored }
//! ```
//!
//! 1. A test's name is a sentence; the tests are grouped by subject in `tests/*.rs`. It runs on both stores, by
//!    [`on_both_stores!`], unless it is about one of them (its server killed, its file removed): then it is a plain
//!    `#[tokio::test]`, with a world that it makes itself.
//! 2. [`world::World`] gives it a store of its own, and removes it at the end, also when the test fails.
//! 3. [`service::Settings`] say how a service starts, [`world::World::serve`] starts one with what it needs and nothing else.
//!    The process is killed when its [`service::Service`] is dropped, and a test that fails shows its log.
//! 4. Nothing sleeps. What takes time is waited for by [`eventually::eventually`], with a condition.
//! 5. Faults come from [`proxy::Proxy`] (the network), from [`service::Service::kill`], from a
//!    [`postgres::PostgresServer`] or a [`redis::RedisServer`] of the test's own (the servers), from a [`disk::Disk`] that
//!    fills up, or from a lock that the test holds ([`world::World::hold_writers`]).
//! 6. A [`redis::Outlet`] is a channel and a stream of the test's own; a [`redis::Subscriber`] and a [`follower::Follower`]
//!    tell what came out. A [`collector::Collector`] takes the spans of traced requests.
//! 7. A [`browser::Browser`] is a real Chromium, for what people see.
//! 8. A test ends with [`world::World::check`]: rows, counters and `eventsieve verify` agree. Where events go to a Redis, with
//!    [`world::World::check_fanned_out`]: nothing is owed to it either.
//!
//! # Tests and checks
//!
//! What can be proved from outside, of a deployment that somebody else runs and with any data and traffic beside it, is a check:
//! it lives in [`checks`], relies on nothing but its topics, and gets a [`deployment::Deployment`] instead of a world. The binary
//! `tester` runs the checks against any base URL, and `tests/tester.rs` runs the tester against both stores. All else is a test:
//! what needs a store of its own, other settings, a fault, or two replicas that it can tell apart.
//!
//! What needs the containers of a deployment (images, replicas behind a balancer, faults between hosts) is in [`containers`], and the
//! binary `compose-test` runs it.
//!
//! Tests and checks ask a service by [`api::Api`] (a [`service::Service`] is one), and publish and read by [`publish`] and [`follower`].
//!
//! # What it needs
//!
//! `make test` provides all of it: `DATABASE_URL` (a superuser of a throwaway PostgreSQL), `REDIS_URL`, `EVENTSIEVE_TEST_PG_BIN` and
//! `EVENTSIEVE_TEST_PG_USER` (for servers of a test's own), Chromium with its `chromedriver`, and the built binary, or `EVENTSIEVE_BIN`. Something missing
//! fails the test with a line that says what; nothing is ever skipped.

pub mod api;
pub mod browser;
pub mod checks;
pub mod collector;
pub mod containers;
pub mod dashboard;
pub mod deployment;
pub mod disk;
pub mod eventually;
pub mod follower;
pub mod http;
pub mod markdown;
pub mod postgres;
pub mod processes;
pub mod program;
pub mod proxy;
pub mod publish;
pub mod redis;
pub mod service;
pub mod trial;
pub mod world;

/// The value of an environment variable that the tests are told by, if it is set and not empty.
pub(crate) fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// Makes two tests of each function that it lists: `on_postgres::NAME` and `on_sqlite::NAME`. Each is an
/// `async fn NAME(world: World)` above, and gets a store of its own. One that is not listed is dead code, which the compiler
/// reports.
#[macro_export]
macro_rules! on_both_stores {
    ($($name:ident)+) => {
        mod on_postgres {
            $(#[tokio::test] async fn $name() { super::$name($crate::world::World::new().await).await; })+
        }
        mod on_sqlite {
            $(#[tokio::test] async fn $name() { super::$name($crate::world::World::embedded()).await; })+
        }
    };
}
