//! **eventsieve**: publish an event as often as you like; it is stored once, counted once, and delivered to every subscriber at
//! least once.
//!
//! This page is the architecture. `docs/concepts` explains the promises, `docs/adr` the decisions.
//!
//! # Layers
//!
//! A module imports only from layers below its own, and files do not import from each other in a circle.
//! `tests/architecture` checks it.
//!
//! | layer | modules | responsibility |
//! |---|---|---|
//! | 7 | [`cli`] | a file for each command; exit codes |
//! | 6 | [`serve`] | composition: what starts and stops, in which order |
//! | 5 | [`http`] | the server: routes, limits, errors, OpenAPI document, dashboard |
//! | 5 | [`client`] | the HTTP client of the commands |
//! | 5 | [`lifecycle`] | signals, the stop token, supervised tasks |
//! | 4 | [`ingest`] | memory budget, queue, group commit |
//! | 4 | [`relay`] | publishes committed batches to the sink |
//! | 4 | [`subscribers`] | the live stream: one log reader, one ring buffer |
//! | 4 | [`retention`] | expiry and archive |
//! | 4 | [`principals`] | who may do what |
//! | 3 | [`store`] | the contract of a store; PostgreSQL, SQLite; one conformance suite |
//! | 3 | [`sink`] | the contract of a sink; Redis; the handoff queue |
//! | 3 | [`telemetry`] | logs and traces |
//! | 2 | [`api`] | HTTP requests and answers |
//! | 2 | [`config`] | flags and environment variables |
//! | 1 | [`access`] | scopes and keys |
//! | 0 | [`event`] | the event; an invalid one cannot be constructed |
//! | 0 | [`metrics`] | the counters of the process |
//!
//! # The path of one event
//!
//! 1. [`http::routes()`] leads `POST /publish` to its handler.
//! 2. The handler reads the body within its limits and the memory budget ([`ingest::Budget`]), and parses it
//!    ([`event::parse_json`], [`event::parse_lines`]). Payloads are slices of the body.
//! 3. [`ingest::Ingest::submit`] queues the events as one pending request, or rejects them if the budget is spent.
//! 4. A free [`ingest::Writer`] claims what is queued, small requests apart from large. While it commits, more
//!    gather; a lone request never waits for a timer.
//! 5. [`store::Batch::new`] merges copies and sorts rows by identity, so that concurrent commits lock keys in one order.
//! 6. [`store::Appender::append`] commits the events, the counters and a row of the commit ledger in one transaction, and
//!    returns an [`store::Outcome`] for each row.
//! 7. The writer offers stored events to the [`sink::HandoffQueue`] without waiting, and answers each request with the
//!    outcomes of its own events.
//! 8. The [`relay::Relay`] publishes the batch ([`sink::Sink::publish`]) and marks it published. After an outage it reads the
//!    batch from the outbox.
//! 9. The watcher of [`subscribers`] reads the event once its position is stable, and every subscriber of the live stream
//!    gets it.
//!
//! # Invariants
//!
//! - **2xx means durable.** The answer is made from what `append` returned, after the commit.
//! - **A lost reply is not counted twice.** A group commit that is sent again keeps its [`store::GroupCommit::id`], which is
//!   unique in the commit ledger. After an ambiguous attempt ([`store::ErrorClass::is_ambiguous`]) the answer is the outcome
//!   or 504, never 503.
//! - **503 means that nothing was stored.** A request can withdraw its events only until a writer claims them.
//! - **A client that disconnects changes nothing.** No future that a request owns writes to the store.
//! - **One bad request harms no other.** If the store rejects a batch, the writer finds the poison event by dry runs.
//! - **A request is never split** between commits.
//! - **Nothing stored stays unpublished.** A commit's ledger row is its outbox row, and is marked only after the sink has
//!   acknowledged or dead-lettered every event.
//! - **The sink never slows publishing.** Writers never wait for the handoff queue.
//! - **A scan skips nothing.** It stops at the last stable position ([`store::Stability`]), before the oldest transaction that
//!   still runs. Lists show every committed event.
//! - **Memory is bounded** by budgets of requests and answers, queues and buffers.
//! - **Input cannot forge a log line**, and no log line contains a payload or a secret.

#![deny(clippy::print_stdout, clippy::print_stderr)]

pub(crate) mod access;
pub(crate) mod api;
pub mod cli;
pub mod client;
pub mod config;
pub mod event;
pub mod http;
pub mod ingest;
pub mod lifecycle;
pub mod metrics;
pub(crate) mod principals;
pub mod relay;
mod retention;
pub mod serve;
pub mod sink;
pub mod store;
pub mod subscribers;
pub mod telemetry;

#[cfg(test)]
mod reference;
