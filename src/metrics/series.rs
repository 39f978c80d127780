//! Functions that make and register a series. Only a name or a label can be wrong, and those are fixed in the source: any test
//! that makes the metrics shows it.

use prometheus::core::Collector;
use prometheus::{
    Counter, Gauge, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry, Result,
};

/// The buckets of times, in seconds: from a commit on a fast disk to the request deadline.
pub(super) const SECONDS: &[f64] = &[
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0,
];

/// The buckets of numbers of events: from a single event to the largest batch.
pub(super) const SIZES: &[f64] = &[
    1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0, 2000.0, 5000.0, 10_000.0,
];

/// A counter.
pub(super) fn counter(registry: &Registry, name: &str, help: &str) -> IntCounter {
    registered(registry, IntCounter::new(name, help))
}

/// The same for each value of some labels.
pub(super) fn counters(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
    registered(registry, IntCounterVec::new(Opts::new(name, help), labels))
}

/// A counter of seconds.
pub(super) fn time(registry: &Registry, name: &str, help: &str) -> Counter {
    registered(registry, Counter::new(name, help))
}

/// A gauge of a whole number.
pub(super) fn number(registry: &Registry, name: &str, help: &str) -> IntGauge {
    registered(registry, IntGauge::new(name, help))
}

/// The same for each value of some labels.
pub(super) fn gauges(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
    registered(registry, IntGaugeVec::new(Opts::new(name, help), labels))
}

/// A gauge of seconds.
pub(super) fn seconds(registry: &Registry, name: &str, help: &str) -> Gauge {
    registered(registry, Gauge::new(name, help))
}

/// A histogram.
pub(super) fn histogram(registry: &Registry, name: &str, help: &str, bounds: &[f64]) -> Histogram {
    let options = HistogramOpts::new(name, help).buckets(bounds.to_vec());
    registered(registry, Histogram::with_opts(options))
}

/// The same for each value of some labels.
pub(super) fn histograms(registry: &Registry, name: &str, help: &str, labels: &[&str], bounds: &[f64]) -> HistogramVec {
    let options = HistogramOpts::new(name, help).buckets(bounds.to_vec());
    registered(registry, HistogramVec::new(options, labels))
}

fn registered<T: Collector + Clone + 'static>(registry: &Registry, made: Result<T>) -> T {
    let made = made.expect("the names of series and labels are fixed and good");
    registry
        .register(Box::new(made.clone()))
        .expect("each series has a name of its own");
    made
}
