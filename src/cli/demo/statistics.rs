//! The check of the figures.

use crate::api::stats::Stats;
use crate::cli::load::plan::Plan;
use crate::cli::load::span::Span;
use crate::cli::stats::table::grouped;

/// The check in words: `received 20 000 = unique 14 000 + duplicates 6 000: ok`.
#[must_use]
pub fn sum(stats: &Stats, is_right: bool) -> String {
    format!(
        "received {} = unique {} + duplicates {}: {}",
        grouped(stats.received),
        grouped(stats.unique_processed),
        grouped(stats.duplicate_dropped),
        if is_right { "ok" } else { "off" }
    )
}

/// The first figure that is not what `plan` leads to in an empty store. `resent` are the events that were sent again after they had been stored,
/// each of which is one duplicate more.
#[must_use]
pub fn fault(stats: &Stats, plan: &Plan, resent: Span) -> Option<String> {
    let duplicates = Span {
        low: plan.duplicates + resent.low,
        high: plan.duplicates + resent.high,
    };
    let unique = Span::exactly(plan.unique());
    let received = Span::exactly(stats.unique_processed + stats.duplicate_dropped);
    let by_topic = stats.topics.iter().map(|(_, unique)| unique).sum();
    let figures = [
        ("unique", stats.unique_processed, unique),
        ("duplicates", stats.duplicate_dropped, duplicates),
        ("received", stats.received, received),
        ("conflicts", stats.conflicts, Span::exactly(0)),
        ("rows", stats.database_total_rows, unique),
        ("unique of all topics", by_topic, unique),
    ];
    let (name, found, expected) = figures
        .into_iter()
        .find(|(_, found, expected)| !expected.contains(*found))?;
    Some(format!("{name} should be {expected}, and the service says {found}"))
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU64;

    use serde_json::json;

    use super::*;
    use crate::api::stats::example::stats_with;

    const PLAN: Plan = Plan {
        events: 20_000,
        duplicates: 6_000,
        topics: NonZeroU64::MIN,
        seed: 1,
    };

    #[test]
    fn figures_that_are_the_plans_are_right() {
        let stats = stats_with(json!({}));
        assert_eq!(fault(&stats, &PLAN, Span::default()), None);
        assert_eq!(
            sum(&stats, true),
            "received 20 000 = unique 14 000 + duplicates 6 000: ok"
        );
    }

    #[test]
    fn each_figure_that_is_off_is_named() {
        for (changes, name) in [
            (json!({"unique_processed": 14_001}), "unique"),
            (json!({"duplicate_dropped": 6_001}), "duplicates"),
            (json!({"received": 19_999}), "received"),
            (json!({"conflicts": 1}), "conflicts"),
            (json!({"database_total_rows": 13_999}), "rows"),
            (json!({"topics": {"a": 7_000}}), "unique of all topics"),
        ] {
            let fault = fault(&stats_with(changes), &PLAN, Span::default()).unwrap();
            assert!(fault.starts_with(&format!("{name} should be")), "{fault}");
        }
    }

    #[test]
    fn an_event_that_was_sent_again_after_it_was_stored_is_a_duplicate_more() {
        let stats = stats_with(json!({"duplicate_dropped": 6_050, "received": 20_050}));
        let resent = Span { low: 0, high: 50 };
        assert_eq!(fault(&stats, &PLAN, resent), None);
        assert!(fault(&stats, &PLAN, Span { low: 0, high: 49 }).is_some());
    }
}
