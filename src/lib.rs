//! **eventsieve**: publish an event as often as you like; it is stored once, counted once, and handed to every subscriber at
//! least once.
//!
//! This page is the map. Who reads nothing else can name the file for any change.
//!
//! # The house
//!
//! Floors; a file imports only from floors below its own (and `x/y.rs` from `x.rs`). A test at the end of this file holds
//! it, and that `sqlx` is named only in the store, `axum` only at the edge, `redis` only in the fan-out and by `tail`, `opentelemetry` only in
//! [`telemetry`], and the environment only in [`config`] and [`telemetry`].
//!
//! | floor | room | what belongs there |
//! |---|---|---|
//! | 5 | [`cli`] | the commands, a file for each, with a folder for what only it has; exit codes. `target.rs` (which service a command asks). `main.rs` only parses and dispatches |
//! | 4 | [`serve`] | composition: which parts a service is made of, the order in which they start, and stop; `probe.rs` asks the store how it is; `serve` and `demo` run it |
//! | 3 | [`http`] | the edge. Routes (`http.rs`), a file for each resource, `body.rs` (media types, codings, limits), `prefer.rs`, `error.rs` (every answer that is an error), `observe.rs` (what is told of each request), `measure.rs` (requests, counted and timed), `docs.rs` (the OpenAPI document, made from the handlers, and Swagger UI), `listener.rs` (connections and their time-outs), `dashboard.rs` (the built-in page, made of the plain files in its folder, that ask this service as any client does) |
//! | 3 | [`client`] | the HTTP client that commands use: its answers, what an error means, `events.rs` (pages and the stream), `target.rs` (the base URL) |
//! | 3 | [`lifecycle`] | signals, the stop token, tasks that must not die |
//! | 2 | [`ingest`] | the way of an event from a request to its commit: `budget.rs`, `queue.rs`, `seat.rs` (who may still take events back), `writer.rs` (group commit, retries, verdicts), `writer/doubt.rs` (what is known of a flush without an answer), `writer/culprits.rs` (what the store refuses of a request), `writer/steps.rs` (what traces show of it) |
//! | 2 | [`outbox`] | the relay: publishes what was committed (`publish.rs`), and repairs what was not published (`repair.rs`); `ledger.rs` keeps the ledger small; `level.rs` looks how much is owed |
//! | 2 | [`follow`] | the fan-out inside the process: the watcher of the settled edge, the shared tail (`tail.rs`), followers |
//! | 1 | [`store`] | the contract of a store; `batch.rs` (the rows of a flush), `error.rs` (what a failure means); `outbox.rs` (what is owed to the fan-out); [`store::postgres`] and [`store::sqlite`], in the same order of the same parts: connecting, appending, reading, the outbox, pruning, verifying, the error table (and SQLite's schema, and the figures that PostgreSQL is asked for); `conformance.rs`, the promises as tests on both; `backoff.rs` |
//! | 1 | [`fanout`] | the contract of a fan-out; `redis.rs` (channels and stream); `handoff.rs` (where writers leave what the relay takes) |
//! | 1 | [`telemetry`] | what the process tells of itself: logs (`line.rs`: a record is one line), and traces (`traces.rs`; `exporter.rs`, the way to a collector) |
//! | 0 | [`event`] | the event and every rule about it: parsing is the only validation |
//! | 0 | [`config`] | flags and environment |
//! | 0 | [`metrics`] | what this process counts in memory: a field for each series, its doc comment the help text; `series.rs` (how they are made), `label.rs` (what labels may say), `history.rs` (what happened in each of the last seconds), `process.rs` (what the system says of the process) |
//!
//! Outside `src`: `migrations` (the schema in both dialects, and for PostgreSQL the flush as a function; each says why),
//! `integration-tests` (black box: the real binary, on a real PostgreSQL and on SQLite, a fault proxy, a real browser; never this library; with `checks`, what
//! the tester finds out about a deployment, `containers`, what the deployment is put through, and `schemathesis`, which asks a service
//! whatever its OpenAPI document allows and forbids), `docker-compose.yml` (the whole system), and in `deploy` the
//! image, the replicas with their balancer, a Prometheus with its rules, and `test-services.sh` (a throwaway PostgreSQL and Redis for tests).
//!
//! # The walk of one event
//!
//! 1. [`http::listener::Listener::run`] accepts the connection; [`http::routes`] finds `publish`.
//! 2. `http/publish.rs` reads the body under its limits and within the budget ([`ingest::Budget`]), and parses it
//!    ([`event::parse_json`], [`event::parse_lines`]). Names and payloads are slices of the body: nothing of them is copied. An
//!    [`event::Event`] that breaks a rule cannot exist.
//! 3. [`ingest::Ingest::submit`] puts the events into a seat of the queue, or refuses them at once if the budget is spent.
//! 4. A free [`ingest::Writer`] takes what is waiting at once when nothing is being committed; meanwhile the next batch gathers, and
//!    another writer comes for it when it is worth one, or has waited for some milliseconds. That is the group commit, without a
//!    timer on the way of a request that is alone.
//! 5. [`store::Batch::new`] folds copies into rows and sorts them by identity, so that two flushes lock the same keys in the
//!    same order; each keeps its position, the order of arrival.
//! 6. [`store::Appender::append`] is one transaction, and on PostgreSQL one statement: the ledger row, the events, the first copies of the
//!    duplicates, the counters. It answers with an [`store::Outcome`] for each row.
//! 7. The writer leaves what was stored at the [`sink::HandoffQueue`], without waiting, turns outcomes into an
//!    [`ingest::EventOutcome`] for each event and answers every request with its own, in its own order; `http/publish/report.rs` renders them.
//! 8. The [`outbox::Relay`] publishes the batch in one pipeline ([`sink::Sink::publish`]) and marks it published together
//!    with later ones; or, when Redis is away or behind, finds it in the outbox when it is back.
//! 9. The watcher ([`subscribers::Live::watch`]) reads it once it is settled, and every [`subscribers::Subscriber`] gets it
//!    (`http/stream.rs`).
//!
//! Beside it goes the trace of its request, if that is traced: [`telemetry::RequestSpan`] begins it in `http/observe.rs`, its text
//! ([`event::Trace`]) goes with the submission and with what is handed over, and each room ends a [`telemetry::Step`] of it:
//! `http.read`, `ingest.wait`, `ingest.commit`, `outbox.publish`.
//!
//! # What must stay true
//!
//! - **2xx means durable.** The answer is made from what `append` returned, and `append` returns after the commit.
//! - **A lost reply is not counted twice.** A flush that is sent again has the same [`store::GroupCommit::id`]; the ledger's unique
//!   key proves that the first attempt committed. Once an attempt was ambiguous ([`store::ErrorClass::is_ambiguous`]), only
//!   its verdicts or "outcome unknown" (504) can follow, never "nothing was stored" (503).
//! - **503 means nothing was stored.** A request can take its events back only while they lie in their seat; from the moment
//!   a writer has them it cannot, and what it then answers at its deadline is 504.
//! - **A client that goes away changes nothing.** No future that a request owns writes to the store.
//! - **One bad request hurts nobody else.** What the store would refuse is refused by `event`; if it still refuses a batch,
//!   the writer bisects it by request, and a lenient request by event, in rehearsals that are rolled back.
//! - **A request is whole.** Its events are never in two flushes.
//! - **Nothing stored is left unpublished.** The ledger row of a flush is also its row in the outbox, in the same transaction; it
//!   is marked only after Redis has acknowledged every event of it, or parked it. Until then somebody holds a lease on it or
//!   anybody may claim it.
//! - **Redis never makes publishing slow or fail.** A writer never waits at the handover, and what is in it is bounded.
//! - **What others send cannot forge a line of the log**, and no payload and no secret is in one, at any level.
//! - **Without a collector nothing is spent on traces**: no header is looked at, no span made, and what Redis gets is the same.
//! - **A walk never skips.** It stops at the settled edge ([`store::Stability`]), below the oldest transaction that still runs.
//!   Lists do not use the edge, so they show what was acknowledged.
//! - **Memory for what is published is bounded** by one budget of bytes and one of events, each from arrival to the end of the
//!   flush, by the handover's own bound, and by the buffer of a connection. Walks and followers are bounded by bytes, too. A
//!   *list* is bounded by its number of events only: a page of 1000 events of 256 KiB each is large, and a reader that is slow
//!   to take it keeps it in memory.
//!
//! # Where this differs from the design
//!
//! - The flush returns one row with arrays of what was *not* stored, instead of a row for each event: most events are new,
//!   and what is not listed was stored. It also takes each topic's totals, which the sorted batch knows for nothing.
//!   Against one CTE statement that reads no first copies it reaches 0.84 and 0.96 of its events per second with 100 and 1000
//!   rows a flush (medians of three rounds, two cores, PostgreSQL 15, fsync on; `make flush-cost` measures it).
//! - `enable_nestloop = off` and `jit = off` are properties of the function: without statistics of arrays the planner may
//!   choose a join that is quadratic in the batch, and with the first alone it compiles every flush (270 ms for one event).
//! - Readers share connections through a small pool of our own, because sqlx's can lose a place for ever when a query is
//!   cancelled on a connection that died silently ([`store::postgres`] says how).
//! - SQLite is called through rusqlite and not through sqlx: a flush is a loop of some thousand small statements in one
//!   transaction, and sqlx sends each through a channel to a thread of its own, where here each is a function call. There is
//!   also no transaction that a cancelled future could leave open. Its few migrations are applied by thirty lines of ours.
//! - An embedded store is claimed by a lock on a file of its own beside it, and not by an exclusive lock on the store, which
//!   would keep `verify` and `prune` out as well.
//! - Two files of the same name are never mixed up: a store whose file was removed or replaced takes no more events, for
//!   what were acknowledged would be gone with the process.
//! - The watcher of the settled edge asks the store every 50 ms while somebody follows, and subscribes to nothing: an empty look
//!   is cheaper than to take in every event from Redis, and it hears of other replicas as soon without Redis as with it.
//! - With a stream, its entries and the channel's messages go in one `MULTI`: a Redis that is full refuses both, so that a
//!   retry repeats nothing. Without one, `ROLE` goes with each pipeline, for a replica would take `PUBLISH` and tell nobody.
//! - While the relay is aside, batches are committed under a lease of no length, and what is repaired is read back many batches
//!   at a time: so it drains faster than small commits come in.
//! - The fast path resumes as soon as the fan-out takes something again, and not below a few batches of backlog: while
//!   publishing goes on at full speed, what goes through the store twice never gets there. The backlog goes beside it, for the
//!   order after an outage is promised to nobody.
//! - The channel costs 9 % of the throughput of batches of 1000, channel and stream 14 % (medians of five rounds on two cores,
//!   everything on them; `make fanout-cost` measures it): 1.1 and 2.3 µs of the service's CPU for each event sent (the JSON, the
//!   commands, their answers), 0.7 and 2.9 µs of Redis's, and next to nothing of PostgreSQL's. 500 followers at full speed cost
//!   publishing 8 %, for it comes first ([`follow`]).
//! - A free writer does not always take what is waiting: while another one commits, little is left to gather until that has
//!   ended, or two milliseconds have passed (`ingest/queue.rs`). And a batch is full with 500 events on PostgreSQL, fewer than a
//!   request may have (`store/postgres.rs`). Together: 22 000 single events/s instead of 12 600, and of batches of 1000
//!   85 000 events/s instead of 59 000.
//! - The flush is `append_v2`, which has a way of its own for new rows only, and for one row `append_v2_row` (their migration says
//!   what that saves). `enable_seqscan = off` is a property of both: a plan made while the table is small reads all of it for each
//!   first copy, and is kept until the next `analyze`, however large the table has become. (Told once to each session instead of
//!   with each call, it saved 2 µs of a lone flush's 86, without the wait for the disk: left as it was.)
//! - The budget of bytes counts the room that is set aside for a body and not what has come of it, and is 32 MiB; a connection has a
//!   buffer of 24 KiB. An overload from 500 connections takes 95 MB so, and took 150 MB with 48 MiB, 64 KiB and the bytes that had come.
//! - A faster allocator was tried and left out: with mimalloc nothing was faster beyond the noise, and the service had 92 MB in
//!   batches of 1000 instead of 36; with jemalloc neither, and it had 38 instead of 34. A faster JSON scanner was not tried: reading bodies is a quarter of the service's 3.5 µs for an
//!   event in batches of 1000, of which PostgreSQL takes 15.
//! - The ledger is pruned by a task of its own, with or without Redis: every flush has a row in it.
//! - The dashboard follows the stream only while few events come, and above that lists the newest once a second: 300 000
//!   events at 9 000 a second took 9 s of the service's CPU with nobody looking, 11 s with five pages that sample, and 19 s with
//!   five followers (a debug build on an embedded store).
//! - Spans are made by the OpenTelemetry API, when they end, and not by `tracing`: a flush belongs to many requests, and each
//!   trace is to have it with its true times, also when its request was answered long before (`respond-async`).
//! - What is published by the repair path carries no `traceparent`: the store does not keep it.
//! - A newer schema is accepted with a warning: migrations only add, so that an older replica can be rolled back to.

