//! What this process counts, in memory: one documented field for each series, and `GET /metrics` shows them all. Recorded for
//! each request or each flush, never for each event.
//!
//! The doc comment of a field is the help text of its series. Whoever owns a fact records it; what has no moment at which it
//! changes (how full the queue is, what the system says of the process) is set when somebody looks: [`Metrics::show`].

pub mod history;
mod label;
mod process;
mod series;

use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use prometheus::{
    Counter, Gauge, Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry, TextEncoder,
};

use self::history::{Clock, History, Second};
pub use self::label::{CommitOutcome, OutcomeLabel, PublishPath};
use self::series::{SECONDS, SIZES, counter, counters, gauges, histogram, histograms, number, seconds, time};

/// Makes a struct of series: each field with its help text, its type, and the function that registers it.
macro_rules! series {
    ($($(#[doc = $help:literal])+ $field:ident: $kind:ty = $make:ident($name:literal $(, $form:expr)*);)+) => {
        /// The figures of this process since it started.
        #[derive(Debug)]
        pub struct Metrics {
            $($(#[doc = $help])+ pub $field: $kind,)+
            registry: Registry,
            clock: Clock,
            recent: Mutex<Recent>,
            /// Whoever looks holds it: of two at once the second waits.
            looking: Mutex<()>,
        }

        impl Default for Metrics {
            fn default() -> Self {
                let registry = Registry::new();
                let metrics = Self {
                    $($field: $make(&registry, $name, concat!($($help),+).trim() $(, $form)*),)+
                    registry,
                    clock: Clock::start(),
                    recent: Mutex::default(),
                    looking: Mutex::default(),
                };
                metrics.begin();
                metrics
            }
        }
    };
}

series! {
    /// The version of this program, as a label of a 1.
    build_info: IntGaugeVec = gauges("eventsieve_build_info", &["version"]);

    /// Requests answered, by the pattern of their route ("other": no such path), method ("other": an unusual one) and status.
    http_requests: IntCounterVec = counters("eventsieve_http_requests_total", &["route", "method", "status"]);
    /// Time from the head of a request to the head of its answer, by route.
    http_duration: HistogramVec = histograms("eventsieve_http_request_duration_seconds", &["route"], SECONDS);
    /// Requests whose answer has not begun.
    http_in_flight: IntGauge = number("eventsieve_http_requests_in_flight");
    /// Connections that are open.
    http_connections: IntGauge = number("eventsieve_http_connections_open");
    /// The most connections at once; more wait in the system.
    http_connections_max: IntGauge = number("eventsieve_http_connections_max");
    /// Connections cut because their client did not read what it asked for, followers mostly.
    http_readers_cut: IntCounter = counter("eventsieve_http_slow_readers_disconnected_total");
    /// Bodies of events that were received whole.
    http_bodies: IntCounter = counter("eventsieve_http_bodies_total");
    /// Bytes of these bodies, after decompression.
    http_body_bytes: IntCounter = counter("eventsieve_http_body_bytes_total");

    /// Events by what became of them. Committed are "stored", "duplicate" and "conflict" (a duplicate with another payload);
    /// "rejected" broke a rule; "unavailable" were answered 503, and nothing of them was stored; "unknown" were answered 504 (or 202,
    /// before), and may have been committed later.
    events: IntCounterVec = counters("eventsieve_events_total", &["outcome"]);
    /// Events in memory: queued, or in a flush.
    queue_events: IntGauge = number("eventsieve_queue_events");
    /// The most events in memory.
    queue_events_max: IntGauge = number("eventsieve_queue_events_max");
    /// Bytes that bodies and events in memory take of their budget.
    queue_bytes: IntGauge = number("eventsieve_queue_bytes");
    /// The budget of bytes.
    queue_bytes_max: IntGauge = number("eventsieve_queue_bytes_max");
    /// Group commits by outcome: "committed", "poison" (the store refuses one of the events), "retry" (surely nothing was
    /// stored, and the events are committed again), "unknown" (given up without knowing).
    group_commits: IntCounterVec = counters("eventsieve_group_commits_total", &["outcome"]);
    /// Attempts to commit a flush; more than flushes where some had to be sent again.
    group_commit_attempts: IntCounter = counter("eventsieve_group_commit_attempts_total");
    /// Events in a committed flush, duplicates included.
    group_commit_events: Histogram = histogram("eventsieve_group_commit_events", SIZES);
    /// Time that the attempt took which committed a flush.
    group_commit_duration: Histogram = histogram("eventsieve_group_commit_duration_seconds", SECONDS);

    /// Errors of the store that writers, the relay and the probe have met, by class. (A read that fails is a request with a 5xx.)
    store_errors: IntCounterVec = counters("eventsieve_store_errors_total", &["class"]);
    /// Whether the last probe found a store that takes writes.
    store_up: IntGauge = number("eventsieve_store_up");
    /// What the store is, and its version, as labels of a 1.
    store_info: IntGaugeVec = gauges("eventsieve_store_info", &["kind", "version"]);
    /// Age of the oldest committed batch that walks and followers do not see yet, by the last probe.
    log_visibility_lag: Gauge = seconds("eventsieve_log_visibility_lag_seconds");
    /// Batches that are stored and not yet published, by all replicas, looked at every five seconds.
    outbox_batches: IntGauge = number("eventsieve_outbox_batches");
    /// Age of the oldest of them.
    outbox_age: Gauge = seconds("eventsieve_outbox_age_seconds");
    /// Events that Redis refuses, parked until `eventsieve outbox --retry`.
    outbox_dead_letters: IntGauge = number("eventsieve_outbox_dead_letters");

    /// Whether the fan-out takes events; always 1 where it leads nowhere but to this process.
    sink_up: IntGauge = number("eventsieve_sink_up");
    /// Events that this process has published, by path: "fast" (from memory) or "catch_up" (from the outbox).
    sink_events: IntCounterVec = counters("eventsieve_sink_events_total", &["path"]);
    /// Time that one pipeline of events took.
    sink_duration: Histogram = histogram("eventsieve_sink_publish_duration_seconds", SECONDS);
    /// Events that this process has parked, for the fan-out refused them.
    sink_dead_letters: IntCounter = counter("eventsieve_sink_dead_letters_total");
    /// Errors of the fan-out, by what was wrong with it.
    sink_errors: IntCounterVec = counters("eventsieve_sink_errors_total", &["kind"]);

    /// Followers of `/events/stream`.
    subscribers: IntGauge = number("eventsieve_subscribers");
    /// The most followers at once.
    subscribers_max: IntGauge = number("eventsieve_subscribers_max");
    /// Events sent to followers, each as often as somebody was sent it.
    subscriber_events: IntCounter = counter("eventsieve_subscriber_events_total");
    /// Bytes of these events.
    subscriber_bytes: IntCounter = counter("eventsieve_subscriber_bytes_total");

    /// Memory that the process holds.
    process_memory: IntGauge = number("process_resident_memory_bytes");
    /// Processor time that the process has used, of the user and of the system.
    process_cpu: Counter = time("process_cpu_seconds_total");
    /// File handles that are open.
    process_files: IntGauge = number("process_open_fds");
    /// The most file handles that may be open.
    process_files_max: IntGauge = number("process_max_fds");
    /// Threads of the process.
    process_threads: IntGauge = number("process_threads");
    /// When the process started, since 1970.
    process_started: Gauge = seconds("process_start_time_seconds");
}

/// Counts one more as long as it lives, however it ends.
#[derive(Debug)]
pub struct Held(IntGauge);

impl Held {
    /// One more of `gauge`.
    #[must_use]
    pub fn of(gauge: &IntGauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// A flush that was committed: how many events of each verdict, and how long the commit took.
#[derive(Debug, Clone, Copy)]
pub struct Commit {
    /// New ones.
    pub stored: u64,
    /// Duplicates with the same payload.
    pub duplicates: u64,
    /// Duplicates with another payload.
    pub conflicts: u64,
    /// The attempt that committed them.
    pub latency: Duration,
}

/// How many of the last commits the percentiles are of.
const LATENCIES: usize = 1024;
/// Over how many seconds `events_per_second` is the mean.
const RATE_SECONDS: u64 = 10;

#[derive(Debug, Default)]
struct Recent {
    latencies: Vec<Duration>,
    next_latency: usize,
    history: History,
}

impl Metrics {
    /// What is known from the start. A series with such labels is there before its first event, so that its rate is right from
    /// then; of requests, those of publishing are.
    fn begin(&self) {
        self.process_started.set(self.clock.wall().as_secs_f64());
        self.build_info.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        for fate in OutcomeLabel::ALL {
            self.events_of(fate);
        }
        for end in CommitOutcome::ALL {
            self.group_commits_of(end);
        }
        for way in PublishPath::ALL {
            self.published_by(way);
        }
        for status in ["200", "201", "202", "422", "503", "504"] {
            self.http_requests.with_label_values(&["/publish", "POST", status]);
        }
        self.sink_up.set(1);
    }

    /// The counter of events with this fate, made if there was none.
    pub fn events_of(&self, fate: OutcomeLabel) -> IntCounter {
        self.events.with_label_values(&[fate.as_str()])
    }

    /// The counter of events that this process has published on this way, made if there was none.
    pub fn published_by(&self, way: PublishPath) -> IntCounter {
        self.sink_events.with_label_values(&[way.as_str()])
    }

    /// The counter of flushes that ended so, made if there was none.
    pub fn group_commits_of(&self, end: CommitOutcome) -> IntCounter {
        self.group_commits.with_label_values(&[end.as_str()])
    }

    /// Counts an error of the store, by the name of its class.
    pub fn count_store_error(&self, class: &str) {
        self.store_errors.with_label_values(&[class]).inc();
    }

    /// Records a flush that committed.
    pub fn record_commit(&self, commit: Commit) {
        let Commit {
            stored,
            duplicates,
            conflicts,
            latency,
        } = commit;
        let received = stored + duplicates + conflicts;
        for (fate, events) in [
            (OutcomeLabel::Stored, stored),
            (OutcomeLabel::Duplicate, duplicates),
            (OutcomeLabel::Conflict, conflicts),
        ] {
            self.events_of(fate).inc_by(events);
        }
        self.group_commits_of(CommitOutcome::Committed).inc();
        self.group_commit_events.observe(received as f64);
        self.group_commit_duration.observe(latency.as_secs_f64());
        let now = self.clock.second();
        let mut recent = self.lock();
        recent.history.add(now, received, stored);
        recent.add_latency(latency);
    }

    /// When the process started.
    #[must_use]
    pub fn started(&self) -> Instant {
        self.clock.started()
    }

    /// Events received per second, the mean of the last ten seconds that are over (of fewer in a younger process).
    #[must_use]
    pub fn events_per_second(&self) -> f64 {
        let seconds = self.history(RATE_SECONDS);
        let events: u64 = seconds.iter().map(|second| second.received).sum();
        events as f64 / seconds.len().max(1) as f64
    }

    /// The last `seconds` that are over, the oldest first; no more than [`history::SECONDS_MAX`], and fewer in a younger process.
    #[must_use]
    pub fn history(&self, seconds: u64) -> Vec<Second> {
        let now = self.clock.second();
        self.lock().history.last(&self.clock, now, seconds)
    }

    /// The 50th and 99th percentile of the last commits' time (nearest rank); zero when there were none.
    #[must_use]
    pub fn commit_latency(&self) -> (Duration, Duration) {
        let mut latencies = self.lock().latencies.clone();
        latencies.sort_unstable();
        let rank = |percent: usize| latencies.get((latencies.len() * percent).div_ceil(100).saturating_sub(1));
        (
            rank(50).copied().unwrap_or_default(),
            rank(99).copied().unwrap_or_default(),
        )
    }

    /// All series in the text format of Prometheus, version 0.0.4. `look` sets what has to be looked at; of two callers the
    /// second waits for the first.
    ///
    /// # Errors
    /// A series cannot be written: a bug.
    pub fn show(&self, look: impl FnOnce()) -> prometheus::Result<String> {
        let looking = self.looking.lock().expect("nothing panics while it looks");
        look();
        self.read_process();
        let families = self.registry.gather();
        drop(looking);
        TextEncoder::new().encode_to_string(&families)
    }

    fn lock(&self) -> MutexGuard<'_, Recent> {
        self.recent.lock().expect("nothing panics while it holds the figures")
    }
}

impl Recent {
    fn add_latency(&mut self, latency: Duration) {
        if self.latencies.len() < LATENCIES {
            self.latencies.push(latency);
        } else {
            let next = self.next_latency;
            self.latencies[next] = latency;
            self.next_latency = (next + 1) % LATENCIES;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn commit(latency: Duration) -> Commit {
        Commit {
            stored: 5,
            duplicates: 3,
            conflicts: 2,
            latency,
        }
    }

    #[test]
    fn percentiles_are_by_nearest_rank() {
        let metrics = Metrics::default();
        assert_eq!(metrics.commit_latency(), (Duration::ZERO, Duration::ZERO));
        for milliseconds in 1..=100 {
            metrics.record_commit(commit(Duration::from_millis(milliseconds)));
        }
        assert_eq!(
            metrics.commit_latency(),
            (Duration::from_millis(50), Duration::from_millis(99))
        );
    }

    #[test]
    fn a_commit_is_shown_in_all_its_series() {
        let metrics = Metrics::default();
        metrics.record_commit(commit(Duration::from_millis(2)));
        let shown = metrics.show(|| metrics.queue_events.set(7)).unwrap();
        for line in [
            r#"eventsieve_events_total{outcome="stored"} 5"#,
            r#"eventsieve_events_total{outcome="duplicate"} 3"#,
            r#"eventsieve_events_total{outcome="conflict"} 2"#,
            r#"eventsieve_events_total{outcome="unknown"} 0"#,
            r#"eventsieve_group_commits_total{outcome="committed"} 1"#,
            r#"eventsieve_group_commit_events_bucket{le="10"} 1"#,
            r#"eventsieve_group_commit_events_bucket{le="5"} 0"#,
            "eventsieve_group_commit_duration_seconds_sum 0.002",
            "eventsieve_queue_events 7",
        ] {
            assert!(shown.lines().any(|shown| shown == line), "no {line} in\n{shown}");
        }
    }

    #[test]
    fn every_series_has_a_help_text_of_whole_sentences() {
        let shown = Metrics::default().show(|| {}).unwrap();
        let texts: Vec<&str> = shown.lines().filter_map(|line| line.strip_prefix("# HELP ")).collect();
        assert!(texts.len() > 25, "{texts:?}");
        for text in texts {
            let (_, sentence) = text.split_once(' ').unwrap();
            assert!(
                sentence.starts_with(char::is_uppercase) && sentence.ends_with(['.', ')']),
                "{text}"
            );
            assert!(!sentence.contains("  "), "{text}");
        }
    }
}
