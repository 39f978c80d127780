//! `metrics.md`: every series of the registry.

use std::collections::BTreeSet;
use std::fs;

use super::{check, code, documents, head, root, row};
use crate::metrics::Metrics;

const INTRODUCTION: &str = "\
# Metrics

`GET /metrics` answers with the metrics of one process in the text format of Prometheus, version 0.0.4. It reads memory only, so it also
answers while the store is down. Metrics of the outbox and of the log describe all replicas and are read every few seconds. They keep
their last value while the store is down. All other metrics are of one process; add them up over replicas.

No label has a value that a client can choose. A histogram NAME consists of the series NAME_bucket (with the label `le`), NAME_sum
and NAME_count. [Alerts](alerts.md) lists the alert rules, and [the guide](../guides/observability.md) how to collect metrics.
";

#[test]
fn metrics_page_is_current() {
    let mut table = head(&["name", "type", "labels", "meaning"]);
    for (description, kind) in Metrics::default().descriptions() {
        let labels: Vec<String> = description.variable_labels.iter().map(|label| code(label)).collect();

        table.push_str(&row(&[
            &code(&description.fq_name),
            type_of(kind),
            &labels.join(", "),
            &description.help,
        ]));
    }
    check("metrics.md", &format!("{INTRODUCTION}\n{table}"));
}

/// The type that Prometheus knows, of the type of a field.
fn type_of(kind: &str) -> &'static str {
    ["Counter", "Gauge", "Histogram"]
        .into_iter()
        .zip(["counter", "gauge", "histogram"])
        .find_map(|(part, name)| kind.contains(part).then_some(name))
        .unwrap_or_else(|| panic!("{kind} is a new kind of series"))
}

/// The names of series in a text.
fn names(text: &str) -> BTreeSet<&str> {
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .filter(|word| {
            ["eventsieve_", "process_"]
                .iter()
                .any(|prefix| word.len() > prefix.len() && word.starts_with(prefix))
        })
        .collect()
}

/// What begins as a series does and is none: a role of PostgreSQL, and a generated client.
const OTHER_NAMES: [&str; 2] = ["eventsieve_service", "eventsieve_client"];

#[test]
fn series_in_alerts_and_documents_exist() {
    let metrics = Metrics::default();
    let mut known = BTreeSet::new();
    for (description, kind) in metrics.descriptions() {
        if type_of(kind) == "histogram" {
            known.extend(["_bucket", "_sum", "_count"].map(|end| description.fq_name.clone() + end));
        }
        known.insert(description.fq_name);
    }
    let mut found = 0;
    for page in documents()
        .into_iter()
        .chain([root().join("deploy/prometheus/alerts.yml")])
    {
        let text = fs::read_to_string(&page).unwrap();
        for name in names(&text).into_iter().filter(|name| !OTHER_NAMES.contains(name)) {
            found += 1;
            assert!(known.contains(name), "{}: there is no series {name}", page.display());
        }
    }
    assert!(found > 20, "{found}");
}