pub(crate) mod api;
pub mod cli;
pub mod client;
pub mod config;
pub mod event;
pub mod http;
pub mod ingest;
pub mod lifecycle;
pub mod metrics;
pub mod relay;
pub mod serve;
pub mod sink;
pub mod store;
pub mod subscribers;
pub mod telemetry;

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    const FLOORS: [(&str, u8); 14] = [
        ("event", 0),
        ("config", 0),
        ("metrics", 0),
        ("store", 1),
        ("sink", 1),
        ("telemetry", 1),
        ("ingest", 2),
        ("relay", 2),
        ("subscribers", 2),
        ("http", 3),
        ("client", 3),
        ("lifecycle", 3),
        ("serve", 4),
        ("cli", 5),
    ];

    /// Who may name a library or a module of `std`: rooms, or a file of one with its folder.
    const TENANTS: [(&str, &[&str]); 10] = [
        ("prometheus::", &["metrics"]),
        ("rustix::", &["metrics"]),
        ("sqlx::", &["store"]),
        ("rusqlite::", &["store"]),
        ("axum::", &["http"]),
        ("redis::", &["sink", "cli/tail"]),
        ("deadpool_redis::", &["sink"]),
        ("opentelemetry::", &["telemetry"]),
        ("opentelemetry_sdk::", &["telemetry"]),
        ("std::env::", &["config", "telemetry"]),
    ];

    /// Whether `code` names `library` itself: in `sink::redis::` it is a module of ours, in `deadpool_redis::` another library.
    fn names(code: &str, library: &str) -> bool {
        code.match_indices(library).any(|(at, _)| {
            let before = code[..at].trim_end_matches("::");
            !before.ends_with(|c: char| c.is_alphanumeric() || c == '_')
        })
    }

    fn files(folder: &Path) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        entries
            .flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] })
            .collect()
    }

    #[test]
    fn a_file_imports_only_from_floors_below_its_own() {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let floor = |room: &str| FLOORS.iter().find(|(name, _)| *name == room).map(|(_, floor)| *floor);
        let mut faults = Vec::new();
        for path in files(&source) {
            let inside = path.strip_prefix(&source).unwrap().with_extension("");
            let room = inside
                .components()
                .next()
                .unwrap()
                .as_os_str()
                .to_str()
                .unwrap()
                .to_owned();
            if inside.ends_with("tests") || inside.to_str().unwrap().contains("conformance") || floor(&room).is_none() {
                continue;
            }
            let text = std::fs::read_to_string(&path).unwrap();
            let code = text.split("#[cfg(test)]").next().unwrap();
            // Of `use crate::{serve, telemetry::start};` each first word counts, of `crate::serve::serve` the one.
            let imports = code
                .split("crate::")
                .skip(1)
                .flat_map(|import| match import.strip_prefix('{') {
                    Some(group) => group.split('}').next().unwrap().split(',').collect(),
                    None => vec![import],
                });
            for import in imports {
                let other = import
                    .trim()
                    .split(|c: char| !c.is_alphanumeric() && c != '_')
                    .next()
                    .unwrap();
                if other != room && floor(other).is_some_and(|other| other >= floor(&room).unwrap()) {
                    faults.push(format!("{} names crate::{other}", inside.display()));
                }
            }
            for (name, tenants) in TENANTS {
                if names(code, name) && !tenants.iter().any(|tenant| inside.starts_with(tenant)) {
                    faults.push(format!("{} names {name}", inside.display()));
                }
            }
        }
        assert!(faults.is_empty(), "{faults:#?}");
    }

    #[test]
    fn every_test_that_the_readme_names_is_there() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let readme = std::fs::read_to_string(root.join("README.md")).unwrap();
        let table = readme
            .split("## What you can rely on")
            .nth(1)
            .unwrap()
            .split("\n## ")
            .next()
            .unwrap();
        let tests: String = ["tests", "src/containers"]
            .iter()
            .flat_map(|folder| files(&root.join("integration-tests").join(folder)))
            .map(|path| std::fs::read_to_string(path).unwrap())
            .collect();
        let rows = table.lines().filter(|line| line.starts_with("| ")).skip(1);
        let mut names = rows
            .flat_map(|row| row.split('`').skip(1).step_by(2))
            .filter(|name| name.contains('_'))
            .peekable();
        assert!(names.peek().is_some());
        for name in names {
            // A test on one store, or one that `on_both_stores!` lists: what it does not list, the compiler calls unused.
            let forms = [format!("fn {name}() {{"), format!("fn {name}(world: World) {{")];
            let is_there = forms.iter().any(|form| tests.contains(form));
            assert!(is_there, "there is no test {name}");
        }
    }
}
