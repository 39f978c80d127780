//! The check of the statistics.

use std::ops::RangeInclusive;

use crate::api::stats::Stats;
use crate::cli::load::plan::Plan;
use crate::cli::table::count;

/// The check in words: `received 20,000 = unique 14,000 + duplicates 6,000: ok`.
pub(super) fn sum(stats: &Stats, is_right: bool) -> String {
    format!(
        "received {} = unique {} + duplicates {}: {}",
        count(stats.received),
        count(stats.unique_processed),
        count(stats.duplicate_dropped),
        if is_right { "ok" } else { "wrong" }
    )
}

/// The first value that does not follow from `plan` in an empty store. Each of the `resent` events may be counted as a duplicate once
/// more.
pub(super) fn error(stats: &Stats, plan: &Plan, resent: u64) -> Option<String> {
    let exactly = |number: u64| number..=number;
    let (unique, duplicates) = (exactly(plan.unique()), plan.duplicates..=plan.duplicates + resent);
    let received = exactly(stats.unique_processed + stats.duplicate_dropped);
    let by_topic = stats.topics.iter().map(|(_, unique)| unique).sum();
    let values = [
        ("unique", stats.unique_processed, unique.clone()),
        ("duplicates", stats.duplicate_dropped, duplicates),
        ("received", stats.received, received),
        ("conflicts", stats.conflicts, exactly(0)),
        ("rows", stats.database_total_rows, unique.clone()),
        ("unique of all topics", by_topic, unique),
    ];
    let (name, found, expected) = values
        .into_iter()
        .find(|(_, found, expected)| !expected.contains(found))?;
    Some(format!(
        "{name} should be {}, but the service counts {}",
        shown(&expected),
        count(found)
    ))
}

fn shown(range: &RangeInclusive<u64>) -> String {
    let (low, high) = (*range.start(), *range.end());
    if low == high {
        count(low)
    } else {
        format!("{} to {}", count(low), count(high))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::api::stats::example::stats_with;
    use crate::cli::load::plan::example::plan;

    #[test]
    fn statistics_of_the_plan_are_right() {
        let stats = stats_with(json!({}));
        assert_eq!(error(&stats, &plan(20_000, 6_000), 0), None);
        assert_eq!(
            sum(&stats, true),
            "received 20,000 = unique 14,000 + duplicates 6,000: ok"
        );
    }

    #[test]
    fn each_wrong_value_is_named() {
        for (changes, name) in [
            (json!({"unique_processed": 14_001}), "unique"),
            (json!({"duplicate_dropped": 6_001}), "duplicates"),
            (json!({"received": 19_999}), "received"),
            (json!({"conflicts": 1}), "conflicts"),
            (json!({"database_total_rows": 13_999}), "rows"),
            (json!({"topics": {"a": 7_000}}), "unique of all topics"),
        ] {
            let error = error(&stats_with(changes), &plan(20_000, 6_000), 0).unwrap();
            assert!(error.starts_with(&format!("{name} should be")), "{error}");
        }
    }

    #[test]
    fn a_resent_event_may_be_one_duplicate_more() {
        let stats = stats_with(json!({"duplicate_dropped": 6_050, "received": 20_050}));
        assert_eq!(error(&stats, &plan(20_000, 6_000), 50), None);
        let error = error(&stats, &plan(20_000, 6_000), 49).unwrap();
        assert!(error.contains("should be 6,000 to 6,049"), "{error}");
    }
}
