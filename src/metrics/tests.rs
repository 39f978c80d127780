//! The metrics as they are rendered.

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
fn commit_latency_is_by_nearest_rank() {
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
fn record_commit_updates_all_its_series() {
    let metrics = Metrics::default();
    metrics.record_commit(commit(Duration::from_millis(2)));
    let rendered = metrics.render(|| metrics.queue_events.set(7)).unwrap();
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
        assert!(rendered.lines().any(|found| found == line), "no {line} in\n{rendered}");
    }
}

#[test]
fn every_help_text_is_a_sentence() {
    let rendered = Metrics::default().render(|| {}).unwrap();
    let texts: Vec<&str> = rendered
        .lines()
        .filter_map(|line| line.strip_prefix("# HELP "))
        .collect();
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
