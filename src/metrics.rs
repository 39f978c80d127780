//! Metrics: what this process counts, in memory. Each series is one documented field, and `GET /metrics` renders them all. They
//! are recorded for each request or each group commit, never for each event.
//!
//! The doc comment of a field is the help text of its series. A module records the facts that it owns; values without a moment
//! of change (the length of the queue, the memory of the process) are read for each [`Metrics::render`].

mod guard;
pub(crate) mod history;
mod label;
mod process;
mod recent;
mod series;

use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use prometheus::{
    Counter, Gauge, Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry, TextEncoder,
};

pub(crate) use self::guard::GaugeGuard;
use self::history::{Clock, Second};
pub(crate) use self::label::{CommitOutcome, OutcomeLabel, PublishPath};
pub(crate) use self::recent::Commit;
use self::recent::Recent;
use self::series::{SECONDS, SIZES, counter, counters, gauges, histogram, histograms, number, seconds, time};

/// Over how many seconds `events_per_second` is the mean.
const RATE_SECONDS: u64 = 10;

/// Makes a struct of series: each field with its help text, its type, and the function that registers it.
macro_rules! series {
    ($($(#[doc = $help:literal])+ $field:ident: $kind:ty = $make:ident($name:literal $(, $form:expr)*);)+) => {
        /// The metrics of this process since it started.
        #[derive(Debug)]
        pub struct Metrics {
            $($(#[doc = $help])+ pub $field: $kind,)+
            registry: Registry,
            clock: Clock,
            recent: Mutex<Recent>,
            /// Held while values are read: of two renderings the second waits.
            rendering: Mutex<()>,
        }

        impl Metrics {
            /// Every series with the type of its field, for the reference.
            #[cfg(test)]
            pub(crate) fn descriptions(&self) -> Vec<(prometheus::core::Desc, &'static str)> {
                use prometheus::core::Collector;
                vec![$((self.$field.desc()[0].clone(), stringify!($kind))),+]
            }
        }

        impl Default for Metrics {
            fn default() -> Self {
                let registry = Registry::new();
                let metrics = Self {
                    $($field: $make(&registry, $name, concat!($($help),+).trim() $(, $form)*),)+
                    registry,
                    clock: Clock::start(),
                    recent: Mutex::default(),
                    rendering: Mutex::default(),
                };
                metrics.begin();
                metrics
            }
        }
    };
}

series! {
    /// The version of the program, as a label; the value is always 1.
    build_info: IntGaugeVec = gauges("eventsieve_build_info", &["version"]);

    /// HTTP requests that were answered, by route pattern ("other" for unknown paths), method ("other" for unusual methods) and
    /// status code.
    http_requests: IntCounterVec = counters("eventsieve_http_requests_total", &["route", "method", "status"]);
    /// Seconds from the head of an HTTP request to the head of its response, by route pattern.
    http_duration: HistogramVec = histograms("eventsieve_http_request_duration_seconds", &["route"], SECONDS);
    /// HTTP requests in progress, whose response has not begun.
    http_in_flight: IntGauge = number("eventsieve_http_requests_in_flight");
    /// Open client connections.
    http_connections: IntGauge = number("eventsieve_http_connections_open");
    /// Maximum number of open client connections; further clients wait in the backlog of the operating system.
    http_connections_max: IntGauge = number("eventsieve_http_connections_max");
    /// Connections refused because their client had too many.
    http_connections_refused: IntCounter = counter("eventsieve_http_connections_refused_total");
    /// Connections of trusted proxies that were closed because they did not begin with a valid header of the PROXY protocol.
    http_proxy_headers_invalid: IntCounter = counter("eventsieve_http_proxy_headers_invalid_total");
    /// Connections closed because their client did not read its response in time; most are subscribers of the event stream.
    http_slow_readers: IntCounter = counter("eventsieve_http_slow_readers_disconnected_total");
    /// Request bodies with events that were received completely.
    http_bodies: IntCounter = counter("eventsieve_http_bodies_total");
    /// Bytes of completely received request bodies with events, after decompression.
    http_body_bytes: IntCounter = counter("eventsieve_http_body_bytes_total");

    /// New topics that were refused, because there had been too many in a minute.
    topics_refused: IntCounter = counter("eventsieve_topics_refused_total");

    /// Bytes of memory taken for responses until their clients have read them.
    answer_bytes: IntGauge = number("eventsieve_answer_bytes");
    /// Maximum number of bytes taken for responses; beyond it requests to read are answered with 503.
    answer_bytes_max: IntGauge = number("eventsieve_answer_bytes_max");

    /// Published events by outcome: "stored"; "duplicate"; "conflict" (a duplicate with another payload); "rejected" (invalid, or
    /// rejected by the store); "unavailable" (answered with 503, not stored); "unknown" (the outcome of the commit is unknown: the
    /// client received 504, or had already received 202).
    events: IntCounterVec = counters("eventsieve_events_total", &["outcome"]);
    /// Events in memory that are queued or being committed.
    queue_events: IntGauge = number("eventsieve_queue_events");
    /// Maximum number of events in memory that are queued or being committed; beyond it requests are answered with 503.
    queue_events_max: IntGauge = number("eventsieve_queue_events_max");
    /// Bytes of memory reserved for request bodies and events until their commit has ended.
    queue_bytes: IntGauge = number("eventsieve_queue_bytes");
    /// Maximum number of bytes reserved for request bodies and events; beyond it requests are answered with 503.
    queue_bytes_max: IntGauge = number("eventsieve_queue_bytes_max");
    /// Group commits by outcome: "committed"; "poison" (the store rejects one of the events); "retry" (nothing was stored, the
    /// events are committed again); "unknown" (given up, the events may be stored).
    group_commits: IntCounterVec = counters("eventsieve_group_commits_total", &["outcome"]);
    /// Attempts at group commits; more than the group commits when some were sent again after an unknown outcome.
    group_commit_attempts: IntCounter = counter("eventsieve_group_commit_attempts_total");
    /// Events in each committed group commit, duplicates included.
    group_commit_events: Histogram = histogram("eventsieve_group_commit_events", SIZES);
    /// Seconds that the successful attempt of each group commit took.
    group_commit_duration: Histogram = histogram("eventsieve_group_commit_duration_seconds", SECONDS);

    /// Errors of the store in writers, relay and health probe, by class: data, lost_race, contention, resources, read_only, ambiguous,
    /// not_sent, stale_plan, configuration or unexpected. Failed reads are not included; they are counted as HTTP requests with
    /// status 5xx.
    store_errors: IntCounterVec = counters("eventsieve_store_errors_total", &["class"]);
    /// Whether the last health probe reached a store that takes writes: 1 or 0.
    store_up: IntGauge = number("eventsieve_store_up");
    /// The kind and version of the store, as labels; the value is always 1.
    store_info: IntGaugeVec = gauges("eventsieve_store_info", &["kind", "version"]);
    /// Age in seconds of the oldest committed batch that cursor reads and subscribers cannot see yet, at the last health probe.
    log_visibility_lag: Gauge = seconds("eventsieve_log_visibility_lag_seconds");
    /// Batches in the outbox of all replicas that are stored and not published to the sink, read every five seconds.
    outbox_batches: IntGauge = number("eventsieve_outbox_batches");
    /// Age in seconds of the oldest batch in the outbox that is not published to the sink, read every five seconds.
    outbox_age: Gauge = seconds("eventsieve_outbox_age_seconds");
    /// Events that this process has removed because they had expired.
    expired_events: IntCounter = counter("eventsieve_retention_expired_events_total");
    /// Identities that this process has forgotten because they had expired.
    forgotten_identities: IntCounter = counter("eventsieve_retention_forgotten_identities_total");
    /// Events that should have expired and are kept because they are not published, at the last pass of this process.
    held_back_events: IntGauge = number("eventsieve_retention_held_back_events");
    /// Partitions of the log, at the last pass of this process.
    partitions: IntGauge = number("eventsieve_retention_partitions");
    /// Bytes that the events take on disk, indexes included, at the last pass of this process.
    partition_bytes: IntGauge = number("eventsieve_retention_events_bytes");
    /// Partitions that had expired and could not be archived, so that they were kept; each attempt counts.
    archive_errors: IntCounter = counter("eventsieve_archive_errors_total");
    /// Dead letters in the outbox: events that the sink rejected and that wait for `eventsieve outbox --retry`.
    outbox_dead_letters: IntGauge = number("eventsieve_outbox_dead_letters");

    /// Whether the sink takes events: 1 or 0; always 1 without Redis.
    sink_up: IntGauge = number("eventsieve_sink_up");
    /// Events that this process has published to the sink, by path: "fast" (from memory) or "catch_up" (from the outbox).
    sink_events: IntCounterVec = counters("eventsieve_sink_events_total", &["path"]);
    /// Seconds that the sink took to answer one pipeline of events.
    sink_duration: Histogram = histogram("eventsieve_sink_publish_duration_seconds", SECONDS);
    /// Events that the sink rejected and that this process has turned into dead letters.
    sink_dead_letters: IntCounter = counter("eventsieve_sink_dead_letters_total");
    /// Errors of the sink that made this process stop publishing until the sink was back, by kind: unreachable, starting, read_only,
    /// full, forbidden or unexpected.
    sink_errors: IntCounterVec = counters("eventsieve_sink_errors_total", &["kind"]);

    /// Subscribers of the event stream `/events/stream`.
    subscribers: IntGauge = number("eventsieve_subscribers");
    /// Maximum number of subscribers of the event stream; further ones are answered with 503.
    subscribers_max: IntGauge = number("eventsieve_subscribers_max");
    /// Events sent to subscribers of the event stream; an event counts once for each subscriber.
    subscriber_events: IntCounter = counter("eventsieve_subscriber_events_total");
    /// Bytes of events sent to subscribers of the event stream.
    subscriber_bytes: IntCounter = counter("eventsieve_subscriber_bytes_total");

    /// Lines of the log that were lost, because standard error did not take them.
    log_lines_lost: IntCounter = counter("eventsieve_log_lines_lost_total");

    /// Resident memory of the process in bytes.
    process_memory: IntGauge = number("process_resident_memory_bytes");
    /// Processor time of the process in seconds, user and system together.
    process_cpu: Counter = time("process_cpu_seconds_total");
    /// Open file descriptors of the process.
    process_files: IntGauge = number("process_open_fds");
    /// Maximum number of open file descriptors of the process.
    process_files_max: IntGauge = number("process_max_fds");
    /// Threads of the process.
    process_threads: IntGauge = number("process_threads");
    /// Start time of the process in seconds since 1970-01-01 UTC.
    process_started: Gauge = seconds("process_start_time_seconds");
}

impl Metrics {
    /// Sets the values that are known from the start, and makes the series whose labels are: a series that exists before its first
    /// event has the right rate from then on.
    fn begin(&self) {
        self.process_started.set(self.clock.wall().as_secs_f64());
        self.build_info.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        for outcome in OutcomeLabel::ALL {
            self.events_of(outcome);
        }
        for outcome in CommitOutcome::ALL {
            self.group_commits_of(outcome);
        }
        for path in PublishPath::ALL {
            self.published_by(path);
        }
        for status in ["200", "201", "202", "422", "429", "503", "504"] {
            self.http_requests.with_label_values(&["/publish", "POST", status]);
        }
        self.sink_up.set(1);
    }

    /// The counter of events with this outcome.
    pub fn events_of(&self, outcome: OutcomeLabel) -> IntCounter {
        self.events.with_label_values(&[outcome.as_str()])
    }

    /// The counter of events that this process has published on this path.
    pub fn published_by(&self, path: PublishPath) -> IntCounter {
        self.sink_events.with_label_values(&[path.as_str()])
    }

    /// The counter of group commits with this outcome.
    pub fn group_commits_of(&self, outcome: CommitOutcome) -> IntCounter {
        self.group_commits.with_label_values(&[outcome.as_str()])
    }

    /// Counts an error of the store, by the name of its class.
    pub fn count_store_error(&self, class: &str) {
        self.store_errors.with_label_values(&[class]).inc();
    }

    /// Records a successful group commit.
    pub fn record_commit(&self, commit: Commit) {
        for (outcome, events) in [
            (OutcomeLabel::Stored, commit.stored),
            (OutcomeLabel::Duplicate, commit.duplicates),
            (OutcomeLabel::Conflict, commit.conflicts),
        ] {
            self.events_of(outcome).inc_by(events);
        }
        self.group_commits_of(CommitOutcome::Committed).inc();
        self.group_commit_events.observe(commit.received() as f64);
        self.group_commit_duration.observe(commit.latency.as_secs_f64());
        let now = self.clock.second();
        self.recent().add(now, commit);
    }

    /// When the process started.
    pub fn started(&self) -> Instant {
        self.clock.started()
    }

    /// Events received per second: the mean of the last ten completed seconds, of fewer in a younger process.
    pub fn events_per_second(&self) -> f64 {
        let seconds = self.history(RATE_SECONDS);
        let events: u64 = seconds.iter().map(|second| second.received).sum();
        events as f64 / seconds.len().max(1) as f64
    }

    /// The last completed seconds, the oldest first; at most `seconds` and [`history::SECONDS_MAX`], fewer in a younger process.
    pub fn history(&self, seconds: u64) -> Vec<Second> {
        let now = self.clock.second();
        self.recent().history.last(&self.clock, now, seconds)
    }

    /// The 50th and 99th percentile of the latencies of recent group commits; zero when there were none.
    pub fn commit_latency(&self) -> (Duration, Duration) {
        // Sorted after the lock is released: it is taken by each group commit.
        let latencies = self.recent().latencies.clone();
        latencies.percentiles()
    }

    /// All series in the text format of Prometheus, version 0.0.4. `read` sets the values that have no moment of change. An error
    /// is a bug.
    pub fn render(&self, read: impl FnOnce()) -> prometheus::Result<String> {
        let rendering = self
            .rendering
            .lock()
            .expect("no code panics while it reads the metrics");
        read();
        self.read_process();
        let families = self.registry.gather();
        drop(rendering);
        TextEncoder::new().encode_to_string(&families)
    }

    fn recent(&self) -> MutexGuard<'_, Recent> {
        self.recent.lock().expect("no code panics while it holds this lock")
    }
}

#[cfg(test)]
mod tests;
