//! The statistics of a service as a table.

use std::time::Duration;

use crate::api::stats::Stats;
use crate::cli::table::{count, rate, values};
use crate::cli::text::printable;

/// How many topics are shown.
const TOPICS_SHOWN: usize = 20;

/// The table of all values, and of the largest topics.
pub(crate) fn table(stats: &Stats) -> String {
    let ms = |number: f64| format!("{number:.1} ms");
    let performance = &stats.performance;
    let rows = [
        ("received", count(stats.received)),
        ("unique", count(stats.unique_processed)),
        ("duplicates", count(stats.duplicate_dropped)),
        ("conflicts", count(stats.conflicts)),
        ("rows", count(stats.database_total_rows)),
        ("duplicate rate", format!("{:.1} %", performance.duplicate_rate * 100.0)),
        ("events/s", rate(performance.events_per_second)),
        ("commit latency p50", ms(performance.commit_latency_ms.p50)),
        ("commit latency p99", ms(performance.commit_latency_ms.p99)),
        (
            "queue",
            format!("{} of {}", count(stats.queue.events), count(stats.queue.capacity)),
        ),
        ("outbox", outbox(stats)),
        ("visibility lag", format!("{:.1} s", stats.log.unsettled_seconds)),
        ("store", stats.store.to_string()),
        ("sink", stats.fanout.to_string()),
        ("uptime", uptime(stats.uptime_seconds)),
        ("topics", count(stats.topic_count)),
    ];
    let topics = stats.topics.iter().take(TOPICS_SHOWN);
    let topics = topics.map(|(topic, unique)| (format!("  {}", printable(topic)), count(*unique)));
    let rows = rows.into_iter().map(|(label, value)| (label.to_owned(), value));
    let mut table = values(rows.chain(topics));
    let shown = stats.topics.len().min(TOPICS_SHOWN) as u64;
    match stats.topic_count.saturating_sub(shown) {
        0 => {}
        more => table.push_str(&format!("  … and {} more\n", count(more))),
    }
    table
}

fn outbox(stats: &Stats) -> String {
    let outbox = &stats.outbox;
    let mut text = format!("{} waiting", count(outbox.batches));
    if outbox.batches > 0 {
        text.push_str(&format!(" for {:.0} s", outbox.oldest_seconds));
    }
    if outbox.parked > 0 {
        text.push_str(&format!(", {} dead letters", count(outbox.parked)));
    }
    text
}

fn uptime(seconds: f64) -> String {
    // A number that is not a time (negative, for example) can only come from another program.
    let uptime = Duration::try_from_secs_f64(seconds.floor()).unwrap_or_default();
    humantime::format_duration(uptime).to_string()
}

#[cfg(test)]
mod tests {
    use serde_json::{Map, json};

    use super::*;
    use crate::api::stats::example::stats_with;

    fn with_topics(count: u64) -> Stats {
        let topics: Map<_, _> = (0..count.min(1000))
            .map(|number| (format!("topic-{number}"), json!(7)))
            .collect();
        stats_with(json!({ "topics": topics, "topic_count": count }))
    }

    #[test]
    fn the_table_has_every_value() {
        let stats = stats_with(json!({
            "conflicts": 3,
            "topics": {"topic-0": 7},
            "topic_count": 1,
            "uptime_seconds": 3723.4,
            "database_total_rows": 13_999,
            "performance": {"events_per_second": 1234.56, "commit_latency_ms": {"p50": 1.25, "p99": 12.0}, "duplicate_rate": 0.3},
            "queue": {"events": 5, "capacity": 100_000},
            "log": {"unsettled_seconds": 0.5},
        }));
        let table = table(&stats);
        for (name, value) in [
            ("received", "20,000"),
            ("unique", "14,000"),
            ("duplicates", "6,000"),
            ("conflicts", "3"),
            ("rows", "13,999"),
            ("duplicate rate", "30.0 %"),
            ("events/s", "1,235"),
            ("commit latency p50", "1.2 ms"),
            ("commit latency p99", "12.0 ms"),
            ("queue", "5 of 100,000"),
            ("outbox", "0 waiting"),
            ("visibility lag", "0.5 s"),
            ("store", "postgres"),
            ("sink", "redis"),
            ("uptime", "1h 2m 3s"),
            ("topics", "1"),
            ("  topic-0", "7"),
        ] {
            let is_row = |line: &str| line.strip_prefix(name).is_some_and(|rest| rest.trim() == value);
            assert!(table.lines().any(is_row), "{name} {value} is not in\n{table}");
        }
        assert_eq!(table.lines().count(), 17, "{table}");
        let widths: std::collections::HashSet<_> = table.lines().map(|line| line.chars().count()).collect();
        assert_eq!(widths.len(), 1, "{table}");
    }

    #[test]
    fn twenty_topics_are_shown_and_others_counted() {
        assert!(!table(&with_topics(20)).contains("more"));
        for (topics, more) in [(21, "… and 1 more"), (1_234_567, "… and 1,234,547 more")] {
            let table = table(&with_topics(topics));
            assert_eq!(table.matches("topic-").count(), 20, "{table}");
            assert!(table.trim_end().ends_with(more), "{table}");
        }
    }

    #[test]
    fn a_waiting_outbox_has_its_age() {
        let stats = stats_with(json!({ "outbox": {"batches": 1200, "oldest_seconds": 61.4, "parked": 2} }));
        assert_eq!(outbox(&stats), "1,200 waiting for 61 s, 2 dead letters");
    }
}
