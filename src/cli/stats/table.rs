//! The figures of a service as a table.

use std::time::Duration;

use crate::api::stats::Stats;

/// How many topics are shown.
const TOPICS_SHOWN: usize = 20;

/// The table of all figures, and of the largest topics.
#[must_use]
pub fn table(stats: &Stats) -> String {
    let lines = [
        ("received", grouped(stats.received)),
        ("unique", grouped(stats.unique_processed)),
        ("duplicates", grouped(stats.duplicate_dropped)),
        ("conflicts", grouped(stats.conflicts)),
        ("rows", grouped(stats.database_total_rows)),
        (
            "duplicate rate",
            format!("{:.1} %", stats.performance.duplicate_rate * 100.0),
        ),
        ("events/s", rounded(stats.performance.events_per_second)),
        (
            "commit latency p50",
            format!("{:.1} ms", stats.performance.commit_latency_ms.p50),
        ),
        (
            "commit latency p99",
            format!("{:.1} ms", stats.performance.commit_latency_ms.p99),
        ),
        (
            "queue",
            format!("{} of {}", grouped(stats.queue.events), grouped(stats.queue.capacity)),
        ),
        ("outbox", outbox(stats)),
        ("log lag", format!("{:.1} s", stats.log.unsettled_seconds)),
        ("store", stats.store.to_string()),
        ("fan-out", stats.fanout.to_string()),
        ("uptime", uptime(stats.uptime_seconds)),
        ("topics", grouped(stats.topic_count)),
    ];
    let mut table: String = lines.iter().map(|(name, value)| line(name, value)).collect();
    for (topic, unique) in stats.topics.iter().take(TOPICS_SHOWN) {
        table.push_str(&line(&format!("  {topic}"), &grouped(*unique)));
    }
    let shown = stats.topics.len().min(TOPICS_SHOWN) as u64;
    match stats.topic_count.saturating_sub(shown) {
        0 => {}
        more => table.push_str(&format!("  … and {} more\n", grouped(more))),
    }
    table
}

/// A name, and its value at the right edge; a name that is too long pushes its value out.
fn line(name: &str, value: &str) -> String {
    format!("{name:<24} {value:>23}\n")
}

fn outbox(stats: &Stats) -> String {
    let outbox = &stats.outbox;
    let mut text = format!("{} waiting", grouped(outbox.batches));
    if outbox.batches > 0 {
        text.push_str(&format!(" for {:.0} s", outbox.oldest_seconds));
    }
    if outbox.parked > 0 {
        text.push_str(&format!(", {} parked", grouped(outbox.parked)));
    }
    text
}

fn uptime(seconds: f64) -> String {
    // What is no time (negative, not a number) can only be another program's.
    let uptime = Duration::try_from_secs_f64(seconds.floor()).unwrap_or_default();
    humantime::format_duration(uptime).to_string()
}

/// A rate without its fraction, in groups.
#[expect(
    clippy::cast_possible_truncation,
    reason = "rounding is what is meant here, and a float beyond the range becomes its end"
)]
fn rounded(number: f64) -> String {
    grouped(number.round() as u64)
}

/// A number in groups of three digits: `20 000`.
#[must_use]
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
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
    fn the_table_has_every_figure() {
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
            ("received", "20 000"),
            ("unique", "14 000"),
            ("duplicates", "6 000"),
            ("conflicts", "3"),
            ("rows", "13 999"),
            ("duplicate rate", "30.0 %"),
            ("events/s", "1 235"),
            ("commit latency p50", "1.2 ms"),
            ("commit latency p99", "12.0 ms"),
            ("queue", "5 of 100 000"),
            ("outbox", "0 waiting"),
            ("log lag", "0.5 s"),
            ("store", "postgres"),
            ("fan-out", "redis"),
            ("uptime", "1h 2m 3s"),
            ("topics", "1"),
            ("  topic-0", "7"),
        ] {
            let expected = line(name, value);
            assert!(table.contains(&expected), "{expected} is not in\n{table}");
        }
        assert_eq!(table.lines().count(), 17, "{table}");
        assert!(table.lines().all(|line| line.chars().count() == 48), "{table}");
    }

    #[test]
    fn twenty_topics_are_shown_and_the_others_are_counted() {
        assert!(!table(&with_topics(20)).contains("more"));
        for (topics, more) in [(21, "… and 1 more"), (1_234_567, "… and 1 234 547 more")] {
            let table = table(&with_topics(topics));
            assert_eq!(table.matches("topic-").count(), 20, "{table}");
            assert!(table.trim_end().ends_with(more), "{table}");
        }
    }

    #[test]
    fn an_outbox_that_waits_tells_for_how_long() {
        let stats = stats_with(json!({ "outbox": {"batches": 1200, "oldest_seconds": 61.4, "parked": 2} }));
        assert_eq!(outbox(&stats), "1 200 waiting for 61 s, 2 parked");
    }

    #[test]
    fn digits_are_grouped_by_three() {
        for (number, text) in [
            (0, "0"),
            (999, "999"),
            (1_000, "1 000"),
            (20_000, "20 000"),
            (100_000, "100 000"),
            (u64::MAX, "18 446 744 073 709 551 615"),
        ] {
            assert_eq!(grouped(number), text);
        }
    }
}
