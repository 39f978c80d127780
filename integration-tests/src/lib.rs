//! Black-box tests of eventsieve: the real binary on a real PostgreSQL and a real Redis, with a fault proxy between them, and on the
//! embedded store. The library `eventsieve` is never used here, so a test can rely only on what a client, an operator or the database
//! can observe.
//!
//! # How to write a test
//!
//! ```no_run
//! use integration_tests::on_both_stores;
//! use integration_tests::publish::{Publish, event};
//! use integration_tests::world::World;
//!
//! async fn event_is_stored(world: World) {
//!     let service = world.serve().await;
//!     let answer = service.publish(&event("orders", "evt-1")).await;
//!     assert_eq!(answer.status, 201);
//!     world.check(1).await;
//! }
//!
//! on_both_stores! { event_is_stored }
//! ```
//!
//! 1. Tests are grouped by subject: a module of `tests/black_box` each. A name says `subject::what_holds` in at most some 60
//!    characters. A test runs on both stores by [`on_both_stores!`]. A test of one of the stores (its server is killed, its file is
//!    removed) is a plain `#[tokio::test]` with a world that it creates itself.
//! 2. [`world::World`] gives it a store of its own, and removes the store at the end, even if the test fails.
//! 3. [`service::Settings`] are the environment and the arguments of a service, and [`world::World::serve`] starts one. The process is
//!    killed when its [`service::Service`] is dropped, and a failed test prints its log.
//! 4. No test sleeps. It waits for a condition by [`eventually::eventually`].
//! 5. Faults come from [`proxy::Proxy`] (the network), from [`service::Service::kill`], from a [`postgres::PostgresServer`] or a
//!    [`redis::RedisServer`] of the test's own (the servers), from a [`disk::Disk`] that fills up, or from a lock that the test holds
//!    ([`world::World::hold_writers`]).
//! 6. A [`redis::RedisTarget`] is a channel and a stream of the test's own. A [`redis::Subscriber`] and a
//!    [`stream_subscriber::StreamSubscriber`] show what was published, and a [`collector::Collector`] accepts spans.
//! 7. A [`browser::Browser`] is a real Chromium.
//! 8. A test ends with [`world::World::check`]: rows, counters and `eventsieve verify` agree. With Redis it ends with
//!    [`world::World::check_published`]: the outbox is empty, too.
//! 9. A test that needs the machine for itself, because it measures or is a heavy load, belongs to `tests/alone`. All others must
//!    tolerate any other test beside them: ports come from [`postgres::free_port`], and names of shared resources are unique.
//! 10. A test compares fields of a log line rather than its message, and error bodies by a snapshot: `INSTA_UPDATE=always` writes the
//!     files in `snapshots/`.
//!
//! # Tests and checks
//!
//! A check proves something from outside, of any running deployment with any data and traffic. It lives in [`checks`], relies on
//! nothing but its topics, and gets a [`deployment::Deployment`] instead of a world. The binary `tester` runs the checks against any
//! base URL, and `tests/black_box/tester.rs` runs the tester against both stores. Everything that needs a store of its own, other
//! settings, a fault, or two replicas that it can distinguish, is a test.
//!
//! Tests that need the containers of a deployment (images, replicas behind a balancer, faults between hosts) are in [`containers`],
//! and the binary `compose-test` runs them.
//!
//! Tests and checks send requests by [`api::Api`] (a [`service::Service`] is one), and publish and read by [`publish`] and
//! [`stream_subscriber`].
//!
//! # Requirements
//!
//! `make test` provides all of them: `DATABASE_URL` (a superuser of a temporary PostgreSQL), `REDIS_URL`, `EVENTSIEVE_TEST_PG_BIN` and
//! `EVENTSIEVE_TEST_PG_USER` (for servers of a test's own), Chromium with its `chromedriver`, and the built binary, or
//! `EVENTSIEVE_BIN`. If one is missing, the test fails with a message that names it; no test is ever skipped.

pub mod api;
pub mod balancer;
pub mod browser;
pub mod certificates;
pub mod checks;
pub mod collector;
pub mod containers;
pub mod dashboard;
pub mod deployment;
pub mod disk;
pub mod eventually;
pub mod http;
pub mod markdown;
pub mod pgbouncer;
pub mod postgres;
pub mod processes;
pub mod program;
pub mod proxy;
pub mod publish;
pub mod redis;
pub mod redis_cluster;
pub mod sentinels;
pub mod service;
pub mod stream_subscriber;
pub mod trial;
pub mod world;

/// The value of an environment variable, if it is set and not empty.
pub(crate) fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// Makes two tests of each function that it lists: `NAME::on_postgres` and `NAME::on_sqlite`. Each function is an
/// `async fn NAME(world: World)` of the same module, and gets a store of its own. The compiler reports a function that is not
/// listed as dead code.
#[macro_export]
macro_rules! on_both_stores {
    ($($name:ident)+) => {
        $(mod $name {
            #[tokio::test]
            async fn on_postgres() {
                super::$name($crate::world::World::new().await).await;
            }

            #[tokio::test]
            async fn on_sqlite() {
                super::$name($crate::world::World::embedded()).await;
            }
        })+
    };
}
